"""Kernels of the masked LSTM: its directions over the real steps of a padded batch."""

from lengthwise.model.kernels.choice import KERNELS, choose_kernel
from lengthwise.model.kernels.direction import Direction
from lengthwise.model.kernels.hybrid import hybrid_lstms
from lengthwise.model.kernels.packed import packed_lstms
from lengthwise.model.kernels.scan import scan_lstms
from lengthwise.model.kernels.steps import RealSteps, real_steps

__all__ = [
    "KERNELS",
    "Direction",
    "RealSteps",
    "choose_kernel",
    "hybrid_lstms",
    "packed_lstms",
    "real_steps",
    "scan_lstms",
]

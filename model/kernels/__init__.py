"""Kernels of the masked LSTM: one direction over the real steps of a padded batch."""

from lengthwise.model.kernels.choice import KERNELS, choose_kernel
from lengthwise.model.kernels.hybrid import hybrid_lstm
from lengthwise.model.kernels.packed import packed_lstm
from lengthwise.model.kernels.scan import scan_lstm
from lengthwise.model.kernels.steps import RealSteps, real_steps

__all__ = [
    "KERNELS",
    "RealSteps",
    "choose_kernel",
    "hybrid_lstm",
    "packed_lstm",
    "real_steps",
    "scan_lstm",
]

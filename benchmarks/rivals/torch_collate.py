"""A list of rows to a padded batch, with PyTorch's own functions."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence


def collate(name: str, rows: list[tuple[torch.Tensor, int]]) -> dict[str, Any]:
    """Pads to the longest row of the batch."""
    steps, labels = zip(*rows, strict=True)
    length = torch.tensor([len(row) for row in steps])
    padded = pad_sequence(list(steps), batch_first=True)
    mask = torch.arange(padded.shape[1]) < length[:, None]
    return {name: padded, "length": length, "mask": mask, "label": torch.tensor(labels)}

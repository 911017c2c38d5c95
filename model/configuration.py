"""The options of a training run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from lengthwise.dataset import ManifestError, UsageError

TASKS = ("classify",)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run depends on, beside the dataset.

    Attributes:
        task: what is learnt, one of `TASKS`.
        label: the feature to predict; None takes the only label of the dataset.
        inputs: the features that the network sees; None takes all that are not labels.
        split: the split to train on.
        validation_split: the split that chooses the best epoch; None takes `val` or `validation`
            where the dataset has one, otherwise the training loss chooses.
        units: size of the state of each direction of each layer.
        layers: masked BiLSTMs on top of each other.
        embedding_size: size of the vector that an id becomes.
        dropout: fraction of the outputs of each layer that are dropped in training.
        normalize: bring float features to mean 0 and variance 1, measured over real training steps.
        epochs: passes over the training split.
        batch_size: rows of a batch.
        token_budget: padded steps of a batch, instead of `batch_size`.
        learning_rate: of Adam.
        clip_norm: the norm to which the gradient of all weights together is clipped.
        seed: of weights, dropout and the order of rows.

    Raises:
        UsageError: an option is out of its range; the message names it as on the command line.

    Example:
        >>> TrainConfig(units=0)
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.UsageError: --units is 0; it must be at least 1
    """

    task: str = "classify"
    label: str | None = None
    inputs: tuple[str, ...] | None = None
    split: str = "train"
    validation_split: str | None = None
    units: int = 64
    layers: int = 1
    embedding_size: int = 32
    dropout: float = 0.3
    normalize: bool = True
    epochs: int = 40
    batch_size: int = 32
    token_budget: int | None = None
    learning_rate: float = 5e-3
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UsageError(f"--task {self.task} is not known; there is: {', '.join(TASKS)}")
        if self.inputs is not None and not self.inputs:
            raise UsageError("--input names no feature; leave it out to use all of them")
        for name in ("units", "layers", "embedding_size", "epochs", "batch_size"):
            _check(name, getattr(self, name), 1, math.inf)
        if self.token_budget is not None:
            _check("token_budget", self.token_budget, 1, math.inf)
        _check("seed", self.seed, 0, 2**32 - 1)
        _check("dropout", self.dropout, 0, 0.99)
        _check("learning_rate", self.learning_rate, 1e-9, 10)
        _check("clip_norm", self.clip_norm, 1e-9, 1e9)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        fields = dataclasses.asdict(self)
        return {**fields, "inputs": None if self.inputs is None else list(self.inputs)}

    @classmethod
    def from_json(cls, members: dict[str, Any], *, place: str) -> TrainConfig:
        """Reads what `to_json` wrote.

        Args:
            members: the JSON object.
            place: where it stands, for messages.

        Raises:
            ManifestError: a member is unknown, or of the wrong type or range.
        """
        fields = dict(members)
        if isinstance(fields.get("inputs"), list):
            fields["inputs"] = tuple(fields["inputs"])
        try:
            return cls(**fields)
        except (TypeError, UsageError) as reason:
            raise ManifestError(f"{place}: not the options of a run: {reason}") from None


def _check(name: str, value: Any, low: float, high: float) -> None:
    option = f"--{name.replace('_', '-')}"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UsageError(f"{option} is {value!r}; it must be a number")
    if not low <= value <= high:
        limit = f"at least {low}" if value < low else f"at most {high}"
        raise UsageError(f"{option} is {value}; it must be {limit}")

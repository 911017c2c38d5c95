"""The options of a training run."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lengthwise.dataset import InputError, ManifestError, UsageError

TASKS = ("classify", "regress", "tag")
POOLINGS = ("last", "mean", "max", "attention")
CONTEXTS = ("embed", "onehot")
SCHEDULES = ("constant", "cosine", "plateau")
CLASS_WEIGHTS = ("none", "balanced")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = ("none", "mirrored", "multiworker")
# What the best epoch may be chosen by, for each task; the first is the default.
MONITORS = {
    "classify": ("loss", "accuracy", "macro_f1"),
    "regress": ("loss", "rmse", "mae"),
    "tag": ("loss", "accuracy", "macro_f1"),
}
MAX_CONFIG_BYTES = 1 << 20

# Numbers: lowest and highest value. Those with None as their default may be None.
_RANGES: dict[str, tuple[float, float]] = {
    "units": (1, 1 << 20),
    "layers": (1, 1000),
    "embedding_size": (1, 1 << 20),
    "dropout": (0, 0.99),
    "epochs": (1, 1 << 31),
    "batch_size": (1, 1 << 31),
    "token_budget": (1, 1 << 40),
    "learning_rate": (1e-9, 10),
    "warmup_steps": (0, 1 << 40),
    "plateau_patience": (1, 1 << 31),
    "plateau_factor": (0.001, 0.999),
    "weight_decay": (0, 10),
    "clip_norm": (1e-9, 1e9),
    "accumulate_steps": (1, 1 << 20),
    "patience": (1, 1 << 31),
    "checkpoint_steps": (1, 1 << 40),
    "seed": (0, 2**32 - 1),
}
_WORDS = {
    "task": TASKS,
    "pooling": POOLINGS,
    "context": CONTEXTS,
    "schedule": SCHEDULES,
    "class_weights": CLASS_WEIGHTS,
    "precision": PRECISIONS,
    "strategy": STRATEGIES,
}
_OPTIONAL = {"token_budget", "patience", "checkpoint_steps"}
_FLAGS = {"layer_norm", "residual", "normalize"}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run depends on, beside the dataset.

    Attributes:
        task: what is learnt, one of `TASKS`: "classify" one class for each row, or, where the label
            is a vector of 0 and 1, each of its values; "regress" the numbers of the label; "tag"
            one class for each step.
        label: the feature to predict; None takes the only label of the dataset.
        inputs: the features that the network sees; None takes all that are not labels.
        split: the split to train on.
        validation_split: the split that chooses the best epoch; None takes `val` or `validation`
            where the dataset has one, otherwise the training numbers choose.
        build_model: a network of one's own, as "module:function"; see `build_network` for what the
            function takes and gives. The options of the network, `units` to `residual`, are its to
            use.
        units: size of the state of each direction of each layer.
        layers: masked BiLSTMs on top of each other.
        embedding_size: size of the vector that an id becomes.
        context: how ids per row enter, "embed" or "onehot".
        dropout: fraction of the outputs of each layer that are dropped in training.
        pooling: from steps to a row: "last" real step of each direction, "mean" or "max" over real
            steps, or "attention"; tagging has none.
        layer_norm: normalise the outputs of each layer, step by step.
        residual: add the input of each layer but the first to its output.
        normalize: bring float features, and the label of a regression, to mean 0 and variance 1,
            measured over real training steps; features that the build normalised stay as they are.
        epochs: passes over the training split.
        batch_size: rows of a batch, over all replicas.
        token_budget: padded steps of a batch, instead of `batch_size`.
        learning_rate: of Adam, after the warm-up.
        schedule: "constant"; "cosine", falling to 0 at the end of the last epoch; "plateau",
            multiplied by `plateau_factor` whenever `plateau_patience` epochs were no better.
        warmup_steps: updates over which the learning rate rises from 0, with any schedule.
        plateau_patience: epochs.
        plateau_factor: below 1.
        weight_decay: of AdamW, which takes Adam's place where it is above 0.
        clip_norm: the norm to which the gradient of all weights together is clipped.
        accumulate_steps: batches whose mean gradient makes one update.
        class_weights: "balanced" gives all classes the same total weight in the loss of training,
            from the label counts of the plan.
        precision: "float32", or "mixed_bfloat16", "mixed_float16".
        patience: epochs without a better one after which training stops; None never stops.
        monitor: the number that says which epoch is better, one of `MONITORS`.
        checkpoint_steps: write the state of the run every so many steps, beside the end of each
            epoch, so that a killed run loses less.
        strategy: "mirrored" uses all GPUs of the machine, "multiworker" several processes as
            TF_CONFIG names them.
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
    build_model: str | None = None
    units: int = 64
    layers: int = 1
    embedding_size: int = 32
    context: str = "embed"
    dropout: float = 0.3
    pooling: str = "last"
    layer_norm: bool = False
    residual: bool = False
    normalize: bool = True
    epochs: int = 40
    batch_size: int = 32
    token_budget: int | None = None
    learning_rate: float = 5e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    plateau_patience: int = 3
    plateau_factor: float = 0.5
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    accumulate_steps: int = 1
    class_weights: str = "none"
    precision: str = "float32"
    patience: int | None = None
    monitor: str = "loss"
    checkpoint_steps: int | None = None
    strategy: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise UsageError(
                    f"{_option(name)} {getattr(self, name)} is not known; there is: "
                    f"{', '.join(words)}"
                )
        if self.inputs is not None and not isinstance(self.inputs, tuple):
            raise UsageError(f"--input is {self.inputs!r}; it must be a list of features")
        if self.inputs is not None and not self.inputs:
            raise UsageError("--input names no feature; leave it out to use all of them")
        for name in ("label", "split", "validation_split", "build_model", "monitor"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name in ("split", "monitor")):
                raise UsageError(f"{_option(name)} is {value!r}; it must be a text")
        if self.inputs is not None and not all(isinstance(name, str) for name in self.inputs):
            raise UsageError(f"--input is {list(self.inputs)}; it must name features")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{_option(name)} is {getattr(self, name)!r}; yes or no is needed")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                whole = not isinstance(defaults[name], float)
                _check(name, value, low, high, whole=whole)
        if self.monitor not in MONITORS[self.task]:
            raise UsageError(
                f"--monitor {self.monitor} is not known to --task {self.task}; there is: "
                f"{', '.join(MONITORS[self.task])}"
            )
        if self.strategy != "none" and self.accumulate_steps > 1:
            raise UsageError(
                "--accumulate-steps and --strategy exclude each other: with more replicas, give a "
                "larger --batch-size"
            )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        fields = dataclasses.asdict(self)
        return {**fields, "inputs": None if self.inputs is None else list(self.inputs)}

    @classmethod
    def from_json(cls, members: Mapping[str, Any], *, place: str) -> TrainConfig:
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

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], **options: Any) -> TrainConfig:
        """Reads options from a file with a line `name: value` for each.

        Args:
            path: YAML, or JSON, which is YAML too.
            **options: take the place of what the file says.

        Raises:
            InputError: the file cannot be read.
            UsageError: it names an option that does not exist, or a value that cannot be.

        Example:
            >>> _ = Path("small.yaml").write_text("units: 8\\ninputs: [frames]\\n")
            >>> config = TrainConfig.from_yaml("small.yaml", units=16)
            >>> config.units, config.inputs
            (16, ('frames',))
        """
        fields = {**_read_yaml(Path(path)), **options}
        names = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                raise UsageError(
                    f"{path}: there is no option '{name}'"
                    + (f"; did you mean '{near[0]}'?" if near else "")
                )
        given = fields.get("inputs")
        if isinstance(given, (list, str)):
            # One name alone is no list of letters.
            fields["inputs"] = (given,) if isinstance(given, str) else tuple(given)
        for name, (_, high) in _RANGES.items():
            # YAML reads 1e-3 as a text: its numbers have a point.
            if isinstance(fields.get(name), str) and high < math.inf:
                try:
                    fields[name] = float(fields[name])
                except ValueError:
                    pass
        try:
            return cls(**fields)
        except UsageError as reason:
            raise UsageError(f"{path}: {reason}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InputError(f"{path}: is too large for a file of options")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise InputError(f"{path}: cannot be read: {reason.strerror or reason}") from None
    # ValueError: bytes that are no text, dates and numbers that cannot be.
    except (yaml.YAMLError, ValueError, RecursionError) as reason:
        cause = " ".join(str(reason).split())
        raise InputError(f"{path}: not valid YAML: {cause}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InputError(f"{path}: must have a line 'name: value' for each option")
    named = {str(name).replace("-", "_"): value for name, value in document.items()}
    # As the option of the command line is called.
    return {"inputs" if name == "input" else name: value for name, value in named.items()}


def _option(name: str) -> str:
    return f"--{'input' if name == 'inputs' else name.replace('_', '-')}"


def _check(name: str, value: Any, low: float, high: float, *, whole: bool) -> None:
    option = _option(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UsageError(f"{option} is {value!r}; it must be a number")
    if whole and not isinstance(value, int):
        raise UsageError(f"{option} is {value!r}; it must be a whole number")
    if not low <= value <= high:
        limit = f"at least {low}" if value < low else f"at most {high}"
        raise UsageError(f"{option} is {value}; it must be {limit}")

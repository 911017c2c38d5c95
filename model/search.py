"""A search for good options of a run, carried by Optuna."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import yaml

from lengthwise.dataset import Manifest, OutputError, UsageError
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.faults import TrainingError
from lengthwise.model.metrics import better
from lengthwise.model.run import replace_text, write_table
from lengthwise.model.training import find_validation_split, train

STUDY_NAME = "study.log"
BEST_NAME = "best.yaml"
TRIALS_NAME = "trials.csv"
DEFAULT_RANGES = ("learning_rate=0.001..0.02", "units=32,64,128", "dropout=0..0.5", "layers=1,2")

_RANGE = re.compile(r"([a-z_]+)=(.+)\.\.(.+)")
_CHOICE = re.compile(r"([a-z_]+)=(.+)")
_FLAGS = {"true": True, "yes": True, "false": False, "no": False}
# A factor makes more of a difference here than a sum.
_LOGARITHMIC = ("learning_rate", "weight_decay", "token_budget", "batch_size", "units")


@dataclass(frozen=True)
class SearchRange:
    """The values of one option.

    Attributes:
        name: of the field of `TrainConfig`.
        low, high: both inclusive; None where there are choices.
        choices: the values themselves.
    """

    name: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str) -> SearchRange:
        """Reads NAME=LOW..HIGH or NAME=A,B,C.

        Raises:
            UsageError: it is neither, or no option of a run.

        Example:
            >>> SearchRange.parse("units=32,64").choices, SearchRange.parse("dropout=0..0.5").high
            ((32, 64), 0.5)
        """
        name, equals, values_text = text.partition("=")
        normal = name.replace("-", "_") + equals + values_text
        match = _RANGE.fullmatch(normal) or _CHOICE.fullmatch(normal)
        defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
        # Optuna has no values that are lists.
        if match is None or match[1] not in defaults or match[1] == "inputs":
            raise UsageError(
                f"--search {text}: write NAME=LOW..HIGH or NAME=A,B,C with the name of an option "
                "of `lengthwise train`"
            )
        is_flag = isinstance(defaults[match[1]], bool)
        values: list[Any] = [
            _FLAGS.get(part.lower(), part) if is_flag else _value(part)
            for part in (match.groups()[1:] if match.lastindex == 3 else match[2].split(","))
        ]
        if match.lastindex == 3:
            low, high = values
            if not all(isinstance(v, (int, float)) for v in values) or not low < high:
                raise UsageError(f"--search {text}: must rise from a number to a larger one")
            return cls(match[1], low, high)
        return cls(match[1], choices=tuple(values))

    def suggest(self, trial: Any) -> Any:
        """A value for an Optuna trial."""
        if self.low is None or self.high is None:
            return trial.suggest_categorical(self.name, list(self.choices))
        log = self.name in _LOGARITHMIC and self.low > 0
        if isinstance(self.low, int) and isinstance(self.high, int) and self.name != "dropout":
            return trial.suggest_int(self.name, self.low, self.high, log=log)
        return trial.suggest_float(self.name, float(self.low), float(self.high), log=log)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the options of the best trial.
        value: its number.
        monitor: which number that is.
        trials: how many there are by now.
        path: the file of options of the best trial, for `lengthwise train --config`.
    """

    best: Mapping[str, Any]
    value: float
    monitor: str
    trials: int
    path: Path


def search(
    dataset_path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    config: TrainConfig,
    *,
    ranges: tuple[SearchRange, ...],
    trials: int,
    on_trial: Callable[[int, Mapping[str, Any], float], None] = lambda *_: None,
) -> SearchResult:
    """Trains again and again with other options, and keeps what validated best.

    A search that was stopped goes on with the trials that are left.

    Args:
        dataset_path: the dataset folder; it needs a validation split.
        folder: of the search; each trial has its run folder in it.
        config: the options that are not searched for.
        ranges: the ones that are.
        trials: how many in all.
        on_trial: is told number, options and result of each.

    Raises:
        UsageError: Optuna is not installed, there is no validation split, or two ranges are of one
            option.
        OutputError: the folder holds a search with other options or ranges, or something else.
        LengthwiseError: see `train`.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalStorage
    except ImportError:
        raise UsageError("lengthwise tune needs Optuna: pip install 'lengthwise[tune]'") from None
    names = [item.name for item in ranges]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--search {name} is given more than once; name all its values in one")
    manifest = Manifest.load(dataset_path)
    if find_validation_split(manifest, config) is None:
        raise UsageError(
            f"{manifest.root}: a search needs a validation split; build with --split "
            "train=0.9,val=0.1, or name one with --validation-split"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    higher = better(config.monitor, 1.0, 0.0)
    try:
        study: Any = optuna.create_study(
            study_name=f"{manifest.fingerprint}-{config.monitor}",
            storage=JournalStorage(JournalFileBackend(str(folder / STUDY_NAME))),
            direction="maximize" if higher else "minimize",
            load_if_exists=True,
        )
    # Damaged lines fail in as many ways as there are bytes in them.
    except (ValueError, KeyError, TypeError, AttributeError) as reason:
        raise OutputError(
            f"{folder / STUDY_NAME}: is no record of a search: {reason}; give another --tune-dir"
        ) from None
    _check_same(study, folder, config, ranges)
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    done = len(study.get_trials(states=finished))
    # Another start draws on, and not the same numbers again.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + done)

    def objective(trial: Any) -> float:
        options = {item.name: item.suggest(trial) for item in ranges}
        keras.utils.clear_session()
        run_dir = folder / f"trial-{trial.number:04d}"
        try:
            result = train(
                dataset_path, run_dir, dataclasses.replace(config, **options), fresh=True
            )
        except TrainingError:
            on_trial(trial.number, options, math.nan)
            raise optuna.TrialPruned from None
        value = float(result.best[f"val_{config.monitor}"])
        on_trial(trial.number, options, value)
        return value

    study.optimize(objective, n_trials=max(0, trials - done))
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise TrainingError(f"{folder}: no trial came to an end; narrow the ranges of --search")
    best = study.best_trial
    options = {**config.to_json(), **best.params}
    replace_text(folder / BEST_NAME, yaml.safe_dump(options, sort_keys=False))
    write_table(
        folder / TRIALS_NAME,
        [{"trial": t.number, f"val_{config.monitor}": t.value, **t.params} for t in complete],
    )
    return SearchResult(
        dict(best.params),
        float(best.value),
        f"val_{config.monitor}",
        len(study.get_trials(states=finished)),
        folder / BEST_NAME,
    )


def _check_same(
    study: Any, folder: Path, config: TrainConfig, ranges: tuple[SearchRange, ...]
) -> None:
    """Raises OutputError where trials were made with other options: their numbers do not compare,
    and the best of them would be written down with options that it did not have.
    """
    mine = {**config.to_json(), **{f"search {item.name}": repr(item) for item in ranges}}
    there = study.user_attrs.get("options")
    if there is None:
        study.set_user_attr("options", mine)
        return
    names = sorted(name for name in {*there, *mine} if there.get(name) != mine.get(name))
    if names:
        raise OutputError(
            f"{folder}: holds a search with other options: {names[0]} differs; give another "
            "--tune-dir, or the options of before"
        )


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text

"""The search for good options."""

from __future__ import annotations

import csv
import dataclasses
import math
import sys
from types import SimpleNamespace

import pytest

from lengthwise.dataset import OutputError, UsageError
from lengthwise.model import Run, TrainConfig
from lengthwise.model import search as search_module
from lengthwise.model.faults import TrainingError
from lengthwise.model.search import SearchRange, search

CONFIG = TrainConfig(inputs=("frames",), units=2, epochs=1, batch_size=16, monitor="accuracy")
RANGES = (SearchRange.parse("learning_rate=0.001..0.1"), SearchRange.parse("pooling=mean,max"))


@pytest.fixture
def dataset(write_dataset, make_rows):
    return write_dataset({"train": make_rows(30), "val": make_rows(10, seed=1)})


def test_a_search_keeps_the_best_and_goes_on_where_it_was(dataset, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setenv("LENGTHWISE_KERNEL", "hybrid")
    seen = []

    def note(number, options, value):
        seen.append((number, options, value))

    first = search(dataset, tmp_path / "s", CONFIG, ranges=RANGES, trials=1, on_trial=note)
    assert first.trials == 1
    found = search(dataset, tmp_path / "s", CONFIG, ranges=RANGES, trials=2, on_trial=note)
    assert [number for number, _, _ in seen] == [0, 1]
    assert found.trials == 2
    assert found.value == max(value for _, _, value in seen)
    assert found.best in [options for _, options, _ in seen]
    assert seen[0][1] != seen[1][1]
    config = TrainConfig.from_yaml(found.path)
    assert config == dataclasses.replace(CONFIG, **found.best)
    best = next(number for number, options, _ in seen if options == found.best)
    assert Run.load(tmp_path / "s" / f"trial-{best:04d}").config == config
    with open(tmp_path / "s" / "trials.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


@pytest.fixture
def searched(dataset, tmp_path, monkeypatch):
    """Searches the learning rate, with numbers of validation in the place of training."""
    pytest.importorskip("optuna")

    def run(name, trials, number, **options):
        seen = []

        def trained(path, folder, config, *, fresh):
            assert fresh
            value = number(len(seen), config)
            best = {f"val_{config.monitor}": value}
            return SimpleNamespace(best=best, history=({f"val_{config.monitor}": 0.0},))

        monkeypatch.setattr(search_module, "train", trained)
        config = dataclasses.replace(CONFIG, **options)
        found = search(
            dataset,
            tmp_path / name,
            config,
            ranges=RANGES[:1],
            trials=trials,
            on_trial=lambda number, options, value: seen.append((options["learning_rate"], value)),
        )
        return found, seen

    return run


@pytest.mark.parametrize(("monitor", "best"), [("accuracy", max), ("loss", min)])
def test_the_best_is_the_highest_score_or_the_lowest_loss(searched, monitor, best):
    found, seen = searched("s", 4, lambda n, config: config.learning_rate, monitor=monitor)
    assert found.value == best(value for _, value in seen)
    assert found.best == {"learning_rate": found.value}


def test_a_search_draws_the_same_again_by_its_seed(searched):
    trials = [
        searched(f"s{n}", 3, lambda n, config: 0.5, seed=seed)[1]
        for n, seed in enumerate([1, 1, 2])
    ]
    assert trials[0] == trials[1] != trials[2]
    # What a search goes on with is not what it began with.
    more = searched("s0", 5, lambda n, config: 0.5, seed=1)[1]
    assert not {rate for rate, _ in trials[0]} & {rate for rate, _ in more}
    assert len(more) == 2


def test_a_trial_whose_loss_is_no_number_is_passed_over(searched):
    def number(trial, config):
        if trial == 1:
            raise TrainingError("epoch 1, step 1: the loss is no number")
        return 0.1 * (1 + trial)

    found, seen = searched("s", 3, number)
    assert found.trials == 3
    assert found.value == pytest.approx(0.3)
    assert [math.isnan(value) for _, value in seen] == [False, True, False]
    with pytest.raises(TrainingError, match="no trial came to an end; narrow the ranges"):
        searched("t", 2, lambda n, config: number(1, config))


@pytest.mark.parametrize(
    ("text", "kind", "log"),
    [
        ("learning_rate=0.001..0.1", "float", True),
        ("dropout=0..1", "float", False),
        ("units=16..64", "int", True),
        ("weight_decay=0..0.1", "float", False),
        ("layers=1..3", "int", False),
    ],
)
def test_what_makes_a_difference_by_its_factor_is_drawn_by_its_logarithm(text, kind, log):
    drawn = []

    class Trial:
        def suggest_float(self, *given, log):
            drawn.append(("float", log))

        def suggest_int(self, *given, log):
            drawn.append(("int", log))

    SearchRange.parse(text).suggest(Trial())
    assert drawn == [(kind, log)]


def test_a_search_goes_on_with_its_own_options_only(dataset, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setenv("LENGTHWISE_KERNEL", "hybrid")
    ranges = (SearchRange.parse("units=2,3"),)
    search(dataset, tmp_path / "s", CONFIG, ranges=ranges, trials=1)
    before = (tmp_path / "s" / "best.yaml").read_text()
    for config, text, name in (
        (CONFIG, "units=2,3,4", "search units"),
        (CONFIG, "dropout=0..0.5", "search dropout"),
        (dataclasses.replace(CONFIG, batch_size=8), "units=2,3", "batch_size"),
    ):
        with pytest.raises(OutputError, match=f"{name} differs; give another --tune-dir"):
            search(dataset, tmp_path / "s", config, ranges=(SearchRange.parse(text),), trials=2)
    assert (tmp_path / "s" / "best.yaml").read_text() == before


def test_a_damaged_search_and_an_option_twice_are_refused(dataset, tmp_path):
    pytest.importorskip("optuna")
    with pytest.raises(UsageError, match="--search pooling is given more than once"):
        search(dataset, tmp_path / "s", CONFIG, ranges=(*RANGES, RANGES[1]), trials=1)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.log").write_text("garbage\nmore\n")
    with pytest.raises(OutputError, match=r"study\.log: is no record of a search"):
        search(dataset, tmp_path / "s", CONFIG, ranges=RANGES, trials=1)


def test_ranges_take_exponents_dashes_and_flags():
    assert SearchRange.parse("learning_rate=1e-4..1e-2").low == 1e-4
    assert SearchRange.parse("weight-decay=1e-5..1e-3").high == 1e-3
    assert SearchRange.parse("layer-norm=true,no").choices == (True, False)


@pytest.mark.parametrize(
    "text",
    ["units", "inputs=a,b", "size=1..2", "units=5..2", "dropout=a..b", "learning_rate=0.1..0.1"],
)
def test_a_range_that_cannot_be_is_refused(text):
    with pytest.raises(UsageError, match="--search"):
        SearchRange.parse(text)


def test_without_optuna_it_is_said_how_to_get_it(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"needs Optuna: pip install 'lengthwise\[tune\]'"):
        search(dataset, tmp_path / "s", CONFIG, ranges=RANGES, trials=1)
    assert not (tmp_path / "s").exists()


def test_a_search_needs_something_to_validate_on(write_dataset, make_rows, tmp_path):
    pytest.importorskip("optuna")
    path = write_dataset({"train": make_rows(5)})
    with pytest.raises(UsageError, match="a search needs a validation split"):
        search(path, tmp_path / "s", CONFIG, ranges=RANGES, trials=1)

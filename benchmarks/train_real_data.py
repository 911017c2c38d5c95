"""Accuracy on five real data sets, beside the same networks in plain Keras; writes docs/results.md.

    python benchmarks/train_real_data.py japanese_vowels --seeds 5 --keras-seeds 2
    python benchmarks/train_real_data.py                    # only writes the page again

Each data set is built as `examples/build_all` does it, unless it is there. Each seed runs in
processes of its own: `lengthwise train` and `lengthwise evaluate`, then `keras_twin.py`. What a run
gave is written to `--output`/results/NAME.json as soon as it ends, so a program that was stopped
goes on with the seeds that are left; other settings begin again. The page has a line for every data
set, also for one that did not run.

What an epoch costs is CPU time of the process, without start and tracing. Of `lengthwise train` it
is (all epochs - one epoch) / (epochs - 1), from a second run of one epoch; of Keras, where the
process can be looked into, the time from the end of the first epoch to the end of the last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from process_usage import SINGLE_THREAD, Task, call_task, run

REPOSITORY = Path(__file__).resolve().parents[1]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from examples.catalogue import EXAMPLES  # noqa: E402
from examples.driver import build, prepare  # noqa: E402
from lengthwise.dataset import Manifest  # noqa: E402

# Options of `lengthwise train`; the page has them as a command.
_COMMON = {"schedule": "cosine", "learning_rate": 0.005}
SETTINGS: dict[str, dict[str, Any]] = {
    "japanese_vowels": {**_COMMON, "units": 64, "dropout": 0.4, "batch_size": 16, "epochs": 40},
    "movie_snippets": {
        **_COMMON,
        "units": 32,
        "embedding_size": 32,
        "dropout": 0.5,
        "batch_size": 32,
        "epochs": 3,
    },
    "essen_songs": {
        **_COMMON,
        "units": 64,
        "embedding_size": 32,
        "pooling": "max",
        "dropout": 0.3,
        "batch_size": 32,
        "epochs": 15,
    },
    "peoples_daily": {
        **_COMMON,
        "task": "tag",
        "units": 64,
        "embedding_size": 64,
        "dropout": 0.3,
        "batch_size": 32,
        "epochs": 2,
    },
    "plaid": {
        **_COMMON,
        "units": 64,
        "dropout": 0.4,
        "pooling": "max",
        "batch_size": 16,
        "epochs": 60,
    },
}
TITLES = {
    "japanese_vowels": "JapaneseVowels: which of nine speakers",
    "plaid": "PLAID: which of eleven appliances",
    "movie_snippets": "Movie snippets: which of two sentiments",
    "peoples_daily": "People's Daily: which of 44 parts of speech, per word",
    "essen_songs": "Essen folk songs: which of 14 collections",
}
FLOORS = {"tag": "the commonest tag of each word", "classify": "the commonest class"}
PROGRAM = str(Path(sys.executable).with_name("lengthwise"))
NUMBERS = ("accuracy", "macro_f1", "loss")
ENVIRONMENT = {**SINGLE_THREAD, "TF_CPP_MIN_LOG_LEVEL": "3"}


def main() -> None:
    options = _options()
    results = options.output / "results"
    for name in options.names:
        train_one(name, options, results / f"{name}.json")
    found = {name: _load(results / f"{name}.json", name) for name in TITLES}
    options.page.write_text(page(found), "utf-8")
    print(f"written: {options.page}")


def train_one(name: str, options: argparse.Namespace, path: Path) -> None:
    """Runs the seeds of one data set that its file does not have yet."""
    dataset = options.output / "datasets" / name
    if not (dataset / "dataset.json").exists():
        (example,) = (example for example in EXAMPLES if example.name == name)
        prepare(example, cache=options.cache or options.output / "cache", output=options.output)
        build(example, output=options.output)
    settings, runs = SETTINGS[name], options.output / "runs" / name
    runs.mkdir(parents=True, exist_ok=True)
    result = _load(path, name)
    result |= {"settings": settings, "floor": floor(dataset), "rows": _rows(dataset)}
    for seed in range(options.seeds):
        folder = runs / f"seed-{seed}"
        own = result["ours"].get(str(seed))
        if own is None:
            own = run_ours(dataset, settings, seed, folder)
            _keep(path, result, "ours", seed, own)
        if seed < options.seeds - options.keras_seeds or str(seed) in result["keras"]:
            continue
        task = call_task(
            "keras_twin:train_twin",
            rows=1,
            dataset=str(dataset),
            options=settings,
            seed=seed,
            run_folder=str(folder),
        )
        keras = run(task, environment=ENVIRONMENT).own
        one_epoch = {**settings, "epochs": 1}
        short = train_ours(dataset, one_epoch, seed, folder.with_name(f"{folder.name}-one-epoch"))
        rest = (own["seconds"] - short) / (settings["epochs"] - 1)
        _keep(path, result, "ours", seed, {**own, "seconds per epoch": rest})
        _keep(path, result, "keras", seed, keras)


def run_ours(
    dataset: Path, settings: Mapping[str, Any], seed: int, folder: Path
) -> dict[str, float]:
    """`lengthwise train` and `lengthwise evaluate`; the "seconds" are CPU time of the former."""
    seconds = train_ours(dataset, settings, seed, folder)
    argv = [PROGRAM, "evaluate", str(folder), str(dataset), "--no-write", "--json"]
    report = run(Task(argv, rows=1), environment=ENVIRONMENT).own
    return {name: float(report[name]) for name in NUMBERS} | {"seconds": seconds}


def train_ours(dataset: Path, settings: Mapping[str, Any], seed: int, folder: Path) -> float:
    """`lengthwise train`; returns its CPU seconds."""
    argv = [PROGRAM, "train", str(dataset), "--run-dir", str(folder)]
    for option, value in {**settings, "seed": seed}.items():
        argv += [f"--{option.replace('_', '-')}", str(value)]
    return run(Task(argv, rows=1, fresh=[folder]), environment=ENVIRONMENT).cpu_seconds


def floor(dataset: Path) -> float:
    """Share of the test split that is right without a network, by counts of the training split.

    Of rows: the commonest class for all. Of steps: for each word the tag that it has most often,
    words outside of the vocabulary being one word, as for the network.
    """
    from lengthwise.model import as_numpy

    manifest = Manifest.load(dataset)
    (label,) = manifest.schema.labels
    pairs = {}
    for split in ("train", "test"):
        words, labels = [], []
        for features, given in as_numpy(dataset, split, batch_size=1024, shuffle=False):
            there = features["mask"] if label.sequence else np.ones(len(given), bool)
            labels.append(given[there])
            (word,) = (
                (f.name for f in manifest.schema.sequences if not f.label)
                if label.sequence
                else (None,)
            )
            words.append(features[word][there] if word else np.zeros(len(given), np.int64))
        pairs[split] = np.concatenate(words), np.concatenate(labels)
    shape = [1 + max(int(pairs[split][at].max()) for split in pairs) for at in (0, 1)]
    counts = np.zeros(shape, np.int64)
    np.add.at(counts, pairs["train"], 1)
    commonest = counts.argmax(axis=1)
    # A word that training has not: the tag of the words outside of the vocabulary.
    commonest[counts.sum(axis=1) == 0] = commonest[min(1, len(commonest) - 1)]
    words, labels = pairs["test"]
    return float(np.mean(commonest[words] == labels))


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of docs/results.md."""
    headings = "| " + " | ".join(_HEADINGS) + " |\n" + "|---" * len(_HEADINGS) + "|"
    lines = [_HEAD.format(table=headings)]
    for name, result in results.items():
        lines.append("| " + " | ".join(_line(name, result)) + " |")
    lines.append(_NOTES)
    lines += [f"\n## {name}\n\n{_commands(name, results[name])}" for name in results]
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


def _line(name: str, result: Mapping[str, Any]) -> list[str]:
    ours, keras = result["ours"], result["keras"]
    if not ours:
        return [TITLES[name], *("" for _ in range(3)), "not run", "", "not run", ""]
    ratios = [
        keras[seed]["seconds per epoch"] / ours[seed]["seconds per epoch"]
        for seed in sorted(keras)
        if "seconds per epoch" in ours.get(seed, {})
    ]
    rows = result["rows"]
    return [
        TITLES[name],
        f"{rows['train']:,}",
        f"{rows['test']:,}",
        f"{result['floor']:.3f}",
        _spread(ours, "accuracy"),
        _spread(ours, "macro_f1"),
        _spread(keras, "accuracy") if keras else "not run",
        _ratio(ratios),
    ]


def _spread(runs: Mapping[str, Mapping[str, float]], number: str) -> str:
    values = [own[number] for own in runs.values()]
    if len(values) == 1:
        return f"{values[0]:.4f} (1 seed)"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f} ({len(values)} seeds)"


def _ratio(ratios: Sequence[float]) -> str:
    if len(ratios) < 2:
        return "".join(f"{ratio:.1f} × (1 pair)" for ratio in ratios)
    return f"{statistics.median(ratios):.1f} × ({min(ratios):.1f}–{max(ratios):.1f})"


def _commands(name: str, result: Mapping[str, Any]) -> str:
    seeds = " ".join(sorted(result["ours"], key=int)) or "0"
    settings = SETTINGS[name]
    flags = [f"--{option.replace('_', '-')} {value}" for option, value in settings.items()]
    command = f"lengthwise train {name} --run-dir run-{name}-$seed --seed $seed"
    single = [
        f"seed {seed}: {own['accuracy']:.4f}"
        + (f" (Keras {result['keras'][seed]['accuracy']:.4f})" if seed in result["keras"] else "")
        for seed, own in sorted(result["ours"].items(), key=lambda item: int(item[0]))
    ]
    text = f"""```bash
for seed in {seeds}; do
    {command} \\
        {" ".join(flags[:4])} \\
        {" ".join(flags[4:])}
    lengthwise evaluate run-{name}-$seed {name} --split test
done
python benchmarks/train_real_data.py {name} --seeds {max(1, len(result["ours"]))} \
--keras-seeds {len(result["keras"])}
```
"""
    if single:
        kind = settings.get("task", "classify")
        text += f"\nAccuracy on `test`, {'; '.join(single)}. Floor: {FLOORS[kind]}.\n"
    return text


_HEADINGS = (
    *("data set", "rows to train", "rows to test", "floor", "accuracy", "macro F1"),
    *("accuracy of Keras", "CPU time of an epoch: Keras ÷ Lengthwise"),
)
_HEAD = """# Results on real data

What the commands of this package reach on the [five data sets of the examples](examples.md), and
what the same networks reach in plain Keras. Written by `benchmarks/train_real_data.py`.

{table}"""

_NOTES = """
Mean ± standard deviation over seeds, each a training from the start: weights, dropout and the order
of rows differ, the split never. Accuracy is over all rows of the split `test`, or over all its real
steps where each step has a label, with the weights of the epoch that had the lowest loss on `val`;
JapaneseVowels and PLAID have no `val`, there the loss of training chooses. Their splits are the
official ones; the others are drawn with the seed of the build, as [examples.md](examples.md) says.
*Floor* is what is right without a network. Settings were chosen by a trial or two, not searched;
they stand below. Those of PLAID had the highest accuracy, after the last epoch, on a fifth of the
training rows that a build with a seeded split held out, of eight settings with one seed each; only
the length of its frames is older than that, and was among trials on `test`. These are figures of a
plain network trained shortly, not the best that can be had on this data; PLAID has few rows to
train on.

*Keras* is `benchmarks/keras_twin.py`: the same rows, layers, numbers of weights (which is checked),
Adam, learning rate and number of batches, with `bucket_by_sequence_length` at the boundaries that
Lengthwise planned, and `Bidirectional(LSTM)` with mask. XLA is off. It holds all rows in memory;
Lengthwise reads its files. Keras's operations may differ from run to run; those of Lengthwise are
deterministic, which has its cost. From the same weights and the same batches, without dropout, both
train alike: losses to 1e-5, weights to 1e-4 (`tests/model/test_keras_twin.py`, where Keras is made
to sum the gradients of an id that comes often in a batch; by itself it clips and squares each). So
a difference in accuracy comes from other random numbers, and for ids from that; of few seeds it
says little: one row of JapaneseVowels is 0.0027. Only with People's Daily is it larger than the
spread, for a reason that is not known: summing those gradients moved our figure by less than
0.0001. What `padded_batch` costs, `benchmarks/epoch_against_keras.py` says.

*CPU time of an epoch* is that of the whole process on one thread, without its start and the tracing
of its first epoch: reading batches, training, validation and saving the best weights; with
Lengthwise also the state to go on from, and the logs. The machine was used by others too, which CPU
time mostly, but not wholly, leaves out; so it is a rough number. Ratios are of runs with the same
seed: their median, and their range where there is more than one.

The datasets are those of `examples/build_all`: run the commands in
`demo-output/examples/datasets`."""


def _rows(dataset: Path) -> dict[str, int]:
    manifest = Manifest.load(dataset)
    return {split: manifest.records(split) for split in manifest.splits}


def _load(path: Path, name: str) -> dict[str, Any]:
    """What a data set gave so far with the present settings."""
    if path.exists():
        result = json.loads(path.read_text("utf-8"))
        if result["settings"] == SETTINGS[name]:
            return result
    return {"settings": SETTINGS[name], "ours": {}, "keras": {}}


def _keep(
    path: Path, result: dict[str, Any], side: str, seed: int, own: Mapping[str, float]
) -> None:
    result[side][str(seed)] = own
    _save(path, result)
    print(f"{path.stem} seed {seed} {side}: {json.dumps(own)}", flush=True)


def _save(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(result, indent=1), "utf-8")
    new.replace(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keras-seeds", type=int, default=2, help="the last so many of the seeds")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "demo-output" / "examples")
    parser.add_argument("--cache", type=Path, help="packages that were downloaded before")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "results.md")
    options = parser.parse_args()
    for name in options.names:
        if name not in SETTINGS:
            parser.error(f"{name!r} is none of {', '.join(SETTINGS)}")
    return options


if __name__ == "__main__":
    main()

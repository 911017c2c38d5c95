"""`lengthwise train` and `lengthwise evaluate`, run as they are from a shell."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = "from lengthwise.pipeline.commands import main; main()"


def lengthwise(*arguments):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dataset_is_trained_on_and_evaluated(write_dataset, make_rows, tmp_path):
    unseen = make_rows(3, seed=2)
    unseen[1]["speaker"] = 99
    path = write_dataset({"train": make_rows(20), "val": unseen, "test": make_rows(10, seed=1)})
    run = tmp_path / "run"
    options = ["--task", "classify", "--input", "frames", "--units", 2, "--epochs", 2]

    trained = lengthwise("train", path, "--run-dir", run, *options)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith("best epoch ")
    assert f"run: {run}" in trained.stdout
    # Progress and what the user must know, and nothing else: no chatter of libraries.
    *progress, note = trained.stderr.splitlines()
    assert [line[:11] for line in progress] == ["epoch 1/2  ", "epoch 2/2  "]
    assert note == (
        "note: class '99' is not in training, yet 1 × in validation; nothing could be learnt about "
        "it"
    )

    evaluated = lengthwise("evaluate", run, path, "--split", "test", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stderr == ""
    numbers = json.loads(evaluated.stdout)
    assert set(numbers) == {
        *("split", "checkpoint", "loss", "accuracy", "macro_f1", "rows", "items"),
        *("buckets", "classes"),
    }
    assert (run / "evaluation" / "test" / "confusion.png").is_file()
    assert numbers["rows"] == 10


def test_what_cannot_be_done_is_one_line():
    done = lengthwise("train", "nowhere", "--run-dir", "run")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "nowhere: no dataset here" in done.stderr
    assert len(done.stderr.splitlines()) == 1

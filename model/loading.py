"""From a run folder to something that predicts."""

from __future__ import annotations

import os

from lengthwise.model.answers import Answers
from lengthwise.model.prediction import Predictor
from lengthwise.model.run import Run
from lengthwise.model.task import MULTILABEL, REGRESS, Task


def load_run(path: str | os.PathLike[str], *, checkpoint: str = "best") -> Predictor:
    """Loads the network of a run, ready to predict.

    Args:
        path: the run folder that `train` left.
        checkpoint: "best" or "last".

    Raises:
        ManifestError: there is no run, or one of another version.
        CorruptDataError: its weights or its plan are missing or damaged.

    Example:
        >>> load_run("nowhere")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no run here (config.json is missing); \
make one with `lengthwise train`
    """
    run = Run.load(path)
    task = run.task
    return Predictor(
        run.load_model(checkpoint),
        plan=run.plan,
        inputs=task.inputs,
        num_ids=task.num_ids,
        answers=answers_of(task),
    )


def answers_of(task: Task) -> Answers:
    """What the outputs of the network of a task mean."""
    if task.kind == REGRESS:
        return Answers("values", shape=task.label.shape)
    if task.kind == MULTILABEL:
        return Answers("labels", tuple(range(task.output_size)))
    return Answers("classes", task.names or task.classes, per_step=task.per_step)

"""Plots of a run as PNG files, without a window and without pyplot's global state."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_SCORES = ("accuracy", "macro_f1", "rmse", "mae")
_TRAINING, _VALIDATION = "#4477aa", "#ee6677"
# Names and counts of more classes than this cannot be read in the plot.
_MOST_NAMED, _MOST_COUNTED = 60, 15


def plot_curves(path: Path, history: Sequence[Mapping[str, Any]], *, best_epoch: int) -> None:
    """Draws loss, scores and learning rate over the epochs.

    Args:
        path: the PNG file.
        history: as in `TrainResult`.
        best_epoch: is marked.
    """
    names = ["loss", *(name for name in _SCORES if name in history[0]), "learning_rate"]
    figure = Figure(figsize=(4.2 * len(names), 3.4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        lines = ((name, "training", _TRAINING), (f"val_{name}", "validation", _VALIDATION))
        for key, label, colour in lines:
            if key in history[0]:
                axes.plot(
                    epochs,
                    [row[key] for row in history],
                    color=colour,
                    label=label,
                    marker="." if len(epochs) < 30 else None,
                )
        axes.axvline(best_epoch, color="#bbbbbb", linestyle=":", label="best epoch", zorder=0)
        axes.set_xlabel("epoch")
        axes.set_title(name.replace("_", " "))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        if name == "loss":
            axes.legend(frameon=False)
        if name == "learning_rate":
            axes.set_ylim(bottom=0)
    _save(figure, path)


def plot_confusion(path: Path, counts: np.ndarray, names: Sequence[str], *, title: str) -> None:
    """Draws which class was taken for which, as shares of each class's items.

    Args:
        path: the PNG file.
        counts: (C, C), items of a class (line) by the class given (column).
        names: of the classes.
        title: above the plot.
    """
    classes = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(2.5 + 0.35 * classes, 4, 16))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the class", shrink=0.8)
    axes.set_xlabel("given")
    axes.set_ylabel("class")
    axes.set_title(title)
    if classes <= _MOST_NAMED:
        short = [_plain(name if len(name) <= 16 else f"{name[:15]}…") for name in names]
        axes.set_xticks(range(classes), short, rotation=90)
        axes.set_yticks(range(classes), short)
    if classes <= _MOST_COUNTED:
        for (line, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[line, column] > 0.5 else "black"
                axes.text(column, line, f"{count:,}", ha="center", va="center", color=colour)
    _save(figure, path)


def plot_buckets(path: Path, buckets: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draws the numbers of each bucket, so that one sees whether long rows fare worse.

    Args:
        path: the PNG file.
        buckets: as in the report of `evaluate`.
        title: above the plot.
    """
    names = ["loss", *(name for name in _SCORES if name in buckets[0])]
    figure = Figure(figsize=(4.2 * len(names), 3.6), layout="constrained")
    counted = len(buckets) <= _MOST_COUNTED
    figure.suptitle(f"{title}, rows above" if counted else title)
    places = np.arange(len(buckets))
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        axes.bar(places, [bucket[name] for bucket in buckets], color=_TRAINING)
        axes.set_xticks(places, [str(bucket["max_length"]) for bucket in buckets], rotation=90)
        axes.set_xlabel("bucket: longest row")
        axes.set_title(name.replace("_", " "))
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        # Room for the numbers above the bars.
        axes.margins(y=0.1)
        if counted:
            for place, bucket in zip(places, buckets, strict=True):
                axes.annotate(
                    f"{bucket['rows']:,}",
                    (float(place), bucket[name]),
                    ha="center",
                    va="bottom",
                    fontsize=7,
                )
    _save(figure, path)


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    FigureCanvasAgg(figure).print_png(temporary)
    os.replace(temporary, path)

"""Whole jobs: plan and build, and the command line over them.

Names are imported on first use, so that `lengthwise --help` does not wait for Beam.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lengthwise.pipeline.building import build
    from lengthwise.pipeline.collection import build_from
    from lengthwise.pipeline.inputs import FeatureNames
    from lengthwise.pipeline.planning import make_plan
    from lengthwise.pipeline.predicting import Predictions, predict
    from lengthwise.pipeline.report import render_report
    from lengthwise.pipeline.runners import Execution

__all__ = [
    "Execution",
    "FeatureNames",
    "Predictions",
    "build",
    "build_from",
    "make_plan",
    "predict",
    "render_report",
]

_MODULES = {
    "Execution": "runners",
    "FeatureNames": "inputs",
    "Predictions": "predicting",
    "build": "building",
    "build_from": "collection",
    "make_plan": "planning",
    "predict": "predicting",
    "render_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

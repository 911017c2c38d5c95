"""Datasets as tf.data, the masked BiLSTM, and training on both; never imports Apache Beam.

A name is imported when it is first asked for: reading arrays does not load TensorFlow. Saved models
with layers of this room load after `from lengthwise.model import MaskedBiLSTM`, or any other layer.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lengthwise.model.batch_size_search import find_batch_sizes
    from lengthwise.model.batching import TokenBudget
    from lengthwise.model.configuration import TrainConfig
    from lengthwise.model.doctor import Finding, check_masks, check_model_file
    from lengthwise.model.evaluation import evaluate
    from lengthwise.model.exporting import Exported, export
    from lengthwise.model.layers import (
        AttentionPooling,
        LastStepPooling,
        MaskedBiLSTM,
        MaskedBiLSTMStack,
        MaskedLSTM,
        MaxPooling,
        MeanPooling,
    )
    from lengthwise.model.loading import load_run
    from lengthwise.model.masking import mask_from_length
    from lengthwise.model.mixing import mix_datasets
    from lengthwise.model.networks import NetworkInput, NetworkOutput, build_network
    from lengthwise.model.numpy_reader import as_numpy, open_rows
    from lengthwise.model.online import bucket_by_sequence_length, sort_by_length_in_pools
    from lengthwise.model.prediction import Predictor
    from lengthwise.model.reader import read_dataset
    from lengthwise.model.replicas import distribute_dataset
    from lengthwise.model.run import Run
    from lengthwise.model.task import Task
    from lengthwise.model.torch_reader import (
        from_packed_sequence,
        to_packed_sequence,
        torch_batches,
    )
    from lengthwise.model.training import TrainResult, train

# The module of every name; tests/test_exports.py holds it to the imports above.
_MODULES = {
    "batch_size_search": ("find_batch_sizes",),
    "batching": ("TokenBudget",),
    "configuration": ("TrainConfig",),
    "doctor": ("Finding", "check_masks", "check_model_file"),
    "evaluation": ("evaluate",),
    "exporting": ("Exported", "export"),
    "layers": (
        *("AttentionPooling", "LastStepPooling", "MaskedBiLSTM", "MaskedBiLSTMStack"),
        *("MaskedLSTM", "MaxPooling", "MeanPooling"),
    ),
    "loading": ("load_run",),
    "masking": ("mask_from_length",),
    "mixing": ("mix_datasets",),
    "networks": ("NetworkInput", "NetworkOutput", "build_network"),
    "numpy_reader": ("as_numpy", "open_rows"),
    "online": ("bucket_by_sequence_length", "sort_by_length_in_pools"),
    "prediction": ("Predictor",),
    "reader": ("read_dataset",),
    "replicas": ("distribute_dataset",),
    "run": ("Run",),
    "task": ("Task",),
    "torch_reader": ("from_packed_sequence", "to_packed_sequence", "torch_batches"),
    "training": ("TrainResult", "train"),
}

__all__ = [
    "AttentionPooling",
    "Exported",
    "Finding",
    "LastStepPooling",
    "MaskedBiLSTM",
    "MaskedBiLSTMStack",
    "MaskedLSTM",
    "MaxPooling",
    "MeanPooling",
    "NetworkInput",
    "NetworkOutput",
    "Predictor",
    "Run",
    "Task",
    "TokenBudget",
    "TrainConfig",
    "TrainResult",
    "as_numpy",
    "bucket_by_sequence_length",
    "build_network",
    "check_masks",
    "check_model_file",
    "distribute_dataset",
    "evaluate",
    "export",
    "find_batch_sizes",
    "from_packed_sequence",
    "load_run",
    "mask_from_length",
    "mix_datasets",
    "open_rows",
    "read_dataset",
    "sort_by_length_in_pools",
    "to_packed_sequence",
    "torch_batches",
    "train",
]

_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    # The next time it is found without this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if "keras" in sys.modules:
    # Whoever has loaded Keras already may load a saved model next.
    importlib.import_module(f"{__name__}.layers")

"""Datasets as tf.data, the masked BiLSTM, and training on both; never imports Apache Beam."""

from lengthwise.model.batching import TokenBudget
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.evaluation import evaluate
from lengthwise.model.masked_bilstm import MaskedBiLSTM
from lengthwise.model.masking import mask_from_length
from lengthwise.model.networks import NetworkInput, build_classifier
from lengthwise.model.reader import read_dataset
from lengthwise.model.run import Run
from lengthwise.model.training import TrainResult, train

__all__ = [
    "MaskedBiLSTM",
    "NetworkInput",
    "Run",
    "TokenBudget",
    "TrainConfig",
    "TrainResult",
    "build_classifier",
    "evaluate",
    "mask_from_length",
    "read_dataset",
    "train",
]

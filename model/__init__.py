"""Datasets as tf.data, the masked BiLSTM, and training on both; never imports Apache Beam."""

from lengthwise.model.batching import TokenBudget
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.doctor import Finding, check_masks, check_model_file
from lengthwise.model.evaluation import evaluate
from lengthwise.model.export import Exported, export
from lengthwise.model.loading import load_run
from lengthwise.model.masked_bilstm import MaskedBiLSTM
from lengthwise.model.masked_lstm import MaskedLSTM
from lengthwise.model.masking import mask_from_length
from lengthwise.model.networks import NetworkInput, NetworkOutput, build_network
from lengthwise.model.pooling import AttentionPooling, LastStepPooling, MaxPooling, MeanPooling
from lengthwise.model.prediction import Predictor
from lengthwise.model.reader import read_dataset
from lengthwise.model.run import Run
from lengthwise.model.stack import MaskedBiLSTMStack
from lengthwise.model.task import Task
from lengthwise.model.training import TrainResult, train

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
    "build_network",
    "check_masks",
    "check_model_file",
    "evaluate",
    "export",
    "load_run",
    "mask_from_length",
    "read_dataset",
    "train",
]

"""All layers of this room. A saved model that has some loads once this module is imported."""

from lengthwise.model.masked_bilstm import MaskedBiLSTM
from lengthwise.model.masked_lstm import MaskedLSTM
from lengthwise.model.pooling import AttentionPooling, LastStepPooling, MaxPooling, MeanPooling
from lengthwise.model.stack import MaskedBiLSTMStack

__all__ = [
    "AttentionPooling",
    "LastStepPooling",
    "MaskedBiLSTM",
    "MaskedBiLSTMStack",
    "MaskedLSTM",
    "MaxPooling",
    "MeanPooling",
]

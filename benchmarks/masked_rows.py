"""Padded rows of several kinds, with what the recipes for masking run on them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

L = keras.layers
UNITS = 4
WIDTH = 3
VOCABULARY = 20


class Rows:
    """Padded rows of one kind, and the layers that recipes run on them.

    Attributes:
        steps: (B, T, D) float32, NaN-free, with `pad` at padded steps.
        tokens: (B, T) int32 or None; `steps` are then their embeddings.
        mask: (B, T) bool, True at real steps.
    """

    def __init__(self, kind: str) -> None:
        rng = np.random.default_rng(0)
        lengths = np.array([12, 9, 7, 12, 4, 1])
        self.lengths = tf.constant(lengths)
        self.mask = np.arange(12) < lengths[:, np.newaxis]
        self.tokens = None
        self.embedding: Any = None
        self.observed = np.ones((*self.mask.shape, WIDTH), bool)
        pad = -1.0 if kind == "padded with -1" else 0.0
        steps = rng.normal(size=(*self.mask.shape, WIDTH)).astype(np.float32)
        if kind == "zeros are real":
            steps[:, ::3] = 0
        if kind == "elements missing":
            self.observed = rng.random(steps.shape) < 0.7
            self.observed[:, :, 0] = True
            steps[~self.observed] = 0
        if kind == "padding holds anything":
            pad = 7.0
        steps[~self.mask] = pad
        if kind.startswith("tokens"):
            low = 0 if kind == "tokens, 0 is real" else 1
            self.tokens = np.where(self.mask, rng.integers(low, VOCABULARY, self.mask.shape), 0)
            if low == 0:
                self.tokens[:, ::4] = 0
            self.embedding = L.Embedding(VOCABULARY, WIDTH, mask_zero=True)
            self.embedding.build(None)
            self.embedding.set_weights([rng.normal(size=(VOCABULARY, WIDTH))])
            steps = np.asarray(tf.gather(self.embedding.embeddings.value, self.tokens))
        self.steps = steps
        self.bilstm = L.Bidirectional(L.LSTM(UNITS, return_sequences=True, return_state=True))
        self.bilstm.build((None, None, WIDTH))
        self.weights = [rng.normal(size=w.shape) / 2 for w in self.bilstm.get_weights()]
        self.bilstm.set_weights(self.weights)

    @property
    def float_mask(self) -> Any:
        """(B, T, 1), 1 at real steps."""
        return tf.constant(self.mask[:, :, np.newaxis], tf.float32)

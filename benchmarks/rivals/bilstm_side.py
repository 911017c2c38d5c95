"""One side of `bilstm_against_torch.py`: a process that computes a step each time it is asked.

It reads a JSON object per line and answers with one. Both sides draw the same inputs and masks, and
compute the same: outputs of all steps; in training the gradients of the sum of their squares by
inputs and all weights.

    python rivals/bilstm_side.py lengthwise
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# What a step gives: outputs, and the gradients by inputs and by the weights in Keras's order.
Results = list[np.ndarray]


class LengthwiseSide:
    """MaskedBiLSTM in a tf.function that takes any shape."""

    def __init__(self, width: int, units: int, training: bool, weights: str) -> None:
        import keras
        import tensorflow as tf

        from lengthwise.model import MaskedBiLSTM
        from lengthwise.model.torch_weights import to_torch

        self.tf = tf
        keras.utils.set_random_seed(0)
        layer = MaskedBiLSTM(units, return_sequences=True)
        layer.build((None, None, width))
        arrays: Any = to_torch(layer.get_weights())
        np.savez(weights, **arrays)

        def step(inputs: Any, mask: Any) -> Any:
            if not training:
                return [layer(inputs, mask=mask, training=False)]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = layer(inputs, mask=mask, training=True)
                total = tf.reduce_sum(tf.square(outputs))
            return [outputs, *tape.gradient(total, [inputs, *layer.trainable_variables])]

        signature = [tf.TensorSpec((None, None, width)), tf.TensorSpec((None, None), tf.bool)]
        self.step = tf.function(step, input_signature=signature)

    def bind(self, inputs: np.ndarray, mask: np.ndarray) -> Callable[[], Results]:
        given = self.tf.constant(inputs), self.tf.constant(mask)
        return lambda: [value.numpy() for value in self.step(*given)]


class TorchSide:
    """torch.nn.LSTM between pack_padded_sequence and pad_packed_sequence."""

    def __init__(self, width: int, units: int, training: bool, weights: str) -> None:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.torch, self.training = torch, training
        self.lstm = torch.nn.LSTM(width, units, batch_first=True, bidirectional=True)
        state = {name: torch.tensor(value) for name, value in np.load(weights).items()}
        self.lstm.load_state_dict(state)
        self.lstm.train(training)

    def bind(self, inputs: np.ndarray, mask: np.ndarray) -> Callable[[], Results]:
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

        x = self.torch.tensor(inputs, requires_grad=self.training)
        lengths = self.torch.tensor(mask.sum(1))
        names = [name for name, _ in self.lstm.named_parameters()]

        def step() -> Results:
            with self.torch.set_grad_enabled(self.training):
                packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
                outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
                if not self.training:
                    return [outputs.numpy()]
                by_inputs, *by_weights = self.torch.autograd.grad(
                    outputs.square().sum(), [x, *self.lstm.parameters()]
                )
            by_name = dict(zip(names, by_weights, strict=True))
            return [outputs.detach().numpy(), by_inputs.numpy(), *_in_keras_order(by_name)]

        return step


def _in_keras_order(gradients: dict[str, Any]) -> Results:
    """Of two biases that are added each has the gradient of the one that Keras has."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    return [gradients[f"{name}{end}"].numpy().T for end in ("", "_reverse") for name in names]


SIDES = {"lengthwise": LengthwiseSide, "torch": TorchSide}


def answer(side: str) -> None:
    """Serves requests until there are no more."""
    made: Any = None
    step: Callable[[], Results] = list
    for line in sys.stdin:
        request = json.loads(line)
        reply: dict[str, float] = {}
        match request.pop("do"):
            case "make":
                made = SIDES[side](**request)
            case "bind":
                batch = np.load(request["batch"])
                step = made.bind(batch["inputs"], batch["mask"])
                step()
                np.savez(request["results"], *step())
            case "step":
                wall, cpu = time.perf_counter(), time.process_time()
                step()
                reply = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(reply), file=_replies, flush=True)


if __name__ == "__main__":
    # Libraries print what they like; replies go where standard output was.
    _replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    answer(sys.argv[1])

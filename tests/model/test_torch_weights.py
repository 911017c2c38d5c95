"""Weights of torch.nn.LSTM, against PyTorch itself: skipped without it, `pip install torch`."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.model import MaskedBiLSTM, MaskedBiLSTMStack, MaskedLSTM
from lengthwise.model.torch_reader import from_packed_sequence, to_packed_sequence
from lengthwise.model.torch_weights import from_torch, to_torch

torch = pytest.importorskip("torch")

WIDTH, UNITS = 5, 4
TOLERANCE = 1e-5


@pytest.fixture(params=["right", "left", "interior"])
def mask(request):
    length = np.array([[3], [7], [1], [5], [4], [6]])
    right = np.arange(7) < length
    if request.param == "interior":
        drawn = np.random.default_rng(0).random(right.shape) < 0.6
        drawn[:, 2] = True
        return drawn
    return right if request.param == "right" else right[:, ::-1].copy()


def values_at(mask):
    return np.random.default_rng(1).normal(size=(*mask.shape, WIDTH)).astype(np.float32)


def run_torch(lstm, values, mask):
    """Outputs where the steps are, final h and c."""
    real = torch.tensor(mask)
    packed, state = lstm(to_packed_sequence(values, mask=real))
    return from_packed_sequence(packed, real), state


def assert_close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), rtol=0, atol=TOLERANCE)


def make_layer(bidirectional):
    kind = MaskedBiLSTM if bidirectional else MaskedLSTM
    layer = kind(UNITS, return_sequences=True, return_state=True)
    layer.build((None, None, WIDTH))
    return layer


def assert_same_outputs(layer, lstm, mask):
    values = values_at(mask)
    outputs, *states = layer(values, mask=mask)
    theirs, (h, c) = run_torch(lstm, torch.tensor(values), mask)
    assert_close(outputs, theirs)
    # Ours: h, c of each direction in turn; theirs: h of all directions, c of all.
    assert len(states) == 2 * len(h)
    for direction in range(len(h)):
        assert_close(states[2 * direction], h[direction])
        assert_close(states[2 * direction + 1], c[direction])


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_with_weights_of_torch_computes_the_same(mask, bidirectional, bias):
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(WIDTH, UNITS, batch_first=True, bidirectional=bidirectional, bias=bias)
    layer = make_layer(bidirectional)
    layer.set_weights(from_torch(lstm.state_dict()))
    assert_same_outputs(layer, lstm, mask)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_torch_with_weights_of_a_layer_computes_the_same(mask, bidirectional):
    layer = make_layer(bidirectional)
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) / 2 for w in layer.get_weights()])
    lstm = torch.nn.LSTM(WIDTH, UNITS, batch_first=True, bidirectional=bidirectional)
    lstm.load_state_dict({n: torch.tensor(v) for n, v in to_torch(layer.get_weights()).items()})
    assert_same_outputs(layer, lstm, mask)


def test_gradients_are_those_of_torch(mask):
    import tensorflow as tf

    torch.manual_seed(0)
    lstm = torch.nn.LSTM(WIDTH, UNITS, batch_first=True, bidirectional=True)
    layer = MaskedBiLSTM(UNITS, return_sequences=True)
    layer.build((None, None, WIDTH))
    layer.set_weights(from_torch(lstm.state_dict()))
    values = values_at(mask)
    inputs = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(tf.square(layer(inputs, mask=mask)))
    by_inputs, *by_weights = tape.gradient(loss, [inputs, *layer.trainable_variables])
    theirs = torch.tensor(values, requires_grad=True)
    run_torch(lstm, theirs, mask)[0].square().sum().backward()
    assert_close(by_inputs, theirs.grad)
    expected = {name: weight.grad for name, weight in lstm.named_parameters()}
    # Two biases that are added have each the gradient of their sum.
    expected |= {name: torch.zeros_like(expected[name]) for name in expected if "bias_hh" in name}
    for ours, right in zip(by_weights, from_torch(expected), strict=True):
        np.testing.assert_allclose(np.asarray(ours), right, rtol=1e-4, atol=TOLERANCE)


def test_a_stack_is_layer_by_layer_that_of_torch(mask):
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(WIDTH, UNITS, num_layers=2, batch_first=True, bidirectional=True)
    stack = MaskedBiLSTMStack(UNITS, layers=2, return_sequences=True)
    stack.build((None, None, WIDTH))
    for number, layer in enumerate(stack.bilstms):
        layer.set_weights(from_torch(lstm.state_dict(), layer=number))
    values = values_at(mask)
    assert_close(stack(values, mask=mask), run_torch(lstm, torch.tensor(values), mask)[0])

    other = torch.nn.LSTM(WIDTH, UNITS, num_layers=2, batch_first=True, bidirectional=True)
    state = {
        name: torch.tensor(value)
        for number, layer in enumerate(stack.bilstms)
        for name, value in to_torch(layer.get_weights(), layer=number).items()
    }
    other.load_state_dict(state)
    assert_close(stack(values, mask=mask), run_torch(other, torch.tensor(values), mask)[0])


def test_weights_go_to_torch_and_back_unchanged():
    layer = make_layer(True)
    for ours, back in zip(
        layer.get_weights(), from_torch(to_torch(layer.get_weights())), strict=True
    ):
        np.testing.assert_array_equal(ours, back)


def test_parameters_that_are_trained_can_be_taken_as_they_are():
    lstm = torch.nn.LSTM(WIDTH, UNITS, bidirectional=True)
    for ours, theirs in zip(
        from_torch(dict(lstm.named_parameters())), from_torch(lstm.state_dict()), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)

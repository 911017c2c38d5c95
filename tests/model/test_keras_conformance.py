"""What Keras asks of its own layers, asked of ours: `run_layer_test`, and test cases of its wheel.

The cases of `lstm_test.py`, `bidirectional_test.py` and `masking_test.py` run as they are, with our
layers where they say LSTM and Bidirectional. Left out are those about things that we do not have
(other cells, `use_cudnn`), and one that asks for the last output to be repeated at masked steps,
where ours is zero as in Bidirectional.
"""

from __future__ import annotations

import types
from typing import Any

import keras
import pytest

from lengthwise.model import MaskedBiLSTM, MaskedLSTM

# The modules of Keras's tests and its test case are no public names.
testing = pytest.importorskip("keras.src.testing")

CASES = {
    "lstm_test": [
        "test_basics",
        "test_correctness0",
        "test_correctness1",
        "test_statefulness",
        "test_pass_initial_state",
    ],
    "bidirectional_test": [
        "test_statefulness",
        "test_pass_initial_state",
        "test_return_state",
        "test_output_shape",
    ],
    "masking_test": ["test_masking_with_tensor"],
}
FOLDERS = {"lstm_test": "rnn", "bidirectional_test": "rnn", "masking_test": "core"}


@keras.saving.register_keras_serializable(package="conformance")
class LSTM(MaskedLSTM):
    """Ours with the arguments of Keras's that say how to compute, not what."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        kwargs.pop("unroll", None)
        kwargs.pop("implementation", None)
        super().__init__(units, **kwargs)


def bidirectional(layer: LSTM, merge_mode: str | None = "concat") -> MaskedBiLSTM:
    config = layer.get_config()
    for name in ("go_backwards", "name"):
        del config[name]
    return MaskedBiLSTM.from_config({**config, "merge_mode": merge_mode})


@pytest.mark.parametrize(
    ("case", "method"), [(case, method) for case, methods in CASES.items() for method in methods]
)
def test_case_of_keras_passes(case, method, monkeypatch, pytestconfig):
    # Some versions mark their tests with it.
    pytestconfig.addinivalue_line("markers", "requires_trainable_backend: of Keras")
    module = pytest.importorskip(f"keras.src.layers.{FOLDERS[case]}.{case}")
    ours = types.SimpleNamespace(
        **{**vars(keras.layers), "LSTM": LSTM, "Bidirectional": bidirectional}
    )
    monkeypatch.setattr(module, "layers", ours)
    (test_class,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, testing.TestCase)
    ]
    result = test_class(method).run()
    problems = [text for _, text in [*result.failures, *result.errors]]
    assert result.testsRun == 1
    assert problems == []


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_bilstm_is_a_layer_in_every_form(return_sequences, return_state, merge_mode):
    width = 6 if merge_mode == "concat" else 3
    output = (3, 2, width) if return_sequences else (3, width)
    outputs = [output, output] if merge_mode is None else [output]
    states = [(3, 3)] * 4 if return_state else []
    shape = [*outputs, *states]
    layer_test(
        MaskedBiLSTM,
        {
            "units": 3,
            "merge_mode": merge_mode,
            "return_state": return_state,
            "return_sequences": return_sequences,
        },
        expected_output_shape=shape[0] if len(shape) == 1 else tuple(shape),
        # A list of outputs cannot be trained by the loop of the test.
        run_training_check=len(shape) == 1,
    )


@pytest.mark.parametrize("kernel", ["packed", "hybrid", "scan", "keras"])
@pytest.mark.parametrize(
    ("options", "losses", "seeds"),
    [
        ({"dropout": 0.3}, 0, 2),
        ({"dropout": 0.3, "recurrent_dropout": 0.3}, 0, 2),
        ({"kernel_regularizer": "l2", "bias_regularizer": "l1"}, 4, 2),
        ({"activation": "relu", "unit_forget_bias": False}, 0, 2),
    ],
)
def test_bilstm_is_a_layer_with_every_option(kernel, options, losses, seeds):
    layer_test(
        MaskedBiLSTM,
        {"units": 3, "kernel": kernel, **options},
        expected_output_shape=(3, 6),
        expected_num_losses=losses,
        expected_num_seed_generators=seeds,
        call_kwargs={"training": True},
    )


def layer_test(layer: Any, options: dict[str, Any], **expected: Any) -> None:
    """Keras's own check of a layer: shapes, dtypes, serialisation, symbolic and eager calls."""
    case = testing.TestCase()
    case.setUp()
    case.run_layer_test(
        layer,
        init_kwargs=options,
        input_shape=(3, 2, 4),
        expected_num_trainable_weights=6,
        expected_num_non_trainable_weights=0,
        supports_masking=True,
        **expected,
    )

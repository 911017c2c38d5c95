"""The options of a run."""

from __future__ import annotations

import pytest

from lengthwise.dataset import ManifestError, UsageError
from lengthwise.model import TrainConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "tag"}, "--task tag is not known; there is: classify"),
        ({"units": 0}, "--units is 0; it must be at least 1"),
        ({"batch_size": -3}, "--batch-size is -3; it must be at least 1"),
        ({"token_budget": 0}, "--token-budget is 0; it must be at least 1"),
        ({"dropout": 1.0}, "--dropout is 1.0; it must be at most 0.99"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"seed": -1}, "--seed is -1; it must be at least 0"),
        ({"epochs": "3"}, "--epochs is '3'; it must be a number"),
        ({"inputs": ()}, "--input names no feature"),
    ],
)
def test_options_out_of_range_are_named_as_on_the_command_line(options, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**options)


def test_options_survive_json():
    config = TrainConfig(inputs=("a", "b"), token_budget=100, dropout=0.5)
    assert TrainConfig.from_json(config.to_json(), place="here") == config


@pytest.mark.parametrize("members", [{"unit": 3}, {"units": 0}, {"units": None}])
def test_json_that_is_no_configuration_is_refused_with_its_place(members):
    with pytest.raises(ManifestError, match="here: not the options of a run"):
        TrainConfig.from_json(members, place="here")

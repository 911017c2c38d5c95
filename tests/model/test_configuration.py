"""The options of a run."""

from __future__ import annotations

import dataclasses

import click
import pytest
import yaml

from lengthwise.dataset import InputError, ManifestError, UsageError
from lengthwise.model import TrainConfig
from lengthwise.pipeline.commands import train as train_command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "rank"}, "--task rank is not known; there is: classify, regress, tag"),
        ({"pooling": "first"}, "--pooling first is not known; there is: last, mean"),
        ({"units": 0}, "--units is 0; it must be at least 1"),
        ({"units": 2.5}, "--units is 2.5; it must be a whole number"),
        ({"batch_size": -3}, "--batch-size is -3; it must be at least 1"),
        ({"token_budget": 0}, "--token-budget is 0; it must be at least 1"),
        ({"dropout": 1.0}, "--dropout is 1.0; it must be at most 0.99"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"seed": -1}, "--seed is -1; it must be at least 0"),
        ({"epochs": "3"}, "--epochs is '3'; it must be a number"),
        ({"layer_norm": "perhaps"}, "--layer-norm is 'perhaps'; yes or no is needed"),
        ({"label": 3}, "--label is 3; it must be a text"),
        ({"inputs": ()}, "--input names no feature"),
        ({"monitor": "rmse"}, "--monitor rmse is not known to --task classify; there is: loss"),
        ({"strategy": "mirrored", "accumulate_steps": 2}, "--strategy exclude each other"),
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


def test_a_file_gives_options_and_the_command_line_takes_their_place(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("units: 8\nlearning-rate: 1e-3\ninputs: [frames, token]\nlayer_norm: true\n")
    config = TrainConfig.from_yaml(path, units=16)
    assert config == TrainConfig(
        units=16, learning_rate=1e-3, inputs=("frames", "token"), layer_norm=True
    )


@pytest.mark.parametrize("text", ["input: frames", "inputs: frames", "input: [frames]"])
def test_one_input_of_a_file_is_a_name(tmp_path, text):
    (tmp_path / "options.yaml").write_text(text)
    assert TrainConfig.from_yaml(tmp_path / "options.yaml").inputs == ("frames",)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("unit: 8", UsageError, "there is no option 'unit'; did you mean 'units'?"),
        ("units: many", UsageError, "--units is 'many'; it must be a number"),
        ("units: [", InputError, "not valid YAML"),
        ("- units", InputError, "must have a line 'name: value' for each option"),
        ("x: !!python/object/apply:os.system ['true']", InputError, "not valid YAML"),
        ("label: 2020-13-45", InputError, "not valid YAML: month must be in 1..12"),
        ("inputs: {a: 1}", UsageError, "--input is {'a': 1}; it must be a list of features"),
        (None, InputError, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_its_place(tmp_path, text, error, message):
    path = tmp_path / "options.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error) as caught:
        TrainConfig.from_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_every_field_is_an_option_of_the_command_with_the_same_default():
    options = {option.name: option for option in train_command.command.params}
    for field in dataclasses.fields(TrainConfig):
        option = options[field.name]
        assert isinstance(option, click.Option)
        if field.name != "inputs":
            assert option.default == field.default or (
                field.default is None and not isinstance(option.default, (int, float, str))
            ), field.name


# Another value than the default for every field.
OTHER = TrainConfig(
    task="tag",
    label="phase",
    inputs=("frames", "token"),
    split="learn",
    validation_split="dev",
    build_model="mine:build",
    units=7,
    layers=3,
    embedding_size=5,
    context="onehot",
    dropout=0.25,
    pooling="max",
    layer_norm=True,
    residual=True,
    normalize=False,
    epochs=3,
    batch_size=9,
    token_budget=512,
    learning_rate=0.125,
    schedule="plateau",
    warmup_steps=11,
    plateau_patience=4,
    plateau_factor=0.75,
    weight_decay=0.5,
    clip_norm=2.5,
    accumulate_steps=2,
    class_weights="balanced",
    precision="mixed_bfloat16",
    patience=6,
    monitor="accuracy",
    checkpoint_steps=13,
    seed=17,
)


def read_by_the_command(*arguments):
    seen = []

    @click.command()
    @train_command.config_options
    def command(*, config_path, **options):
        seen.append(train_command.read_config(config_path, options))

    command.main(list(arguments), standalone_mode=False)
    return seen[0]


def test_every_field_can_be_given_in_a_file_and_on_the_command_line(tmp_path):
    same = [f.name for f in dataclasses.fields(OTHER) if getattr(OTHER, f.name) == f.default]
    # It excludes the accumulation of gradients.
    assert same == ["strategy"]
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(OTHER.to_json()))
    assert TrainConfig.from_yaml(tmp_path / "options.yaml") == OTHER
    assert read_by_the_command("--config", str(tmp_path / "options.yaml")) == OTHER
    (tmp_path / "strategy.yaml").write_text("strategy: mirrored")
    assert TrainConfig.from_yaml(tmp_path / "strategy.yaml").strategy == "mirrored"
    assert read_by_the_command("--strategy", "mirrored") == TrainConfig(strategy="mirrored")

    arguments = []
    for name, value in OTHER.to_json().items():
        option = f"--{name.replace('_', '-')}"
        if name == "inputs":
            arguments += [part for feature in value for part in ("--input", feature)]
        elif isinstance(value, bool):
            arguments.append(option if value else f"--no-{option[2:]}")
        elif name != "strategy":
            arguments += [option, str(value)]
    assert read_by_the_command(*arguments) == OTHER


def test_what_the_command_line_says_stands_above_the_file(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("units: 8\nepochs: 7\ndropout: 0.1\n")
    arguments = ["--config", str(path), "--epochs", "40", "--input", "a"]
    # 40 is the default too: it was given, so it counts.
    assert read_by_the_command(*arguments) == TrainConfig(
        units=8, dropout=0.1, epochs=40, inputs=("a",)
    )

"""The messages of TensorFlow's example.proto, made here: importing TensorFlow takes seconds."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "lengthwise.tests"
_TYPES = descriptor_pb2.FieldDescriptorProto

# message -> (field, number, type, repeated, packed); a map is a repeated entry.
_MESSAGES = {
    "BytesList": [("value", 1, _TYPES.TYPE_BYTES, True, None)],
    "FloatList": [("value", 1, _TYPES.TYPE_FLOAT, True, True)],
    "Int64List": [("value", 1, _TYPES.TYPE_INT64, True, True)],
    "LooseFloatList": [("value", 1, _TYPES.TYPE_FLOAT, True, False)],
    "LooseInt64List": [("value", 1, _TYPES.TYPE_INT64, True, False)],
    "Feature": [
        ("bytes_list", 1, "BytesList", False, None),
        ("float_list", 2, "FloatList", False, None),
        ("int64_list", 3, "Int64List", False, None),
    ],
    "Features": [("feature", 1, "map:Feature", True, None)],
    "FeatureList": [("feature", 1, "Feature", True, None)],
    "FeatureLists": [("feature_list", 1, "map:FeatureList", True, None)],
    "Example": [("features", 1, "Features", False, None)],
    "SequenceExample": [
        ("context", 1, "Features", False, None),
        ("feature_lists", 2, "FeatureLists", False, None),
    ],
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="lengthwise_tests.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == "Feature":
            message.oneof_decl.add(name="kind")
        for field_name, number, kind, repeated, packed in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = _TYPES.LABEL_REPEATED if repeated else _TYPES.LABEL_OPTIONAL
            if packed is not None:
                field.options.packed = packed
            if name == "Feature":
                field.oneof_index = 0
            if not isinstance(kind, str):
                field.type = kind
                continue
            field.type = _TYPES.TYPE_MESSAGE
            field.type_name = f".{_PACKAGE}.{kind.removeprefix('map:')}"
            if kind.startswith("map:"):
                entry = message.nested_type.add(name=f"{field_name.title().replace('_', '')}Entry")
                entry.options.map_entry = True
                entry.field.add(
                    name="key", number=1, label=_TYPES.LABEL_OPTIONAL, type=_TYPES.TYPE_STRING
                )
                entry.field.add(
                    name="value",
                    number=2,
                    label=_TYPES.LABEL_OPTIONAL,
                    type=_TYPES.TYPE_MESSAGE,
                    type_name=field.type_name,
                )
                field.type_name = f".{_PACKAGE}.{name}.{entry.name}"
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _message(name: str) -> type:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Example = _message("Example")
SequenceExample = _message("SequenceExample")
Feature = _message("Feature")
LooseFloatList = _message("LooseFloatList")
LooseInt64List = _message("LooseInt64List")


def feature_of(values: list | None):
    """A feature with values of one kind; None is one without a kind."""
    feature = Feature()
    if values is None:
        return feature
    if values and isinstance(values[0], (str, bytes)):
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        feature.bytes_list.value.extend(encoded)
    elif values and isinstance(values[0], float):
        feature.float_list.value.extend(values)
    else:
        feature.int64_list.SetInParent()
        feature.int64_list.value.extend(values)
    return feature


def example_of(features: Mapping[str, list | None]) -> bytes:
    """A serialized `tf.train.Example`."""
    example = Example()
    for name, values in features.items():
        example.features.feature[name].CopyFrom(feature_of(values))
    return example.SerializeToString(deterministic=True)


def sequence_example_of(context: Mapping[str, list | None], lists: Mapping[str, list]) -> bytes:
    """A serialized `tf.train.SequenceExample`."""
    example = SequenceExample()
    for name, values in context.items():
        example.context.feature[name].CopyFrom(feature_of(values))
    for name, steps in lists.items():
        example.feature_lists.feature_list[name].SetInParent()
        for values in steps:
            example.feature_lists.feature_list[name].feature.add().CopyFrom(feature_of(values))
    return example.SerializeToString(deterministic=True)

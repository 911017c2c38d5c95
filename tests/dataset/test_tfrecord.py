"""TFRecord framing: golden bytes of other writers, and damage of every kind."""

import base64
import struct
import tempfile

import crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import CorruptDataError
from lengthwise.dataset.tfrecord import (
    FRAME_BYTES,
    frame_header,
    frame_matrix,
    frame_record,
    masked_crc32c,
    read_records,
    seal_frames,
    write_records,
)

# Written by TensorFlow's TFRecordWriter; literals of apache_beam/io/tfrecordio_test.py.
FOO = base64.b64decode(b"AwAAAAAAAACwmUkOZm9vYYq+/g==")
FOO_BAR = base64.b64decode(b"AwAAAAAAAACwmUkOZm9vYYq+/gMAAAAAAAAAsJlJDmJhckYA5cg=")

# RFC 3720, B.4.
RFC_3720 = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(reversed(range(32))): 0x113FDB5C,
    bytes.fromhex(
        "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
        "0200000000000000"
    ): 0xD9963A56,
}


def unmasked(masked):
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return ((rotated << 15) | (rotated >> 17)) & 0xFFFFFFFF


@pytest.fixture
def file_of(tmp_path):
    def write(data):
        path = tmp_path / "a.tfrecord"
        path.write_bytes(data)
        return path

    return write


def read_bytes(data, **options):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return list(read_records(file.name, **options))


@pytest.mark.parametrize("data", RFC_3720, ids=lambda data: data[:4].hex())
def test_checksum_is_the_crc32c_of_rfc_3720(data):
    assert unmasked(masked_crc32c(data)) == RFC_3720[data]


@pytest.mark.parametrize(
    ("data", "masked"),
    [
        (bytes(32), 0x0FD7FFFA),
        (b"\xff" * 32, 0xF909B029),
        (b"foo", 0xFEBE8A61),
        (b"\x03\0\0\0\0\0\0\0", 0x0E4999B0),
    ],
)
def test_masked_checksum_is_that_of_beam(data, masked):
    assert masked_crc32c(data) == masked


def test_frames_are_those_of_tensorflow():
    assert frame_record(b"foo") == FOO
    assert frame_record(b"foo") + frame_record(b"bar") == FOO_BAR
    matrix = np.frombuffer(b"foobar", np.uint8).reshape(2, 3)
    assert frame_matrix(matrix).tobytes() == FOO_BAR


def test_golden_files_are_read(file_of):
    assert list(read_records(file_of(FOO))) == [b"foo"]
    assert list(read_records(file_of(FOO_BAR))) == [b"foo", b"bar"]


@given(st.integers(0, 5).flatmap(lambda n: st.lists(st.binary(min_size=n, max_size=n), max_size=6)))
def test_a_matrix_is_framed_as_its_records_one_by_one(records):
    width = len(records[0]) if records else 4
    matrix = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), width)

    framed = frame_matrix(matrix)

    assert framed.shape == (len(records), width + FRAME_BYTES)
    assert framed.tobytes() == b"".join(map(frame_record, records))


def test_sealing_leaves_headers_and_data_alone():
    framed = frame_matrix(np.arange(12, dtype=np.uint8).reshape(3, 4))
    sealed = framed.copy()
    sealed[:, -4:] = 99

    seal_frames(sealed)

    np.testing.assert_array_equal(sealed, framed)


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_what_is_written_is_read_back(records):
    with tempfile.NamedTemporaryFile() as file:
        assert write_records(file.name, records) == len(records)
        assert list(read_records(file.name)) == records


def test_an_empty_file_has_no_records(file_of):
    assert list(read_records(file_of(b""))) == []


DAMAGED = b"".join(map(frame_record, [b"", b"length", bytes(range(40))]))


@given(st.integers(0, len(DAMAGED) * 8 - 1))
def test_any_flipped_bit_is_found(bit):
    data = bytearray(DAMAGED)
    data[bit // 8] ^= 1 << bit % 8

    with pytest.raises(CorruptDataError):
        read_bytes(data)


@given(st.integers(0, len(DAMAGED) - 1))
def test_truncation_anywhere_but_between_records_is_found(size):
    ends = np.cumsum([0, FRAME_BYTES, FRAME_BYTES + 6, FRAME_BYTES + 40]).tolist()
    if size in ends:
        assert len(read_bytes(DAMAGED[:size])) == ends.index(size)
    else:
        with pytest.raises(CorruptDataError):
            read_bytes(DAMAGED[:size])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (FOO + FOO[:5], "record 1: the file ends within a record"),
        (FOO + b"\4" + FOO[1:], "record 1: checksum of the record's length does not match"),
        (FOO + FOO[:-1], "record 1: 3 bytes are more than the file has"),
        (FOO + FOO[:12] + b"fop" + FOO[15:], "record 1: checksum of the data does not match"),
        (FOO + frame_header(2**63) + b"foo", f"record 1: {2**63} bytes are more than the file has"),
    ],
)
def test_damage_is_named_with_file_and_record(file_of, data, reason):
    path = file_of(data)
    reader = read_records(path)

    assert next(reader) == b"foo"
    with pytest.raises(CorruptDataError) as error:
        next(reader)
    assert str(error.value) == f"{path}: {reason}"


def test_records_above_the_bound_are_not_believed(file_of):
    path = file_of(frame_record(bytes(100)))

    assert list(read_records(path, max_bytes=100)) == [bytes(100)]
    with pytest.raises(CorruptDataError, match=r"record 0: 100 bytes are more than a record may"):
        list(read_records(path, max_bytes=99))


def test_a_header_holds_the_length_and_its_checksum():
    header = frame_header(2**40 + 7)

    assert struct.unpack("<Q", header[:8]) == (2**40 + 7,)
    assert unmasked(struct.unpack("<I", header[8:])[0]) == crc32c.crc32c(header[:8])

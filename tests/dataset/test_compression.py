"""Compressed shards: any gzip reads them, the same bytes each time, and no bomb goes off."""

import gzip
import io

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import CorruptDataError, PlanError
from lengthwise.dataset.compression import Compressor, read_unpacked
from lengthwise.dataset.tfrecord import frame_record


def packed(*pieces):
    compressor = Compressor("gzip")
    return b"".join([*(compressor.add(piece) for piece in pieces), compressor.finish()])


def unpacked(data, *, most=1 << 20, **options):
    return list(read_unpacked(io.BytesIO(data), "gzip", max_bytes=most, **options))


@given(st.lists(st.binary(max_size=300).map(lambda data: data * 40), max_size=4))
def test_what_is_packed_is_unpacked_by_gzip_and_by_us(pieces):
    data = packed(*pieces)

    assert gzip.decompress(data) == b"".join(pieces)
    blocks = unpacked(data, block_bytes=1000)
    assert b"".join(blocks) == b"".join(pieces)
    assert all(len(block) == 1000 for block in blocks[:-1])


def test_the_same_bytes_give_the_same_file_without_name_and_time():
    data = packed(b"abc" * 1000)

    assert data == packed(b"abc" * 1000)
    assert data[:10] == bytes.fromhex("1f8b08000000000000ff")


def test_tensorflow_reads_a_compressed_file(tmp_path):
    path = tmp_path / "a.tfrecord.gz"
    path.write_bytes(packed(frame_record(b"abc"), frame_record(b"")))

    read = tf.data.TFRecordDataset(str(path), compression_type="GZIP")

    assert [record.numpy() for record in read] == [b"abc", b""]


def test_without_compression_bytes_pass_as_they_are():
    compressor = Compressor("none")
    assert (compressor.add(b"abc"), compressor.finish()) == (b"abc", b"")
    assert list(read_unpacked(io.BytesIO(b"abcd"), "none", max_bytes=9, block_bytes=3)) == [
        b"abc",
        b"d",
    ]


def test_an_unknown_compression_is_refused():
    with pytest.raises(PlanError, match="--compression is 'zip'; it must be one of none, gzip"):
        Compressor("zip")


def test_a_file_that_unpacks_to_more_than_it_may_is_refused_at_once():
    bomb = packed(bytes(1 << 26))
    assert len(bomb) < 1 << 17
    read = 0
    with pytest.raises(CorruptDataError, match="unpacks to more than the 5000000 bytes"):
        for block in read_unpacked(io.BytesIO(bomb), "gzip", max_bytes=5_000_000):
            read += len(block)
    assert read <= 5_000_000


@pytest.mark.parametrize("cut", [0, 1, 9, 10, 50, -9, -8, -1])
def test_a_file_that_ends_too_early_is_refused(cut):
    with pytest.raises(CorruptDataError, match="is damaged"):
        unpacked(packed(bytes(range(256)) * 3)[:cut])


@pytest.mark.parametrize("more", [b"\0", packed(b"abc")])
def test_a_file_that_goes_on_after_its_end_is_refused(more):
    with pytest.raises(CorruptDataError, match="something follows the end of gzip"):
        unpacked(packed(b"abc") + more)


@settings(max_examples=100)
@given(st.data())
def test_damage_is_refused_or_harmless(data):
    whole = b"all happy families are alike " * 20
    flipped = bytearray(packed(whole))
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = b"".join(unpacked(bytes(flipped)))
    except CorruptDataError:
        return
    # Only what gzip does not use, as the time in its header.
    assert found == whole

"""What is fuzzed: each target takes any bytes, and raises only where Lengthwise has a defect.

A target refuses bytes by a `LengthwiseError` of one printable line, or reads them; then what it has
read must not depend on how the file was cut, and must agree with a slower road where there is one.
Nothing here needs a fuzzer: the tests beside it run all targets over seeds and past findings.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from lengthwise.dataset import (
    Feature,
    FeatureStatistics,
    LengthwiseError,
    Manifest,
    Plan,
    PlanOptions,
    Schema,
    Shard,
    SourceOptions,
)
from lengthwise.dataset.manifest import Account, document_crc32c
from lengthwise.dataset.tfrecord import frame_header, masked_crc32c, read_records
from lengthwise.pipeline.sources import (
    InputFile,
    agree_on_columns,
    find_files,
    open_file,
    read_unit,
)
from lengthwise.pipeline.sources.example_message import parse_example
from lengthwise.pipeline.sources.wire import decode_varints


@dataclass(frozen=True)
class Target:
    """Something that reads bytes of strangers.

    Attributes:
        check: reads the bytes; raises AssertionError, or what no reader may raise, at a defect.
        seeds: makes inputs to begin with.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def refused(read: Callable[[], object]) -> object | None:
    """What was read; None where it was refused, which takes one printable line."""
    try:
        return read()
    except LengthwiseError as reason:
        assert str(reason).isprintable(), repr(str(reason))
        assert len(str(reason)) < 4000
        return None


# Files of rows


def _rows(path: Path, options: SourceOptions, columns: pa.Schema | None) -> dict[int, object]:
    """Row number -> the row, or why it is broken."""
    (source,) = agree_on_columns([open_file(InputFile(str(path), "file"), options)])
    wanted = columns or source.columns
    found: dict[int, object] = {}
    if len(wanted) == 0:
        return found  # a batch without columns cannot say how many rows it has
    for unit in source.units:
        for batch in read_unit(unit, wanted, options):
            batch.rows.validate(full=True)
            numbers = batch.numbers
            if numbers is None:
                numbers = np.arange(batch.first_row, batch.first_row + batch.rows.num_rows)
            pairs = [*zip(numbers.tolist(), batch.rows.to_pylist(), strict=True)]
            pairs += [(broken.row, broken.reason) for broken in batch.broken]
            for number, row in pairs:
                assert number not in found, f"row {number} twice"
                found[number] = repr(row)
    return found


def check_file(data: bytes, options: SourceOptions, columns: pa.Schema | None = None) -> None:
    """Reads a file in one unit and in many."""
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        path = Path(folder, "file")
        path.write_bytes(data)
        whole = refused(lambda: _rows(path, options, columns))
        cut = refused(lambda: _rows(path, replace(options, unit_bytes=7), columns))
        assert whole == cut, (whole, cut)


def _fast_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


SMALL = 1 << 12


def check_jsonl(data: bytes) -> None:
    check_file(data, SourceOptions(format="jsonl", max_row_bytes=SMALL))


def check_csv(data: bytes) -> None:
    order_by = "t" if data[:1] == b"t" else None
    check_file(
        data,
        SourceOptions(format="csv", group_by="id", order_by=order_by, max_row_bytes=SMALL),
    )


def check_text(data: bytes) -> None:
    tokens = ("whitespace", "characters", "bytes")[len(data) % 3]
    check_file(data, SourceOptions(format="text", tokens=tokens, max_row_bytes=SMALL))


def check_arrow(data: bytes) -> None:
    check_file(data, SourceOptions(format="arrow", max_row_bytes=SMALL))


def check_any_format(data: bytes) -> None:
    """The format is told from the bytes."""
    check_file(data, SourceOptions(group_by="id", max_row_bytes=SMALL))


def check_frames(data: bytes) -> None:
    """A file that claims to be TFRecord."""
    check_file(data, SourceOptions(format="tfrecord", max_row_bytes=SMALL), EXAMPLE_COLUMNS)
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        path = Path(folder, "file")
        path.write_bytes(data)
        refused(lambda: list(read_records(path)))


# Messages


EXAMPLE_COLUMNS = pa.schema(
    [
        ("i", pa.list_(pa.int64())),
        ("f", pa.list_(pa.list_(pa.float32(), 2))),
        ("s", pa.list_(pa.string())),
        ("y", pa.int64()),
    ]
)


def framed(records: list[bytes]) -> bytes:
    """A TFRecord file with right checksums."""
    return b"".join(
        bytes(frame_header(len(record))) + record + struct.pack("<I", masked_crc32c(record))
        for record in records
    )


def check_example(data: bytes) -> None:
    """A record between two good ones: they stay what they are, and both roads read it alike."""
    from lengthwise.pipeline.sources import examples

    good = SEED_EXAMPLES[0]
    options = SourceOptions(format="tfrecord", max_row_bytes=1 << 20)
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        path = Path(folder, "file")

        def read(records: list[bytes]) -> dict[int, object]:
            path.write_bytes(framed(records))
            return _rows(path, options, EXAMPLE_COLUMNS)

        together = read([good, data, good])
        most = examples._MOST_FEATURES
        examples._MOST_FEATURES = 0
        try:
            slowly = read([good, data, good])
        finally:
            examples._MOST_FEATURES = most
    assert together == slowly, (together, slowly)
    assert together[0] == together[2]


def check_message(data: bytes) -> None:
    """The slow road by itself: it parses, or it says by a ValueError that it cannot."""
    try:
        parse_example(data)
    except ValueError:
        return


def check_varints(data: bytes) -> None:
    """Packed numbers against a loop over their bytes."""
    expected: list[int] | None = []
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            expected = None
            break
        if byte < 0x80:
            value &= 2**64 - 1
            expected.append(value - (value >> 63 << 64))
            value = shift = 0
    if shift:
        expected = None
    try:
        found, bounds = decode_varints(np.frombuffer(data, np.uint8))
    except ValueError:
        assert expected is None
        return
    assert found.tolist() == expected
    assert bounds[-1] == len(data)


# Documents


def _load(name: str, data: bytes, load: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        refused(lambda: load(path))


def check_plan(data: bytes) -> None:
    def load(path: Path) -> None:
        plan = Plan.load(path)
        again = path.with_name("again.json")
        again.write_text(plan.dumps(), encoding="utf-8")
        assert Plan.load(again) == plan
        assert min(plan.shard_counts().values(), default=1) >= 1

    _load("plan.json", data, load)


def check_manifest(data: bytes) -> None:
    """With a right checksum, where it is JSON at all: otherwise nothing would be looked at."""

    def load(path: Path) -> None:
        manifest = Manifest.load(path.parent)
        for shard in manifest.shards:
            place = manifest.path_of(shard).resolve()
            assert place.is_relative_to(path.parent.resolve()), place

    try:
        document = json.loads(data)
        data = json.dumps({**document, "crc32c": document_crc32c(document)}).encode()
    except (ValueError, TypeError, RecursionError, AttributeError):
        pass
    _load("dataset.json", data, load)


def check_huggingface(data: bytes) -> None:
    """The documents of a `save_to_disk` folder; a zero byte parts them."""
    first, _, second = data.partition(b"\0")
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        root = Path(folder, "in")
        (root / "train").mkdir(parents=True)
        (root / "dataset_dict.json").write_bytes(first)
        (root / "train" / "state.json").write_bytes(second or first)
        if not second:
            (root / "dataset_dict.json").rename(root / "state.json")
        files = refused(lambda: find_files([str(root)]))
        for file in files or ():
            assert Path(file.path).is_relative_to(root.resolve()), file


# Seeds


def _varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded, value = encoded + bytes([value & 0x7F | 0x80]), value >> 7
    return encoded + bytes([value])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _feature(kind: int, data: bytes) -> bytes:
    return _field(kind, data)


def _map(entries: dict[str, bytes]) -> bytes:
    return b"".join(
        _field(1, _field(1, key.encode()) + _field(2, value)) for key, value in entries.items()
    )


def _ints(*values: int) -> bytes:
    return _feature(3, _field(1, b"".join(_varint(value % 2**64) for value in values)))


def _floats(*values: float) -> bytes:
    return _feature(2, _field(1, struct.pack(f"<{len(values)}f", *values)))


def _texts(*values: str) -> bytes:
    return _feature(1, b"".join(_field(1, value.encode()) for value in values))


SEED_EXAMPLES = [
    _field(
        1,
        _map({"f": _floats(1, 2, 3, 4), "i": _ints(1, 300), "s": _texts("a", "bc"), "y": _ints(7)}),
    ),
    _field(1, _map({"y": _ints(-1)}))
    + _field(
        2,
        _map(
            {
                "f": _field(1, _floats(1, 2)) + _field(1, _floats(3, 4)),
                "i": _field(1, _ints(5)) + _field(1, _ints(6)),
                "s": _field(1, _texts("a")) + _field(1, b""),
            }
        ),
    ),
    _field(1, _map({"i": _feature(3, _varint(8) + _varint(5) + _varint(8) + _varint(6))})),
    b"",
]


def _arrow_files() -> list[bytes]:
    tables = [
        pa.table({"x": [[1, 2], None, [3]], "s": [["a"], [], ["b", None]]}),
        pa.table({"x": pa.array(["a", "b"]).dictionary_encode(), "y": [1.5, None]}),
        pa.table({"v": pa.array([[[1.0, 2.0]], []], pa.list_(pa.list_(pa.float32(), 2)))}),
    ]
    files = []
    for table in tables:
        for writer in (pa.ipc.new_file, pa.ipc.new_stream):
            for compression in (None, "lz4"):
                sink = pa.BufferOutputStream()
                options = pa.ipc.IpcWriteOptions(compression=compression)
                with writer(sink, table.schema, options=options) as out:
                    out.write_table(table, max_chunksize=2)
                files.append(sink.getvalue().to_pybytes())
    return files


def _plan() -> Plan:
    schema = Schema(
        (
            Feature("frames", "float32", (2,)),
            Feature("speaker", "int64", sequence=False, label=True),
            Feature("words", "int64", encoding="tokens"),
        )
    )
    return Plan(
        schema=schema,
        options=PlanOptions(num_buckets=2, normalize={}, splits={"train": 0.9, "val": 0.1}),
        max_lengths=(4, 12),
        histograms={"train": {3: 5, 12: 1}, "val": {4: 2}},
        statistics={
            "frames": FeatureStatistics(40, 2, 0.5, 1.25, -3.5, 2.25),
            "speaker": FeatureStatistics(7, 0, 1.0, 0.5, -1, 3, values={-1: 3, 0: 2, 3: 2}),
            "words": FeatureStatistics(20, 1, 0.0, 0.0, 0, 3),
        },
        vocabularies={"words": ("the", "cat")},
        reading=SourceOptions(format="csv", group_by="id", types={"x": "int"}, shapes={"x": (2,)}),
    )


def _manifest() -> Manifest:
    plan = _plan()
    return Manifest(
        root=Path("."),
        fingerprint="0123456789abcdef",
        created_by="lengthwise",
        schema=plan.schema,
        seed=0,
        max_lengths=plan.max_lengths,
        widths=plan.widths,
        shards=(Shard("train", 4, 0, 1, 5, 15, 500, 1), Shard("val", 4, 0, 1, 2, 8, 200, 2)),
        accounts={"train": Account(6, 6, {}, {}, 0), "val": Account(2, 2, {}, {}, 0)},
        plan_crc32c=3,
    )


JSONL = [
    b'{"x": [1, 2], "y": 1}\n\n{"x": null}\r\n{"x": [[1.5, null], [2e3, -0]], "s": "a\\u00e9"}\n',
    b'\xef\xbb\xbf{"x": [true, false], "k": {"a": [1]}}\n{"x": ["a", "\xff"]}\n[1]\n{"x": 2',
]
CSV = [
    b'id,t,x,y\na,2,1,9\na,1,,9\nb,1,"3 ",8\n\nb,2,nan,7\nc,1,4,5\na,1,1,1\n',
    b"t;id;x\n1;a;1\n0;a;2.5\n2;b;NA\n;b;3\n1;;4\n",
    b"id\tx\r\na\t1\r\na\ttrue\r\nb\tx\r\n",
]
TEXT = [b"the cat sat\n\n a  b\t\nx\xc3\xa9\xff\n", b"\xef\xbb\xbfone\r\ntwo", b"ab\ncd\n\0"]
HUGGINGFACE = [
    b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}',
    b'{"splits": ["train"]}\0{"_data_files": [{"filename": "a.arrow"}]}',
]


TARGETS: dict[str, Target] = {
    "any_format": Target(
        check_any_format,
        lambda: [*JSONL, *TEXT, framed(SEED_EXAMPLES), b"PAR1\0\0PAR1", *_arrow_files()[:2]],
    ),
    "arrow": Target(check_arrow, _arrow_files),
    "csv": Target(check_csv, lambda: CSV),
    "example": Target(check_example, lambda: SEED_EXAMPLES),
    "frames": Target(check_frames, lambda: [framed(SEED_EXAMPLES), framed([]), framed([b"x"])]),
    "huggingface": Target(check_huggingface, lambda: HUGGINGFACE),
    "jsonl": Target(check_jsonl, lambda: JSONL),
    "manifest": Target(check_manifest, lambda: [_manifest().dumps().encode()]),
    "message": Target(check_message, lambda: SEED_EXAMPLES),
    "plan": Target(check_plan, lambda: [_plan().dumps().encode()]),
    "text": Target(check_text, lambda: TEXT),
    "varints": Target(check_varints, lambda: [b"\x05\x96\x01", b"\xff" * 9 + b"\x01", b""]),
}


def seeds() -> Iterator[tuple[str, bytes]]:
    """All seeds of all targets."""
    for name, target in TARGETS.items():
        for seed in target.seeds():
            yield name, seed

"""Files past the page cache: the same bytes as usual ones, whatever the file system can do."""

import errno
import fcntl
import inspect
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from lengthwise.transforms import uncached_file
from lengthwise.transforms.uncached_file import UncachedFile

BUFFER = 2 << 20
SIZES = [
    [],
    [1],
    [4096],
    [4095, 1, 4096],
    [BUFFER],
    [BUFFER - 1, 2, BUFFER],
    [3 * BUFFER + 4097, 5],
    [700_001] * 7,
    [9 * BUFFER + 1],
]


def pieces(sizes):
    rng = np.random.default_rng(len(sizes))
    return [rng.bytes(size) for size in sizes]


def write(path, data):
    with UncachedFile(path) as file:
        for piece in data:
            assert file.write(piece) == len(piece)
        assert file.tell() == sum(map(len, data))
        file.sync()


@pytest.fixture
def writes(monkeypatch):
    """Whether each write went past the page cache, and its size."""
    found = []
    usual = os.write

    def recorded(descriptor, data):
        direct = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & uncached_file._DIRECT)
        found.append((direct, len(data)))
        return usual(descriptor, data)

    monkeypatch.setattr(os, "write", recorded)
    return found


@pytest.mark.parametrize("sizes", SIZES)
def test_a_file_holds_what_was_written(tmp_path, sizes):
    data = pieces(sizes)

    write(tmp_path / "a", data)

    assert (tmp_path / "a").read_bytes() == b"".join(data)


def test_whole_blocks_go_past_the_page_cache_and_only_the_end_does_not(tmp_path, writes):
    try:
        os.close(os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT | uncached_file._DIRECT))
    except OSError:
        pytest.skip("this file system has no direct writes")

    write(tmp_path / "a", pieces([2 * BUFFER + 4096 + 7]))

    assert writes == [(True, BUFFER), (True, BUFFER), (True, 4096), (False, 7)]


def test_file_systems_that_refuse_to_open_such_files_get_usual_writes(
    tmp_path, writes, monkeypatch
):
    usual = os.open

    def refuse(path, flags, *mode):
        if flags & uncached_file._DIRECT:
            os.close(usual(path, flags & ~uncached_file._DIRECT, *mode))  # made it all the same
            raise OSError(errno.EINVAL, "Invalid argument")
        return usual(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    data = pieces([BUFFER + 5, 7])

    write(tmp_path / "a", data)

    assert (tmp_path / "a").read_bytes() == b"".join(data)
    assert not any(direct for direct, _ in writes)


def test_file_systems_that_refuse_such_writes_get_usual_ones(tmp_path, monkeypatch):
    usual = os.write

    def refuse(descriptor, data):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & uncached_file._DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return usual(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    data = pieces([BUFFER + 5, 4096])

    write(tmp_path / "a", data)

    assert (tmp_path / "a").read_bytes() == b"".join(data)


def test_writes_that_take_a_part_are_gone_on_with(tmp_path, monkeypatch):
    usual = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: usual(descriptor, data[:5000]))
    data = pieces([30_000])

    write(tmp_path / "a", data)

    assert (tmp_path / "a").read_bytes() == data[0]


def test_a_full_disk_is_told_and_the_next_file_is_not_touched_by_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space") as told:
            write(tmp_path / "a", pieces([BUFFER]))
        assert told.value.filename == str(tmp_path / "a")
    data = pieces([10])

    write(tmp_path / "b", data)

    assert (tmp_path / "b").read_bytes() == data[0]


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "a").write_text("old")

    with pytest.raises(FileExistsError):
        UncachedFile(tmp_path / "a")

    assert (tmp_path / "a").read_text() == "old"


def test_a_file_that_cannot_be_closed_is_not_closed_twice(tmp_path, monkeypatch):
    # By then another file can have the number.
    closed = []
    usual = os.close

    def fail(descriptor):
        closed.append(descriptor)
        usual(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    file = UncachedFile(tmp_path / "a")
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", fail)
        with pytest.raises(OSError, match="Input/output"):
            file.close()
        file.close()

    assert len(closed) == 1


def test_a_file_that_is_not_opened_leaves_no_complaint(tmp_path):
    with pytest.raises(FileNotFoundError) as told:
        UncachedFile(tmp_path / "nowhere" / "a")
    file = UncachedFile.__new__(UncachedFile)

    file.close()

    assert told.value.filename == str(tmp_path / "nowhere" / "a")


_FORKED = """
import os, sys
from lengthwise.transforms.uncached_file import UncachedFile

def open_and_fill(name):
    file = UncachedFile(os.path.join(sys.argv[1], name))
    file.write(name.encode() * 1000)
    return file

open_and_fill("w").close()
is_filled, fill = os.pipe(), os.pipe()
if os.fork() == 0:
    os.read(is_filled[0], 1)
    file = open_and_fill("c")
    os.write(fill[1], b"1")
    file.finish()
    os._exit(0)
file = open_and_fill("p")
os.write(is_filled[1], b"1")
os.read(fill[0], 1)
file.finish()
os.wait()
"""


def test_processes_that_were_forked_do_not_write_each_others_bytes(tmp_path):
    subprocess.run([sys.executable, "-c", _FORKED, str(tmp_path)], check=True, timeout=120)

    assert (tmp_path / "p").read_bytes() == b"p" * 1000
    assert (tmp_path / "c").read_bytes() == b"c" * 1000


def test_what_goes_wrong_beside_the_caller_reaches_it(tmp_path, monkeypatch):
    file = UncachedFile(tmp_path / "a")
    written = []

    def write(descriptor, data):
        written.append(threading.current_thread() is threading.main_thread())
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(uncached_file.os, "write", write)
    file.write(bytes(uncached_file._BUFFER_BYTES))  # goes on beside
    with pytest.raises(OSError, match=r"the disk is broken.*/a'"):
        file.finish()
    assert written == [False]
    file.close()


def test_the_caller_goes_on_while_three_buffers_wait_for_the_disk(tmp_path, monkeypatch):
    may_write = threading.Event()
    usual = os.write

    def write(descriptor, data):
        assert may_write.wait(60)
        return usual(descriptor, data)

    monkeypatch.setattr(uncached_file.os, "write", write)
    data = np.random.default_rng(0).bytes(4 * BUFFER - 1)
    with UncachedFile(tmp_path / "a") as file:
        file.write(data)  # would never return if it waited for one of them
        may_write.set()
        file.finish()

    assert (tmp_path / "a").read_bytes() == data


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_error_of_any_waiting_buffer_reaches_the_caller_each_time(tmp_path, monkeypatch, number):
    calls = []
    usual = os.write

    def write(descriptor, data):
        calls.append(len(data))
        if len(calls) == number:
            raise OSError(errno.EIO, "the disk is broken")
        return usual(descriptor, data)

    monkeypatch.setattr(uncached_file.os, "write", write)
    with UncachedFile(tmp_path / "a") as file:
        file.write(bytes(3 * BUFFER))
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is broken"):
                file.finish()

    assert_no_buffer_is_idle_twice()


def test_no_buffer_has_two_owners_after_a_file_was_closed(tmp_path):
    file = UncachedFile(tmp_path / "a")
    file.write(bytes(2 * BUFFER + 5))
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.finish()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"abc")

    assert_no_buffer_is_idle_twice()


def test_buffers_come_back_from_a_file_that_was_written_and_from_one_that_was_left(tmp_path):
    write(tmp_path / "a", pieces([4 * BUFFER]))
    before = len(uncached_file._idle)
    assert before >= 4
    with UncachedFile(tmp_path / "b") as file:
        file.write(bytes(4 * BUFFER))

    assert len(uncached_file._idle) == before
    assert_no_buffer_is_idle_twice()


@pytest.mark.parametrize("line", ["full, self._buffer =", "self._waiting.append("])
def test_an_interrupt_while_a_buffer_is_handed_over_gives_none_two_owners(tmp_path, line):
    lines, first = inspect.getsourcelines(UncachedFile._hand_over)
    number = first + next(i for i, text in enumerate(lines) if line in text)

    def interrupt(frame, event, _):
        # Behind the line: where the next one begins, or the end of the function.
        if event in ("line", "return") and frame.f_lineno != number and seen:
            raise KeyboardInterrupt
        if event == "line" and frame.f_lineno == number:
            seen.append(number)
        return interrupt

    seen = []
    usual = sys.gettrace()
    with UncachedFile(tmp_path / "a") as file, pytest.raises(KeyboardInterrupt):
        code = UncachedFile._hand_over.__code__
        sys.settrace(lambda frame, *_: interrupt if frame.f_code is code else None)
        try:
            file.write(bytes(BUFFER))
        finally:
            sys.settrace(usual)

    assert_no_buffer_is_idle_twice()


def assert_no_buffer_is_idle_twice():
    addresses = [buffer.ctypes.data for buffer in uncached_file._idle]
    assert len(set(addresses)) == len(addresses)

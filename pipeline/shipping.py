"""Lengthwise as a package for workers that do not have it, made of what is installed here.

A wheel is an archive with a table of contents (PEP 427), so none of a build's tools is needed, and
an editable installation is shipped as it is now. Workers install it with pip before they start;
what it depends on, they have from their image, or install as well.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

from lengthwise.pipeline.versions import ROOMS, room_folder

_WHEEL = "Wheel-Version: 1.0\nGenerator: lengthwise\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
# The earliest that an archive can say: the same files give the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def write_wheel(folder: Path) -> Path:
    """Writes a wheel of this Lengthwise into a folder; returns its path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_wheel(Path(folder)).name.startswith("lengthwise-")
        True
    """
    found = metadata.distribution("lengthwise")
    contents = {
        f"lengthwise/{room}/{path.relative_to(room_folder(room)).as_posix()}": path.read_bytes()
        for room in ROOMS
        for path in sorted(room_folder(room).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"lengthwise-{found.version}.dist-info"
    for name in ("METADATA", "entry_points.txt"):
        contents[f"{info}/{name}"] = (found.read_text(name) or "").encode()
    contents[f"{info}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{name},{_hash(data)},{len(data)}\n" for name, data in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"lengthwise-{found.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), data, zipfile.ZIP_DEFLATED)
    return wheel


def _hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"sha256={digest}"

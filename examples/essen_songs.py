"""The Essen folk song collection: melodies as notes and their durations; which collection is a song
from?

Source: `music21/corpus/essenFolksong/*.abc` in music21 10.5.1. Encoded in EsAC under Helmut
Schaffrath, carried on by Ewa Dahlig-Turek, turned into ABC by Seymour Shlien.

Licence: music21 is under the BSD 3-Clause licence and assumes no change of licence for its corpus.
The folder's `license.txt` calls the legal status of the database unclear, "as the data has been
input by many people", and names a permission for *non-commercial* distribution and use of these
files in music21.

A row is a song. A step is a note as it sounds (`F#4`: key signature and accidentals up to the bar
line are applied) or a `rest`, and its duration in quarter notes; tied notes are one. Variants of a
song share its title, so `--split-by title` keeps them out of different splits.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa

from examples.conversion import Conversion, ragged_column

MEMBERS = "music21/corpus/essenFolksong/*.abc"

REST = "rest"
SYMBOL = re.compile(
    r"(?P<accidental>\^\^|__|[\^_=])?(?P<letter>[A-Ga-gz])(?P<octave>[,']*)(?P<times>\d*)"
    r"|(?P<bar>\|)|(?P<tie>-)|(?P<space>\s+)|(?P<stray>.)"
)
ACCIDENTALS = {"^^": "##", "^": "#", "=": "", "_": "b", "__": "bb"}
SHARPENED, FLATTENED = "FCGDAEB", "BEADGCF"
# Sharps of a key, flats below zero. H and Es are what Germans call B and Eb.
SHARPS = {
    key: sharps
    for sharps, keys in enumerate("Db,Ab,Eb Es Cm,Bb Gm,F Dm,C,G Em,D,A,E,B H,F#".split(","), -5)
    for key in keys.split()
}

Song = tuple[list[str], list[float]]


class DamagedSongError(ValueError):
    """A song's text is not the notation, and what was meant cannot be told."""


def convert(folder: Path) -> Conversion:
    """Reads the files below the folder that the package was unpacked to."""
    return song_rows({path.stem: path.read_text("utf-8") for path in sorted(folder.rglob("*.abc"))})


def song_rows(files: dict[str, str]) -> Conversion:
    """Reads files of songs, name -> text.

    Left out: the songs of files called test, whose collection is none; damaged ones; and songs of
    the same notes and durations as an earlier one of the same collection.
    """
    left_out = {"test file": 0, "damaged": 0, "repeated song": 0}
    songs: list[Song] = []
    titles, collections = [], []
    seen = set()
    for name, text in files.items():
        collection = name.rstrip("0123456789")
        for tune in re.split(r"^X:", text, flags=re.MULTILINE)[1:]:
            if name.startswith("test"):
                left_out["test file"] += 1
                continue
            try:
                notes, beats = parse_song(tune)
            except DamagedSongError:
                left_out["damaged"] += 1
                continue
            melody = (collection, tuple(notes), tuple(beats))
            if melody in seen:
                left_out["repeated song"] += 1
                continue
            seen.add(melody)
            songs.append((notes, beats))
            titles.append(_field(tune, "T"))
            collections.append(collection)
    lengths = [len(notes) for notes, _ in songs]
    table = pa.table(
        {
            "notes": ragged_column(
                pa.array([note for notes, _ in songs for note in notes], pa.string()), lengths
            ),
            "beats": ragged_column(
                np.array([beat for _, beats in songs for beat in beats], np.float32), lengths
            ),
            "title": pa.array(titles, pa.string()),
            "collection": pa.array(collections, pa.string()),
        }
    )
    return Conversion({"songs": table}, left_out)


def parse_song(tune: str) -> Song:
    """The notes of one song in ABC, and their durations in quarter notes.

    Source: <https://abcnotation.com/wiki/abc:standard:v2.1>; accidentals hold in all octaves up to
    the bar line.

    Raises:
        DamagedSongError: a symbol or a duration that the notation does not have.

    Example:
        >>> parse_song("X:1\\nL: 1/8\\nK: G\\nF2_BB- | B4z2")
        (['F#4', 'Bb4', 'Bb4', 'rest'], [1.0, 0.5, 2.5, 1.0])
    """
    unit = _unit(_field(tune, "L"))
    signature = _signature(_field(tune, "K"))
    body = re.split(r"^K:.*$", tune, maxsplit=1, flags=re.MULTILINE)[1]

    notes: list[str] = []
    beats: list[Fraction] = []
    in_bar: dict[str, str] = {}
    written, tied = "", False
    for symbol in SYMBOL.finditer(body):
        if symbol["stray"]:
            raise DamagedSongError(f"{symbol[0]!r} is no symbol")
        if symbol["bar"]:
            in_bar = {}
        elif symbol["tie"]:
            tied = True
        elif symbol["letter"]:
            duration = unit * _times(symbol["times"])
            previous, written = written, symbol["letter"] + symbol["octave"]
            if tied and written == previous:
                beats[-1] += duration
            else:
                notes.append(_sounding(symbol, signature, in_bar))
                beats.append(duration)
            tied = False
    return notes, [float(beat) for beat in beats]


def _sounding(symbol: re.Match[str], signature: dict[str, str], in_bar: dict[str, str]) -> str:
    if symbol["letter"] == "z":
        return REST
    letter = symbol["letter"].upper()
    if symbol["accidental"]:
        in_bar[letter] = ACCIDENTALS[symbol["accidental"]]
    accidental = in_bar.get(letter, signature.get(letter, ""))
    octave = 4 + symbol["letter"].islower()
    octave += symbol["octave"].count("'") - symbol["octave"].count(",")
    return f"{letter}{accidental}{octave}"


def _signature(key: str) -> dict[str, str]:
    if key not in SHARPS:
        raise DamagedSongError(f"{key!r} is no key")
    sharps = SHARPS[key]
    if sharps < 0:
        return dict.fromkeys(FLATTENED[:-sharps], "b")
    return dict.fromkeys(SHARPENED[:sharps], "#")


def _unit(written: str) -> Fraction:
    """The duration of a note without a number, in quarter notes."""
    if not re.fullmatch(r"1/\d*[1-9]\d*", written):
        raise DamagedSongError(f"{written!r} is no unit of duration")
    return Fraction(written) * 4


def _times(written: str) -> int:
    """How many units a note lasts: a power of two, perhaps dotted. `42` is two run together."""
    times = int(written or 1)
    undotted = times // 3 if times % 3 == 0 else times
    if times == 0 or undotted & (undotted - 1):
        raise DamagedSongError(f"{times} units is the duration of no note")
    return times


def _field(tune: str, name: str) -> str:
    found = re.search(rf"^{name}:(.*)$", tune, re.MULTILINE)
    if found is None:
        raise DamagedSongError(f"the field {name} is missing")
    return found[1].strip()

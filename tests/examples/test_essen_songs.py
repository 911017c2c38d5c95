import pytest

from examples import essen_songs

SONG = """
X:1
T: Mary's Dream
N: H0001A
O: Irland
M: 4/4
L: 1/8
K: {key}
{body}
"""


def song(body, key="C"):
    return SONG.format(body=body, key=key)


def notes(body, key="C"):
    return essen_songs.parse_song(song(body, key))[0]


def beats(body):
    return essen_songs.parse_song(song(body))[1]


def test_letters_and_marks_tell_the_octave():
    assert notes("C,, C, C c c' B,") == ["C2", "C3", "C4", "C5", "C6", "B3"]


@pytest.mark.parametrize(
    ("key", "sounding"),
    [
        ("C", ["F4", "C4", "B4", "E4"]),
        ("D", ["F#4", "C#4", "B4", "E4"]),
        ("Bb", ["F4", "C4", "Bb4", "Eb4"]),
        ("Em", ["F#4", "C4", "B4", "E4"]),
        ("H", ["F#4", "C#4", "B4", "E4"]),
    ],
)
def test_the_key_signature_is_applied(key, sounding):
    assert notes("FCBE", key) == sounding


def test_an_accidental_holds_up_to_the_bar_line_even_across_a_line_break():
    assert notes("=FF\nf | F", "G") == ["F4", "F4", "F5", "F#4"]
    assert notes("^^C__D_E") == ["C##4", "Dbb4", "Eb4"]


def test_durations_count_quarter_notes():
    assert beats("C C2 C3 C16 z4") == [0.5, 1.0, 1.5, 8.0, 2.0]


def test_tied_notes_are_one_and_keep_their_accidental():
    assert essen_songs.parse_song(song("_B2- | B4-\n| B")) == (["Bb4"], [3.5])
    assert essen_songs.parse_song(song("C-z-z")) == (["C4", "rest"], [0.5, 1.0])


@pytest.mark.parametrize("body", ["4A2", "C442", "C5", "C0", "C x", "CD N: D", "C/2"])
def test_what_is_no_notation_is_damaged(body):
    with pytest.raises(essen_songs.DamagedSongError):
        essen_songs.parse_song(song(body))


@pytest.mark.parametrize(
    "change",
    [("K: C", "K: X"), ("L: 1/8", "L: 1/0"), ("L: 1/8", "L: x"), ("L: 1/8\n", ""), ("K: C\n", "")],
)
def test_a_header_that_cannot_be_read_is_damage(change):
    with pytest.raises(essen_songs.DamagedSongError):
        essen_songs.parse_song(song("C").replace(*change))


def test_the_collection_is_the_name_of_the_file_without_its_number():
    conversion = essen_songs.song_rows({"erk10": song("CD2") + song("E"), "irl": song("C")})
    assert conversion.tables["songs"].to_pylist() == [
        {
            "notes": ["C4", "D4"],
            "beats": [0.5, 1.0],
            "title": "Mary's Dream",
            "collection": "erk",
        },
        {"notes": ["E4"], "beats": [0.5], "title": "Mary's Dream", "collection": "erk"},
        {"notes": ["C4"], "beats": [0.5], "title": "Mary's Dream", "collection": "irl"},
    ]


def test_test_files_damaged_and_repeated_songs_are_left_out_and_counted():
    files = {
        "erk10": song("CD") + song("C99"),
        "erk20": song("CD") + song("C4D"),
        "testd": song("E") + song("F"),
    }
    conversion = essen_songs.song_rows(files)
    assert conversion.tables["songs"]["notes"].to_pylist() == [["C4", "D4"], ["C4", "D4"]]
    assert conversion.left_out == {"test file": 2, "damaged": 1, "repeated song": 1}

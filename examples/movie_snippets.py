"""Sentences from movie reviews with the mean rating of a crowd: does it like the movie or not?

Source: `movieReviewSnippets_GroundTruth.txt` in `additional_resources/hutto_ICWSM_2014.tar.gz` in
the sdist of vaderSentiment 3.3.2. C. J. Hutto, E. Gilbert: "VADER: a parsimonious rule-based model
for sentiment analysis of social media text", ICWSM 2014. The sentences are from
rotten.tomatoes.com, by way of B. Pang and L. Lee; the ratings, from -4 to 4, are the means of those
of people.

Licence: vaderSentiment is under the MIT licence, and its archive's readme asks to cite the paper
when the data set is used. Nothing is said about the rights of the reviews' authors in the
sentences.

Words are lower case, marks of punctuation are words of their own, `&amp;` and the like are
resolved.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

import pyarrow as pa

from examples.conversion import Conversion, ragged_column

MEMBERS = "*/additional_resources/hutto_ICWSM_2014.tar.gz"
INNER_MEMBERS = "*/movieReviewSnippets_GroundTruth.txt"
# A word with its apostrophes inside, or marks of punctuation of one kind.
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|([^\w\s]|_)\1*")


def convert(folder: Path) -> Conversion:
    """Reads the file below the folder that the package was unpacked to."""
    path = next(folder.rglob("movieReviewSnippets_GroundTruth.txt"))
    return rated_snippets(path.read_text("utf-8"))


def rated_snippets(text: str) -> Conversion:
    """Reads number, mean rating and sentence, parted by tabs, a row per line.

    Left out: lines of another form, sentences rated 0 on average, and sentences that came before.
    """
    left_out = {"not three fields": 0, "rated neither way": 0, "repeated sentence": 0}
    sentences: dict[str, float] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 3 or not _is_number(fields[1]):
            left_out["not three fields"] += 1
        elif float(fields[1]) == 0:
            left_out["rated neither way"] += 1
        elif fields[2] in sentences:
            left_out["repeated sentence"] += 1
        else:
            sentences[fields[2]] = float(fields[1])
    rows = [words_of(sentence) for sentence in sentences]
    table = pa.table(
        {
            "words": ragged_column(
                pa.array([word for row in rows for word in row], pa.string()), map(len, rows)
            ),
            "sentiment": pa.array(
                ["positive" if rating > 0 else "negative" for rating in sentences.values()],
                pa.string(),
            ),
        }
    )
    return Conversion({"snippets": table}, left_out)


def words_of(sentence: str) -> list[str]:
    """The words of a sentence.

    Example:
        >>> words_of("It's ''Lilo &amp; Stitch''...")
        ["it's", "''", 'lilo', '&', 'stitch', "''", '...']
    """
    return [word[0] for word in WORD.finditer(html.unescape(sentence).lower())]


def _is_number(written: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", written) is not None

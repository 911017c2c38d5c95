"""Every example in a docstring of a converter runs and says the truth."""

import doctest

from examples import conversion, essen_songs, movie_snippets


def test_docstrings_of_the_examples():
    results = [doctest.testmod(module) for module in (conversion, essen_songs, movie_snippets)]
    assert [result.attempted > 0 and result.failed == 0 for result in results] == [True] * 3

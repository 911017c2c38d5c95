from examples import movie_snippets


def test_the_sign_of_the_mean_rating_is_the_class():
    conversion = movie_snippets.rated_snippets("1\t2.25\tIt's FUN.\r\n2\t-0.5\tToo tepid")
    assert conversion.tables["snippets"].to_pylist() == [
        {"words": ["it's", "fun", "."], "sentiment": "positive"},
        {"words": ["too", "tepid"], "sentiment": "negative"},
    ]
    assert sum(conversion.left_out.values()) == 0


def test_what_has_no_class_or_came_before_is_left_out_and_counted():
    text = "1\t0.0\tMeh\n2\t1\tFun\n3\t2\tFun\n4\tFun\nx\ty\tz\n5\t-0.0\tHm\n"
    conversion = movie_snippets.rated_snippets(text)
    assert conversion.tables["snippets"]["words"].to_pylist() == [["fun"]]
    assert conversion.left_out == {
        "not three fields": 2,
        "rated neither way": 2,
        "repeated sentence": 1,
    }


def test_punctuation_stands_alone_but_for_apostrophes_inside_of_words():
    assert movie_snippets.words_of("'Touché!' S&amp;M: rock'n'roll, 2½ (well...) -- _x_") == [
        *("'", "touché", "!", "'", "s", "&", "m", ":", "rock'n'roll", ",", "2½"),
        *("(", "well", "...", ")", "--", "_", "x", "_"),
    ]
    assert movie_snippets.words_of("") == []

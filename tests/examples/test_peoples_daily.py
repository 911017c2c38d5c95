from examples import peoples_daily


def test_a_paragraph_becomes_words_and_one_tag_per_word():
    conversion = peoples_daily.tagged_rows("中共中央/nt  总书记/n  、/w\n１/m  张/q\n")
    assert conversion.tables["paragraphs"].to_pylist() == [
        {"words": ["中共中央", "总书记", "、"], "tags": ["nt", "n", "w"], "paragraph": 0},
        {"words": ["１", "张"], "tags": ["m", "q"], "paragraph": 1},
    ]
    assert conversion.left_out == {"empty line": 0, "a word without a tag": 0}


def test_a_slash_can_be_a_word():
    table = peoples_daily.tagged_rows("//w  ａ/ｂ/nx").tables["paragraphs"]
    assert table["words"].to_pylist() == [["/", "ａ/ｂ"]]


def test_empty_lines_and_paragraphs_with_a_naked_word_are_left_out_and_counted():
    text = "\n的/u\n  \n新/a  世纪\n/w\n新/\r\n年/q  \n\n"
    conversion = peoples_daily.tagged_rows(text)
    assert conversion.tables["paragraphs"]["words"].to_pylist() == [["的"], ["年"]]
    assert conversion.tables["paragraphs"]["tags"].to_pylist() == [["u"], ["q"]]
    assert conversion.left_out == {"empty line": 3, "a word without a tag": 3}


def test_equal_paragraphs_have_one_number():
    table = peoples_daily.tagged_rows("图片/n\n新/a\n图片/n\n").tables["paragraphs"]
    assert table["paragraph"].to_pylist() == [0, 1, 0]

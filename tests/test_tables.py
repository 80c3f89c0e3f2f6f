"""Tables stand straight, and their cells stay as they were given."""

from lotcal_tf.tables import markdown, plain

ROWS = [["name", "n", "how"], ["a", "1", "x|y"], ["long name", "12,345", "0.10"]]


def test_plain_by_hand():
    assert plain(ROWS, ["how"]).splitlines() == [
        "name            n  how",
        "a               1  x|y",
        "long name  12,345  0.10",
    ]


def test_markdown_by_hand():
    assert markdown(ROWS).splitlines() == [
        "| name      |      n |   how |",
        "|:----------|-------:|------:|",
        "| a         |      1 |  x\\|y |",
        "| long name | 12,345 |  0.10 |",
    ]
    assert markdown(ROWS, ["how"]).splitlines()[1] == "|:----------|-------:|:------|"

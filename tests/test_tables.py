"""Tables stand straight, and their cells stay as they were given."""

import pytest

from lotcal_tf.tables import duration, markdown, plain

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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"), (41.4, "41 s"), (99.4, "99 s"), (99.6, "2 min"), (720, "12 min"),
        (99 * 60, "99 min"), (100 * 60, "1 h 40 min"), (116 * 60, "2 h"), (12_000, "3 h 20 min"),
        (594 * 60, "9 h 50 min"), (596 * 60, "10 h"), (25.4 * 3600, "25 h"), (71 * 3600, "71 h"),
        (72 * 3600, "3 days"), (24.6 * 86400, "25 days"),
    ],
)  # fmt: skip
def test_a_duration_is_rounded_as_an_estimate(seconds, text):
    assert duration(seconds) == text

"""How settings share figures, and links relative to the page."""

from pathlib import Path

import pytest

from lotcal_tf.analysis.figures import MOST
from lotcal_tf.analysis.sections import chunks, relative_link, time_text


@pytest.mark.parametrize("count", [0, 1, 2, MOST, MOST + 1, 3 * MOST])
def test_every_setting_is_in_a_figure_with_the_first(count):
    names = list(range(count))
    made = chunks(names)
    assert sorted({name for chunk in made for name in chunk}) == names
    assert all(len(chunk) <= MOST and chunk[0] == 0 for chunk in made)
    assert sum(len(chunk) - 1 for chunk in made) == max(count - 1, 0)


@pytest.mark.parametrize(
    ("run", "out", "link"),
    [
        ("runs/a", "report.html", "runs/a/"),
        ("runs/a", "pages/report.html", "../runs/a/"),
        ("/x/runs/a b#?", "/x/y/report.html", "../runs/a%20b%23%3F/"),
        ("javascript:alert(1)", "report.html", "javascript%3Aalert%281%29/"),
    ],
)
def test_links_are_relative_and_escaped(run, out, link):
    assert relative_link(Path(out))(Path(run)) == link


def test_times_are_short():
    assert [time_text(s) for s in (0.04, 9.94, 10, 75, 3600, 7384)] == [
        *("0.0 s", "9.9 s", "10 s", "1 min 15 s", "1 h 00 min", "2 h 03 min")
    ]

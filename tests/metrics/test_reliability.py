"""The diagram is read back from its pixels: where each colour stands, and where none does."""

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from lotcal_tf.metrics import reliability
from lotcal_tf.metrics.reliability import reliability_diagram

pytestmark = pytest.mark.usefixtures("diagrams")

# The diagram's own axes in pixels of the image, from the fractions it is laid out with.
LEFT, RIGHT = 0.14 * 480, 0.965 * 480
TOP, BOTTOM = (1 - 0.825) * 480, (1 - 0.285) * 480
# Outlines are 1 pixel wide, the cap on an accuracy 2.5, and antialiasing blurs one more.
PIXELS = 3


def predictions(
    *groups: tuple[int, int, float],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Two-class predictions from (examples, how many correct, confidence >= 1/2) a group."""
    labels = np.concatenate([np.arange(n) >= correct for n, correct, _ in groups]).astype(np.int64)
    p = np.concatenate([np.full(n, confidence) for n, _, confidence in groups])
    return labels, np.log(np.stack([p, 1 - p], axis=1))


def box(image: NDArray[np.uint8], color: str) -> tuple[float, float, float, float]:
    """Confidence from, to and accuracy from, to that pixels of this colour span in the diagram."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    found = (image == rgb).all(axis=2)
    found[: int(TOP) - 1] = False  # the legend
    rows, columns = np.nonzero(found)
    assert rows.size, f"no pixel of {color}"

    def across(column: float) -> float:
        return (column - LEFT) / (RIGHT - LEFT)

    def up(row: float) -> float:
        return (BOTTOM - row) / (BOTTOM - TOP)

    return across(columns.min()), across(columns.max() + 1), up(rows.max() + 1), up(rows.min())


def has(image: NDArray[np.uint8], color: str) -> bool:
    return bool((image == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2).any())


def near(*expected: float) -> object:
    return pytest.approx(expected, abs=PIXELS / (BOTTOM - TOP))


def test_an_image_of_the_stated_kind():
    image = reliability_diagram(*predictions((10, 7, 0.9)))
    assert image.shape == (480, 480, 3)
    assert image.dtype == np.uint8
    assert image.flags.owndata and image.flags.c_contiguous
    assert (image[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()


def test_an_overconfident_bin():
    # Confidence .9, half of them right: bar to .5, gap from .5 to .9, in the last of five bins.
    image = reliability_diagram(*predictions((10, 5, 0.9)), bins=5)
    assert box(image, reliability.ACCURACY_COLOR) == near(0.8, 1.0, 0.0, 0.5)
    assert box(image, reliability.OVERCONFIDENT_COLOR) == near(0.8, 1.0, 0.5, 0.9)
    assert not has(image, reliability.UNDERCONFIDENT_COLOR)


def test_an_underconfident_bin():
    # Confidence .55, nine in ten right: blue to .55, the gap on it up to .9, in the third bin.
    image = reliability_diagram(*predictions((10, 9, 0.55)), bins=5)
    assert box(image, reliability.ACCURACY_COLOR) == near(0.4, 0.6, 0.0, 0.55)
    assert box(image, reliability.UNDERCONFIDENT_COLOR) == near(0.4, 0.6, 0.55, 0.9)
    assert not has(image, reliability.OVERCONFIDENT_COLOR)


def test_a_calibrated_bin_has_no_gap():
    image = reliability_diagram(*predictions((4, 3, 0.75)), bins=5)
    assert box(image, reliability.ACCURACY_COLOR) == near(0.6, 0.8, 0.0, 0.75)
    # The gap of 1e-16 that rounding may leave is thinner than any pixel.
    gaps = (reliability.OVERCONFIDENT_COLOR, reliability.UNDERCONFIDENT_COLOR)
    area = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in gaps])
    assert not (image[int(TOP) - 1 :, :, None] == area).all(axis=3).any()


def test_empty_is_not_an_accuracy_of_zero():
    # The last bin holds examples that are all wrong; the one before it holds none.
    image = reliability_diagram(*predictions((5, 5, 0.7), (5, 0, 1 - 1e-9)), bins=10)
    assert box(image, reliability.OVERCONFIDENT_COLOR) == near(0.9, 1.0, 0.0, 1.0)

    def column(confidence: float) -> NDArray[np.uint8]:
        x = LEFT + confidence * (RIGHT - LEFT)
        return image[int(TOP) + 5 : int(BOTTOM) - 5, int(x) - 5 : int(x) + 5]

    hatch = np.array([0xFA] * 3)
    for empty in (0.05, 0.25, 0.55, 0.75, 0.85):
        assert (column(empty) == hatch).all(axis=2).mean() > 0.5, empty
    for filled in (0.65, 0.95):
        assert not (column(filled) == hatch).all(axis=2).any(), filled


def test_hatching_only_where_a_bin_is_empty():
    def hatched(bins: int) -> float:
        image = reliability_diagram(*predictions((5, 3, 0.7)), bins=bins)
        inside = image[int(TOP) + 5 : int(BOTTOM) - 5, int(LEFT) + 5 : int(RIGHT) - 5]
        return float((inside == 0xFA).all(axis=2).mean())

    # The one bin is filled, and the dashed diagonal's antialiasing may hit the colour by chance.
    assert hatched(1) < 0.001
    # Of two the left half is empty, and the paper between the hatches makes up most of it.
    assert 0.25 < hatched(2) < 0.5


def test_counts_below():
    # 30 examples at .95, 10 at .55: the second bar of the histogram is a third as high.
    image = reliability_diagram(*predictions((10, 6, 0.55), (30, 28, 0.95)), bins=10)
    grey = (image[int(BOTTOM) + 5 :] == 0x9A).all(axis=2)
    heights = [grey[:, int(LEFT + c * (RIGHT - LEFT))].sum() for c in (0.55, 0.95, 0.75)]
    assert heights[0] == pytest.approx(heights[1] / 3, abs=1.5)
    assert heights[1] > 50
    assert heights[2] == 0


def drawn_text(monkeypatch: pytest.MonkeyPatch, *args: object, **keywords: object) -> list[str]:
    from matplotlib.figure import Figure

    lines, text = [], Figure.text

    def note(self: Figure, *args: object, **keywords: object) -> object:
        lines.append(keywords["s"])
        return text(self, *args, **keywords)

    monkeypatch.setattr(Figure, "text", note)
    reliability_diagram(*args, **keywords)
    return lines


def test_ece_stands_with_its_bins(monkeypatch: pytest.MonkeyPatch):
    lines = drawn_text(monkeypatch, *predictions((1000, 500, 0.9)), bins=5, title="svhn level 3")
    assert lines == ["svhn level 3", "ECE 0.4000 with 5 bins, 1,000 examples"]


def test_one_of_each(monkeypatch: pytest.MonkeyPatch):
    lines = drawn_text(monkeypatch, [0], [[0.0, 0.0]], bins=1)
    assert lines == ["", "ECE 0.5000 with 1 bin, 1 example"]


def test_a_long_title_is_cut_to_two_lines(monkeypatch: pytest.MonkeyPatch):
    title = drawn_text(monkeypatch, [0], [[0.0, 1.0]], title="ticket " * 100)[0]
    first, second = title.split("\n")
    assert len(first) <= 68 and len(second) <= 68 and second.endswith("…")


def test_a_title_is_not_read_as_tex():
    data = predictions((10, 7, 0.9))
    plain = reliability_diagram(*data)
    assert (reliability_diagram(*data, title=r"$\frac{ _x^ $5")[:60] != plain[:60]).any()


def test_the_same_predictions_give_the_same_image():
    data = predictions((10, 7, 0.9), (5, 1, 0.6))
    np.testing.assert_array_equal(reliability_diagram(*data), reliability_diagram(*data))


def test_fifteen_bins_by_default():
    data = predictions((10, 7, 0.9))
    np.testing.assert_array_equal(reliability_diagram(*data), reliability_diagram(*data, bins=15))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bins", [1, 15, 200])
def test_extreme_logits_draw_without_a_warning(bins: int):
    image = reliability_diagram([0, 1, 1], [[1e4, -1e4], [1e4, -1e4], [0.0, 0.0]], bins=bins)
    assert has(image, reliability.ACCURACY_COLOR)


def test_pyplot_stays_unused():
    # pyplot would keep every figure of a long run and pick a GUI backend.
    already = "matplotlib.pyplot" in sys.modules
    reliability_diagram(*predictions((10, 7, 0.9)))
    assert ("matplotlib.pyplot" in sys.modules) == already


@pytest.mark.parametrize(
    ("labels", "logits", "bins", "message"),
    [
        ([0, 5], np.zeros((2, 3)), 15, r"labels must lie in \[0, 3\), got 0 to 5"),
        ([0], [[0.0, np.nan]], 15, "logits must be finite, got inf or NaN in row 0"),
        ([0], [[0.0, 1.0]], 0, "bins must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(labels: object, logits: object, bins: int, message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        reliability_diagram(labels, logits, bins=bins)

"""The chapter on the claims: a table each, verdicts, sizes over all groups."""

import dataclasses

import pytest

from lotcal_tf.analysis.claims import CLAIMS
from lotcal_tf.analysis.claims_section import chapter, sizes
from lotcal_tf.analysis.document import Picture, Table
from lotcal_tf.analysis.groups import group
from lotcal_tf.analysis.label_noise import studies


@pytest.fixture
def of_classes(sized):
    """of_classes(number, best, …) → a run under label noise on so many classes."""

    def make(number, best, seed=0, model="lenet_5", start=1000, **fields):
        run = sized(best, start=start, model=model, seed=seed)
        subset = list(range(number)) if number < 10 else []
        whole = run.fields | {"dataset": "tiny", "label_noise": 0.2, "classes": subset} | fields
        directory = run.directory.with_name(f"{number}-{best}-{seed}-{model}")
        return dataclasses.replace(run, fields=whole, classes=number, directory=directory)

    return make


def test_each_claim_has_a_table_of_values_and_verdicts(of_classes):
    runs = [of_classes(n, (100 + seed) * n, seed) for n in (4, 6, 8) for seed in (0, 1)]
    found, rows = chapter(group(runs))
    assert [one.title[:3] for one in found.sections[:-1]] == [f"({claim})" for claim in CLAIMS]
    ((part,),) = (one.parts for one in found.sections if one.title.startswith("(d)"))
    where = "tiny, 4 classes; tiny, 6 classes; tiny, 8 classes"
    assert part.rows[1] == [
        "weights per additional class (by validation)", where, "101 [94, 107] (2)", "above 0", "holds",
    ]  # fmt: skip
    (row,) = (r for r in rows if r.metric == part.rows[1][0])
    assert (row.setting, row.kind, row.n) == ("claim d: holds", "claim", 2)
    assert row.value == pytest.approx(100.5)
    undecided = [r for s in found.sections for p in s.parts if isinstance(p, Table) for r in p.rows]
    assert any(r[-1].startswith("undecided: needs runs of mixture_linear and") for r in undecided)
    assert any(line.startswith("tiny, 4 classes: 2 runs, 2 seeds") for line in found.about[2].lines)


def test_groups_of_one_data_set_have_different_names(of_classes):
    runs = [of_classes(10, 100), of_classes(10, 100, lr=0.5), of_classes(10, 100, lr=0.7)]
    assert [one.title for one in studies(group(runs))] == ["tiny", "tiny (2)", "tiny (3)"]


def test_sizes_are_drawn_over_groups_with_a_line_for_each_architecture(of_classes):
    runs = [
        *(of_classes(n, 10 * n) for n in (4, 6, 8)),
        of_classes(8, 90, model="lenet_50", start=4000),
        of_classes(8, 70, model="resnet8_2", lr=0.5),
    ]
    whole = sizes(studies(group(runs)))
    start, classes = whole.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in start.lines}
    assert lines["lenet_W, tiny, 8 classes"] == [[1000, 80], [4000, 90]]
    assert lines["resnet8_W, tiny, 8 classes"] == [[1000, 70]] and len(lines) == 4
    (line,) = classes.lines
    assert line.get_xydata().tolist() == [[4, 40], [6, 60], [8, 80]]
    assert line.get_label() == "lenet_5, tiny: +10 weights per class"
    assert sizes(studies(group(runs[:1]))) is None


def test_without_label_noise_there_is_no_chapter(sized):
    run = sized(100)
    clean = dataclasses.replace(run, fields={**run.fields, "dataset": "tiny"})
    assert chapter(group([clean])) == (None, [])


def test_a_figure_of_sizes_is_a_picture_of_the_chapter(of_classes):
    found, _ = chapter(group([of_classes(n, 10 * n) for n in (4, 6)]))
    (drawn,) = found.sections[-1].parts
    assert isinstance(drawn, Picture) and drawn.name == "claims_sizes"

"""The text of the descent section: every claim, or why there is none."""

import dataclasses

from lotcal_tf.analysis.document import Table
from lotcal_tf.analysis.label_noise import Study
from lotcal_tf.analysis.label_noise_section import rows, tables
from lotcal_tf.analysis.runs import DIFFICULTY

WIDTHS = {266_200: "lenet_300_100", 1000: "lenet_1_100"}


def text_of(study):
    parts = tables(study)
    cells = [c for p in parts if isinstance(p, Table) for row in p.rows for c in row]
    return cells, [line for p in parts if not isinstance(p, Table) for line in p.lines]


def test_a_bound_is_marked(recorded_run):
    cells, _ = text_of(Study([recorded_run([1000, 800, 600, 100])]))
    assert "≤ 100" in cells


def test_claims_that_cannot_be_made_are_left_out_or_say_why(sized):
    runs = [sized(100, model="net_1"), sized(200, model="net_2", start=2000)]
    cells, lines = text_of(Study(runs))
    assert not any("KL" in text or DIFFICULTY in text for text in (*cells, *lines))
    _, hard = text_of(Study([sized(100, difficulty=d) for d in (1, 2)]))
    missing = "none; it needs at least 5 difficulties, and there are 2"
    assert f"Rank correlation of best size and {DIFFICULTY}: {missing}" in hard


def test_every_run_has_a_row_and_a_verdict(sized):
    kl = {"test_kl_true": [2.0, 2.0, 1.0, 0.5, 0.7]}
    study = Study([sized(100, seed=seed, **kl) for seed in (0, 1)])
    of_runs, of_sizes, of_networks = (p for p in tables(study) if isinstance(p, Table))
    assert [row[:2] for row in of_runs.rows[1:]] == [["net", "0"], ["net", "1"]]
    assert of_sizes.rows[1:] == [["net", "1,000", "100 ± 0 (2)", "100 ± 0 (2)"]]
    assert [row[:3] for row in of_networks.rows[1:]] == [
        ["net: full", "2", "1,000 ± 0"],
        ["net: best ticket", "2", "100 ± 0"],
        ["net: lowest test error", "2", "100 ± 0"],
    ]
    _, lines = text_of(study)
    assert sum("double descent" in line for line in lines) == 2


def test_the_numbers_are_rows_of_the_csv_file(sized):
    kl = {"test_kl_true": [2.0, 2.0, 1.0, 0.5, 0.7]}
    found = rows(Study([sized(100, seed=seed, **kl) for seed in (0, 1)]), "group", "calib=none")
    best = [row for row in found if row.metric == "best_weights"]
    assert [(row.value, row.seed, row.level, row.density) for row in best] == [
        (100, 0, 3, 0.1),
        (100, 1, 3, 0.1),
    ]
    (difference,) = (r for r in found if r.metric == "test_kl_true" and r.kind == "best - full")
    assert (difference.value, difference.n) == (-1.5, 2)
    of_width = {
        (row.kind, row.metric): row.value for row in found if row.setting == "calib=none, net"
    }
    assert of_width["best size by validation", "weights"] == 100
    assert of_width["full", "weights"] == 1000 and of_width["full", "test_kl_true"] == 2
    assert of_width["best ticket", "test_kl_true"] == 0.5


def test_a_bound_is_named_so_in_the_csv_file(recorded_run):
    found = rows(Study([recorded_run([1000, 800, 600, 100])]), "group", "calib=none")
    sizes = {row.metric: row.value for row in found if row.kind == "descent"}
    assert sizes["best_weights_bound"] == 100 and "best_weights" not in sizes


def test_sizes_by_both_rules_and_the_lowest_ece_stand_in_tables(sized):
    columns = {"test_accuracy": [0.8, 0.9, 0.95, 0.85, 0.6]}
    columns["test_noisy_ece"] = [0.3, 0.2, 0.1, 0.2, 0.0]
    runs = [sized(100, seed=seed, **columns) for seed in (0, 1)]
    found = {part.title: part for part in tables(Study(runs)) if isinstance(part, Table)}
    (row,) = found["Effective number of parameters"].rows[1:]
    assert row == ["net", "1,000", "100 ± 0 (2)", "600 ± 0 (2)"]
    (row,) = found["Where the calibration error is lowest"].rows[1:]
    assert row[-1] == "600 [600, 600] (2)"


def test_published_values_stand_beside_the_width_they_belong_to(sized):
    fields = {"source": "mnist", "label_noise": 0.2, "noise_kind": "uniform"}
    runs = [sized(100, start=start, model=name) for start, name in WIDTHS.items()]
    runs = [dataclasses.replace(r, classes=10, fields={**r.fields, **fields}) for r in runs]
    found = {part.title: part for part in tables(Study(runs)) if isinstance(part, Table)}
    (row,) = found["Beside the published values"].rows[1:]
    errors = {"ours": ["0.150", "0.100"], "published": ["0.163", "0.071"]}
    full, best = errors["ours"]
    assert row[:4] == ["lenet_300_100", "266,200", full, errors["published"][0]]
    assert row[4:] == ["100 (1)", "100 (1)", "5,987", best, best, errors["published"][1]]
    other = [dataclasses.replace(r, fields={**r.fields, "label_noise": 0.3}) for r in runs]
    assert "Beside the published values" not in [
        part.title for part in tables(Study(other)) if isinstance(part, Table)
    ]

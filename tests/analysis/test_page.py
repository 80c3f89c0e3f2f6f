"""The text of a study: every claim, or why there is none."""

from lotcal_tf.analysis.page import page
from lotcal_tf.analysis.runs import DIFFICULTY
from lotcal_tf.analysis.study import Study


def test_a_bound_is_marked(recorded_run):
    assert "≤ 100" in page(Study([recorded_run([1000, 800, 600, 100])]))


def test_claims_that_cannot_be_made_are_left_out_or_say_why(sized):
    text = page(Study([sized(100), sized(200, model="b", start=2000)]))
    assert "- Spread of best sizes over 2 starting sizes (max/min): 2.00 of the means" in text
    assert "KL" not in text and f" {DIFFICULTY}" not in text.replace(" number", "")
    hard = page(Study([sized(100, difficulty=d) for d in (1, 2)]))
    assert (
        f"- Rank correlation of best size and {DIFFICULTY}: none; it needs at least 5 difficulties, and there are 2"
        in hard
    )
    assert f"at {DIFFICULTY}=2 (max/min): none; it needs two starting sizes" in hard


def test_every_run_has_a_row_and_a_verdict(sized):
    kl = {"test_kl_true": [2.0, 2.0, 1.0, 0.5, 0.7]}
    runs = [sized(100, seed=seed, **kl) for seed in (0, 1)]
    lines = page(Study(runs)).splitlines()
    assert lines[0] == "2 runs of , no label noise".replace(" ,", f" {runs[0].field('dataset')},")
    assert sum(line.startswith("| net ") for line in lines) == 3  # two runs, one starting size
    assert sum("double descent" in line for line in lines) == 2
    assert "- KL(best) / KL(full): 0.250 ± 0.000 (2)" in lines

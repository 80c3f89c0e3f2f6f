"""A study's text: each claim in words, and what is missing said."""

from lotcal_tf.analysis.page import page
from lotcal_tf.analysis.runs import DIFFICULTY
from lotcal_tf.analysis.study import Study


def test_a_bound_is_marked(chain):
    assert "≤ 100" in page(Study([chain([1000, 800, 600, 100])]))


def test_claims_that_cannot_be_made_are_left_out_or_say_why(sized):
    text = page(Study([sized(100), sized(200, model="b", start=2000)]))
    assert "- Spread of best sizes over 2 starting sizes (max/min): 2.00 of means" in text
    assert "KL" not in text and DIFFICULTY not in text
    hard = page(Study([sized(100, difficulty=d) for d in (1, 2)]))
    assert (
        f"- Rank correlation of best size and {DIFFICULTY}: none, needs 5 difficulties, there are 2"
        in hard
    )
    assert f"at {DIFFICULTY}=2 (max/min): none, it takes two starting sizes" in hard


def test_every_chain_has_a_row_and_a_verdict(sized):
    kl = {"test_kl_true": [2.0, 2.0, 1.0, 0.5, 0.7]}
    chains = [sized(100, seed=seed, **kl) for seed in (0, 1)]
    lines = page(Study(chains)).splitlines()
    assert lines[0] == "2 chains of , no label noise".replace(
        " ,", f" {chains[0].field('dataset')},"
    )
    assert sum(line.startswith("| net ") for line in lines) == 3  # two chains, one starting size
    assert sum("double descent" in line for line in lines) == 2
    assert "- KL(best) / KL(full): 0.250 ± 0.000 (2)" in lines

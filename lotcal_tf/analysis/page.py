"""A study as text: what it found, chain by chain, starting size by starting size, claim by claim."""

from collections.abc import Sequence

from lotcal_tf.analysis.runs import DIFFICULTY, Chain
from lotcal_tf.analysis.statistics import Summary
from lotcal_tf.analysis.study import (
    KL,
    OVERCONFIDENCE,
    SURE_AND_WRONG,
    Cell,
    Comparison,
    Study,
    compare,
    figure,
)
from lotcal_tf.tables import markdown


def page(study: Study) -> str:
    """The tables and the claims as Markdown, which reads as text too."""
    return "\n".join(
        [
            _setting(study.chains),
            "",
            _chain_table(study.chains),
            "",
            "Errors: 1 - accuracy, of validation on the labels as they are, noisy ones too. Threshold, peak "
            "and best in weights, found by training and validation error alone. ≤: a bound, the chain ends there.",
            "",
            *(f"- {chain.directory.name}: {chain.descent.verdict}" for chain in study.chains),
            "",
            _cell_table(study.cells()),
            "",
            "Mean ± standard deviation over seeds (number of chains); full network → best ticket.",
            "",
            *_claims(study),
            "",
        ]
    )


def _claims(study: Study) -> list[str]:
    lines = []
    for found in study.spreads():
        at = "" if found.difficulty is None else f" at {DIFFICULTY}={found.difficulty:g}"
        what = f"- Spread of best sizes over {found.models} starting sizes{at} (max/min): "
        if found.of_means is None:
            lines.append(f"{what}none, it takes two starting sizes with a best ticket")
        else:
            seeds = "" if found.by_seed is None else f"; each seed: {_short(found.by_seed)}"
            lines.append(f"{what}{found.of_means:.2f} of means{seeds}")
    if study.has_difficulty:
        correlation = study.correlation()
        what = f"- Rank correlation of best size and {DIFFICULTY}: "
        if correlation.of_means is None:
            lines.append(f"{what}none, {correlation.missing}")
        else:
            whole = correlation.of_means
            alone = (
                f"; each starting size and seed: {_short(correlation.by_chain)}"
                if correlation.by_chain
                else ""
            )
            lines.append(
                f"{what}{whole.rho:+.2f} (p = {whole.p:.2g}) of the means of {correlation.models} starting "
                f"size{'s' * (correlation.models != 1)} at {whole.n} difficulties{alone}"
            )
    compared = compare(study.chains)
    if KL in compared:
        lines.append(f"- KL(best) / KL(full): {_short(compared[KL].ratio)}")
    if OVERCONFIDENCE in compared:
        lines.append(f"- Over-confidence: {_against(compared[OVERCONFIDENCE])}")
    if SURE_AND_WRONG in compared:
        lines.append(
            f"- Wrong predictions with confidence above 0.9: {_against(compared[SURE_AND_WRONG])}"
        )
    return lines


def _setting(chains: Sequence[Chain]) -> str:
    first = chains[0]
    noise = first.field("label_noise")
    words = "no label noise"
    if noise:
        words = f"{noise:.0%} {first.field('noise_kind')} label noise"
        wrong = [c.wrong_labels["train"] for c in chains if "train" in c.wrong_labels]
        if wrong:
            words += f" ({sum(wrong) / len(wrong):.2%} of the training labels wrong)"
    plural = "s" * (len(chains) != 1)
    return f"{len(chains)} chain{plural} of {first.field('dataset')}, {words}"


def _chain_table(chains: Sequence[Chain]) -> str:
    hard = any(chain.difficulty is not None for chain in chains)
    head = ["network", *([DIFFICULTY] if hard else []), "seed", "weights", "threshold", "peak"]
    head += ["best", "kept", "val error", "test error", "test at peak", "test dense"]
    rows = []
    for chain in chains:
        found = chain.descent
        rows.append(
            [
                chain.model,
                *(
                    [f"{chain.difficulty:g}" if chain.difficulty is not None else "–"]
                    if hard
                    else []
                ),
                str(chain.seed),
                f"{chain.start:,}",
                _weights(chain, found.threshold, found.threshold_is_bound),
                _weights(chain, found.peak),
                _weights(chain, found.best, found.best_is_bound),
                _number(chain.figure("density", found.best), ".1%"),
                _number(figure(chain, "val_error", found.best), ".4f"),
                _number(figure(chain, "test_error", found.best), ".4f"),
                _number(figure(chain, "test_error", found.peak), ".4f"),
                _number(figure(chain, "test_error", 0), ".4f"),
            ]
        )
    return markdown([head, *rows])


def _cell_table(cells: Sequence[Cell]) -> str:
    hard = any(cell.difficulty is not None for cell in cells)
    names = {
        "test_error": "test error",
        KL: "KL to the truth",
        OVERCONFIDENCE: "over-confidence",
        SURE_AND_WRONG: "sure and wrong",
    }
    shown = {n: h for n, h in names.items() if any(n in cell.compared for cell in cells)}
    head = ["network", *([DIFFICULTY] if hard else []), "weights", "best size", *shown.values()]
    rows = []
    for cell in cells:
        left = [f"{cell.bounds} bound"] if cell.bounds else []
        left += [f"{cell.without} without"] if cell.without else []
        sizes = [_short(cell.sizes, ",.0f")] if cell.sizes else []
        rows.append(
            [
                cell.model,
                *([f"{cell.difficulty:g}" if cell.difficulty is not None else "–"] if hard else []),
                f"{cell.start:,}",
                ", ".join(sizes + left),
                *(_arrow(cell.compared.get(name)) for name in shown),
            ]
        )
    return markdown([head, *rows])


def _weights(chain: Chain, level: int | None, bound: bool = False) -> str:
    return "–" if level is None else f"{'≤ ' if bound else ''}{int(chain.weights[level]):,}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _short(summary: Summary | None, form: str = ".3f") -> str:
    if summary is None:
        return "–"
    deviation = "" if summary.sd is None else f" ± {summary.sd:{form}}"
    return f"{summary.mean:{form}}{deviation} ({summary.n})"


def _arrow(found: Comparison | None) -> str:
    return "–" if found is None else f"{found.full.mean:.3f} → {_short(found.best)}"


def _against(found: Comparison) -> str:
    return f"full {_short(found.full)}, best ticket {_short(found.best)}, difference {_short(found.difference)}"

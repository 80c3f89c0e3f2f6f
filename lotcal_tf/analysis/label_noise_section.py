"""The descent section of runs under label noise: a table of runs, one of starting sizes, claims, figures."""

from collections.abc import Sequence

from lotcal_tf.analysis import label_noise_figures
from lotcal_tf.analysis.comparison import Row
from lotcal_tf.analysis.document import Picture, Table, Text
from lotcal_tf.analysis.figures import picture
from lotcal_tf.analysis.label_noise import (
    KL,
    OVERCONFIDENCE,
    WRONG_CONFIDENT,
    Cell,
    Comparison,
    Study,
    compare,
    metric,
    with_predictions,
)
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun
from lotcal_tf.analysis.statistics import Summary
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.errors import LotcalError
from lotcal_tf.lottery.ticket_files import read_predictions

_RULE = (
    "Errors are 1 − accuracy; training and validation errors count against the noisy labels. Threshold, peak and "
    "best are given in weights; they are found from training and validation errors only. ≤ marks a bound: the run "
    "ends there."
)
_CAPTIONS = {
    "descent": "Test and training error against remaining weights. A thin line is a run, the thick line joins the "
    "dense networks. A circle marks a best ticket, a triangle a bound.",
    "best_size": "Size of the best ticket against starting size (and difficulty). A point is a run, a triangle a "
    "bound, a line joins the means.",
    "truth": "Distance to the truth and over-confidence on the test split against density; a line is a run.",
    "confidence": "Confidence of full networks and best tickets on the test split, separately for right and wrong "
    "predictions.",
}


def section(study: Study, prefix: str) -> list[Text | Table | Picture]:
    """The tables, claims and figures of a study.

    Args:
      study: the runs.
      prefix: of the names of the figures.
    """
    runs, predicted = _with_predictions(study.runs)
    study = Study(runs)
    figures = label_noise_figures.draw(study)
    if predicted:
        figures["confidence"] = label_noise_figures.confidences(predicted)
    drawn = [picture(f"{prefix}{name}", one, _CAPTIONS[name]) for name, one in figures.items()]
    first = drawn.pop(0)
    return [Text([_setting(study.runs)]), first, *tables(study), *drawn]


def tables(study: Study) -> list[Text | Table | Picture]:
    """The tables and claims of a study."""
    return [
        _run_table(study.runs),
        Text([f"{name_of(run)}: {run.descent.verdict}" for run in study.runs]),
        _cell_table(study.cells()),
        Text(_claims(study)),
    ]


def rows(study: Study, group: str, setting: str) -> list[Row]:
    """The numbers of a study for the CSV file."""
    found = []
    for run in study.runs:
        shown = {n: getattr(run.descent, n) for n in ("threshold", "peak", "best", "collapse")}
        for name, level in shown.items():
            if level is not None:
                weights, density = (float(run.columns[n][level]) for n in ("weights", "density"))
                found.append(
                    Row(group, f"{setting}, {name_of(run)}", "descent", f"{name}_weights", weights,
                        seed=run.seed, level=level, density=density)
                )  # fmt: skip
    for name, compared in compare(study.runs).items():
        kinds = {"full": compared.full, "best": compared.best, "best - full": compared.difference}
        kinds |= {"best / full": compared.ratio} if compared.ratio else {}
        found += [Row.of(group, setting, kind, name, "", one) for kind, one in kinds.items()]
    return found


def name_of(run: RecordedRun) -> str:
    """A run as the text names it."""
    hard = "" if run.difficulty is None else f", {DIFFICULTY}={run.difficulty:g}"
    return f"{run.model}{hard}, seed {run.seed}"


def _with_predictions(
    runs: Sequence[RecordedRun],
) -> tuple[list[RecordedRun], label_noise_figures.PredictionsByModel]:
    """The runs, with columns from stored predictions; and those of runs with a best ticket, by network."""
    predicted: label_noise_figures.PredictionsByModel = {}
    found = []
    for run in runs:
        best = run.descent.best
        try:
            levels = () if best is None else (0, best)
            pair = [read_predictions(level_path(run.directory, n), "test") for n in levels]
        except LotcalError:  # damaged ones are named in the report already
            pair = []
        if pair and best is not None:
            predicted.setdefault(run.model, []).append((pair[0], pair[1]))
            run = with_predictions(run, dict(zip((0, best), pair, strict=True)))
        found.append(run)
    return found, predicted


def _claims(study: Study) -> list[str]:
    """The claims in words, or why there are none."""
    lines = []
    for found in study.spreads():
        at = "" if found.difficulty is None else f" at {DIFFICULTY}={found.difficulty:g}"
        what = f"Spread of best sizes over {found.models} starting sizes{at} (max/min): "
        if found.of_means is None:
            lines.append(f"{what}none; it needs two starting sizes with a best ticket")
        else:
            seeds = "" if found.by_seed is None else f"; per seed: {_short(found.by_seed)}"
            lines.append(f"{what}{found.of_means:.2f} of the means{seeds}")
    if study.has_difficulty:
        correlation = study.correlation()
        what = f"Rank correlation of best size and {DIFFICULTY}: "
        if correlation.of_means is None:
            lines.append(f"{what}none; {correlation.missing}")
        else:
            whole = correlation.of_means
            alone = (
                f"; per starting size and seed: {_short(correlation.by_start_and_seed)}"
                if correlation.by_start_and_seed
                else ""
            )
            lines.append(
                f"{what}{whole.rho:+.2f} (p = {whole.p:.2g}) of the means of {correlation.models} starting "
                f"size{'s' * (correlation.models != 1)} at {whole.n} difficulties{alone}"
            )
    compared = compare(study.runs)
    if KL in compared:
        lines.append(f"KL(best) / KL(full): {_short(compared[KL].ratio)}")
    if OVERCONFIDENCE in compared:
        lines.append(f"Over-confidence: {_against(compared[OVERCONFIDENCE])}")
    if WRONG_CONFIDENT in compared:
        lines.append(
            f"Wrong predictions with confidence above 0.9: {_against(compared[WRONG_CONFIDENT])}"
        )
    return lines


def _setting(runs: Sequence[RecordedRun]) -> str:
    first = runs[0]
    noise = first.field("label_noise")
    words = "no label noise"
    if noise:
        words = f"{noise:.0%} {first.field('noise_kind')} label noise"
        wrong = [c.wrong_labels["train"] for c in runs if "train" in c.wrong_labels]
        if wrong:
            words += f" ({sum(wrong) / len(wrong):.2%} of the training labels wrong)"
    plural = "s" * (len(runs) != 1)
    return f"{len(runs)} run{plural} of {first.field('dataset')}, {words}"


def _run_table(runs: Sequence[RecordedRun]) -> Table:
    hard = any(run.difficulty is not None for run in runs)
    head = ["network", *([DIFFICULTY] if hard else []), "seed", "weights", "threshold", "peak"]
    head += ["best", "kept", "val error", "test error", "test at peak", "test dense"]
    rows = []
    for run in runs:
        found = run.descent
        rows.append(
            [
                run.model,
                *([f"{run.difficulty:g}" if run.difficulty is not None else "–"] if hard else []),
                str(run.seed),
                f"{run.start:,}",
                _weights(run, found.threshold, found.threshold_is_bound),
                _weights(run, found.peak),
                _weights(run, found.best, found.best_is_bound),
                _number(run.metric("density", found.best), ".1%"),
                _number(metric(run, "val_error", found.best), ".4f"),
                _number(metric(run, "test_error", found.best), ".4f"),
                _number(metric(run, "test_error", found.peak), ".4f"),
                _number(metric(run, "test_error", 0), ".4f"),
            ]
        )
    return Table("Descent of each run", [head, *rows], note=_RULE)


def _cell_table(cells: Sequence[Cell]) -> Table:
    hard = any(cell.difficulty is not None for cell in cells)
    names = {
        "test_error": "test error",
        KL: "KL to the truth",
        OVERCONFIDENCE: "over-confidence",
        WRONG_CONFIDENT: "confident when wrong",
    }
    shown = {n: h for n, h in names.items() if any(n in cell.compared for cell in cells)}
    head = ["network", *([DIFFICULTY] if hard else []), "weights", "best size", *shown.values()]
    rows = []
    for cell in cells:
        left = [f"{cell.bounds} bound{'s' * (cell.bounds != 1)}"] if cell.bounds else []
        left += [f"{cell.without} without a best"] if cell.without else []
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
    note = (
        "Mean ± standard deviation over seeds (number of runs). Metrics: full network → best ticket, on the test "
        "split."
    )
    return Table("Best tickets by starting size", [head, *rows], note=note)


def _weights(run: RecordedRun, level: int | None, bound: bool = False) -> str:
    return "–" if level is None else f"{'≤ ' if bound else ''}{int(run.weights[level]):,}"


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

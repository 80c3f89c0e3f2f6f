"""The descent section of runs under label noise: tables of runs, sizes and networks, claims, figures."""

from collections.abc import Sequence

from lotcal_tf.analysis import label_noise_figures, prediction_figures
from lotcal_tf.analysis.comparison import Row
from lotcal_tf.analysis.document import Picture, Table, Text
from lotcal_tf.analysis.figures import picture
from lotcal_tf.analysis.label_noise import (
    KL,
    OVERCONFIDENCE,
    WRONG_CONFIDENT,
    Cell,
    Comparison,
    Sizes,
    Study,
    compare,
    metric,
    with_predictions,
)
from lotcal_tf.analysis.networks import MOST, shown
from lotcal_tf.analysis.published import LABEL, published_beside
from lotcal_tf.analysis.rules import ECES, RULES, by_validation
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun
from lotcal_tf.analysis.statistics import Summary
from lotcal_tf.analysis.texts import counted, deviated, number, with_interval
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.errors import LotcalError
from lotcal_tf.lottery.ticket_files import read_predictions

_RULE = (
    "Errors are 1 − accuracy; training and validation errors count against the noisy labels. Threshold, peak and "
    "best are given in weights; they are found from training and validation errors only. ≤ marks a bound: the run "
    "ends there."
)
_SIZES = (
    "Non-zero weights, output layer included: mean ± standard deviation over seeds (number of runs). validation: "
    "lowest validation error after the peak, our rule; it never uses test labels. test, as published: lowest error "
    "on clean test labels of a chain that starts over-parameterised, the definition of arXiv 2306.12190. A bound is "
    "the end of a chain and is left out of the mean."
)
_NETWORKS = (
    "Test split, mean ± standard deviation over seeds. best ticket: by validation. lowest test error: the published "
    "definition. small dense: of the narrower networks of the architecture the dense one with the lowest validation "
    "error, paired by seed. p* is the true conditional of noisy labels; for two classes ½ Σ |p* − p| is |p* − p|."
)
_MINIMA = (
    "Size at the lowest ECE before the collapse: geometric mean over seeds with its 95 % interval (number of runs), "
    "beside the best sizes."
)
_BESIDE = (
    "Errors on clean test labels, means over seeds. Published: arXiv 2306.12190, means of three replicates "
    "(mixtures: five)."
)
_METRICS = {
    "weights": ("weights", ",.0f"),
    "test_error": ("error, clean", ".4f"),
    "test_noisy_error": ("error, noisy", ".4f"),
    KL: ("KL(p* ‖ p)", ".3f"),
    "test_tv_true": ("½ Σ |p* − p|", ".3f"),
    "test_ece": ("ECE, clean", ".3f"),
    "test_noisy_ece": ("ECE, noisy", ".3f"),
    OVERCONFIDENCE: ("over-confidence", ".3f"),
    WRONG_CONFIDENT: ("confident when wrong", ".3f"),
}
_LARGEST = f"The largest network with a best ticket of each architecture and difficulty (at most {MOST}), all seeds"
_CAPTIONS = {
    "descent": "Test error (clean and noisy labels) and training error against remaining weights. A thin line is a "
    "run, the thick line joins the dense networks. A circle marks a best ticket, a triangle a bound.",
    "best_size": "Size of the best ticket against starting size (and difficulty), above by validation error, below by "
    "test error as published. A point is a run, a triangle a bound, a line joins the means.",
    "truth": "Distance to the truth and over-confidence on the test split against density; a line is a run.",
    "ece": "Calibration error against remaining weights, on clean and on noisy test labels; a line is a run. A diamond "
    "marks the lowest ECE before the collapse, a circle the best ticket, a triangle a bound of either.",
    "confidence": f"Histograms of the probability of the predicted class; right and wrong by clean labels. {_LARGEST}.",
    "calibration": "Calibration averaged over classes: share of a class against its predicted probability, in 10 bins; "
    f"bands are the standard deviation over classes and seeds. {_LARGEST}.",
    "conditional": "Left: predicted and true probability of class 1 of noisy labels against the position between the "
    "centres of class 0 (0) and class 1 (1); bands are the standard deviation over seeds. Right: mean |p* − p| of the "
    "test examples, seen on the plane through the centres (circles: class 0, squares: class 1). For XOR the position "
    f"is along the first half of the inputs, on the example's side of the second. {_LARGEST}.",
}


def section(study: Study, prefix: str) -> list[Text | Table | Picture]:
    """The tables, claims and figures of a study.

    Args:
      study: the runs.
      prefix: of the names of the figures.
    """
    study = Study([_with_column(run) for run in study.runs])
    figures = label_noise_figures.draw(study)
    if predicted := shown(study):
        figures["calibration"] = prediction_figures.calibration(predicted)
        figures["confidence"] = prediction_figures.confidences(predicted)
        if (conditional := prediction_figures.conditionals(predicted)) is not None:
            figures["conditional"] = conditional
    drawn = [picture(f"{prefix}{name}", one, _CAPTIONS[name]) for name, one in figures.items()]
    first = drawn.pop(0)
    return [Text([_setting(study.runs)]), first, *tables(study), *drawn]


def tables(study: Study) -> list[Text | Table | Picture]:
    """The tables and claims of a study."""
    cells = study.cells()
    beside = _published_table(study, cells)
    return [
        _run_table(study.runs),
        Text([f"{name_of(run)}: {run.descent.verdict}" for run in study.runs]),
        _size_table(cells),
        *([beside] if beside else []),
        _network_table(cells),
        *([_minimum_table(cells)] if any(cell.minima for cell in cells) else []),
        Text(_claims(study)),
    ]


def rows(study: Study, group: str, setting: str) -> list[Row]:
    """The numbers of a study for the CSV file."""
    found = []
    for run in study.runs:
        for name in ("threshold", "peak", "best", "collapse"):
            level = getattr(run.descent, name)
            if level is not None:
                weights, density = (float(run.columns[n][level]) for n in ("weights", "density"))
                bound = "_bound" * getattr(run.descent, f"{name}_is_bound", False)
                found.append(
                    Row(group, f"{setting}, {name_of(run)}", "descent", f"{name}_weights{bound}", weights,
                        seed=run.seed, level=level, density=density)
                )  # fmt: skip
    for name, compared in compare(study.runs).items():
        kinds = {"full": compared.full, "best": compared.best, "best - full": compared.difference}
        found += [Row.of(group, setting, kind, name, "", one) for kind, one in kinds.items()]
    return found + [row for cell in study.cells() for row in _cell_rows(cell, group, setting)]


def _cell_rows(cell: Cell, group: str, setting: str) -> list[Row]:
    """The sizes and the networks of one width."""
    hard = "" if cell.difficulty is None else f", {DIFFICULTY}={cell.difficulty:g}"
    setting = f"{setting}, {cell.model}{hard}"
    sizes = {f"best size by {name}": one for name, one in cell.sizes.items()}
    sizes |= {f"size at the lowest {name}": one for name, one in cell.minima.items()}
    found = [
        Row.of(group, setting, kind, "weights", "", one.found)
        for kind, one in sizes.items()
        if one.found is not None
    ]
    for network, metrics in cell.networks.items():
        found += [Row.of(group, setting, network, name, "", one) for name, one in metrics.items()]
    return found


def name_of(run: RecordedRun) -> str:
    """A run as the text names it."""
    hard = "" if run.difficulty is None else f", {DIFFICULTY}={run.difficulty:g}"
    return f"{run.model}{hard}, seed {run.seed}"


def _with_column(run: RecordedRun) -> RecordedRun:
    """A run with the share of wrong predictions that are confident, which older runs did not record."""
    best = by_validation(run)
    if best is None or WRONG_CONFIDENT in run.columns:
        return run
    try:
        levels = {
            n: read_predictions(level_path(run.directory, n), "test") for n in (0, best.level)
        }
    except LotcalError:  # damaged ones are named in the report already
        return run
    return with_predictions(run, levels)


def _claims(study: Study) -> list[str]:
    """The claims in words, or why there are none."""
    lines = []
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
                number(run.metric("density", found.best), ".1%"),
                number(metric(run, "val_error", found.best), ".4f"),
                number(metric(run, "test_error", found.best), ".4f"),
                number(metric(run, "test_error", found.peak), ".4f"),
                number(metric(run, "test_error", 0), ".4f"),
            ]
        )
    return Table("Descent of each run", [head, *rows], note=_RULE)


def _size_table(cells: Sequence[Cell]) -> Table:
    head = [*_cell_head(cells), *(f"best size by {name}" for name in RULES)]
    rows = [
        [*_cell_name(cell, cells), *(_sized(cell.sizes[name]) for name in RULES)] for cell in cells
    ]
    return Table("Effective number of parameters", [head, *rows], note=_SIZES)


def _network_table(cells: Sequence[Cell]) -> Table:
    """The networks that are compared at each width, a row for each."""
    networks = [one for cell in cells for one in cell.networks.values()]
    names = [name for name in _METRICS if any(name in one for one in networks)]
    *places, _ = _cell_head(cells)  # the weights are a metric here
    head = [*places, "seeds", *(_METRICS[name][0] for name in names)]
    rows = []
    for cell in cells:
        model, *others, _ = _cell_name(cell, cells)
        for network, found in cell.networks.items():
            values = [deviated(found.get(name), _METRICS[name][1]) for name in names]
            rows.append([f"{model}: {network}", *others, str(found["weights"].n), *values])
    return Table("Networks compared", [head, *rows], note=_NETWORKS)


def _minimum_table(cells: Sequence[Cell]) -> Table:
    shown = [name for name in ECES if any(name in cell.minima for cell in cells)]
    head = [*_cell_head(cells), *(f"best size by {name}" for name in RULES)]
    head += [f"lowest ECE on {ECES[name]}" for name in shown]
    rows = [
        [
            *_cell_name(cell, cells),
            *(_sized(cell.sizes[name]) for name in RULES),
            *(_sized(cell.minima.get(name), interval=True) for name in shown),
        ]
        for cell in cells
    ]
    return Table("Where the calibration error is lowest", [head, *rows], note=_MINIMA)


def _published_table(study: Study, cells: Sequence[Cell]) -> Table | None:
    """The sizes and errors of the widths that were published; None without such a width."""
    head = [*_cell_head(cells), "dense error", LABEL]
    head += ["best size by validation", "by test", LABEL]
    head += ["best error by validation", "by test", LABEL]
    rows = []
    for cell in cells:
        runs = [c for c in study.runs if (c.model, c.difficulty) == (cell.model, cell.difficulty)]
        one = published_beside(runs[0])
        if one is None:
            continue
        errors = {name: found.get("test_error") for name, found in cell.networks.items()}
        rows.append(
            [
                *_cell_name(cell, cells),
                deviated(errors.get("full"), ".3f"),
                number(one.full_error, ".3f"),
                *(_sized(cell.sizes[name]) for name in RULES),
                number(one.best_weights, ",.0f"),
                *(deviated(errors.get(n), ".3f") for n in ("best ticket", "lowest test error")),
                number(one.best_error, ".3f"),
            ]
        )
    return Table("Beside the published values", [head, *rows], note=_BESIDE) if rows else None


def _cell_head(cells: Sequence[Cell]) -> list[str]:
    hard = any(cell.difficulty is not None for cell in cells)
    return ["network", *([DIFFICULTY] if hard else []), "dense weights"]


def _cell_name(cell: Cell, cells: Sequence[Cell]) -> list[str]:
    hard = any(one.difficulty is not None for one in cells)
    difficulty = [number(cell.difficulty, "g")] if hard else []
    return [cell.model, *difficulty, f"{cell.start:,}"]


def _sized(found: Sizes | None, interval: bool = False) -> str:
    """Sizes over seeds; the runs with a bound and those without such a level."""
    if found is None:
        return "–"
    parts = []
    if found.found:
        text = (with_interval if interval else deviated)(found.found, ",.0f")
        parts.append(counted(text, found.found))
    parts += [f"{found.bounds} bound{'s' * (found.bounds != 1)}"] if found.bounds else []
    parts += [f"{found.without} without"] if found.without else []
    return ", ".join(parts)


def _weights(run: RecordedRun, level: int | None, bound: bool = False) -> str:
    return "–" if level is None else f"{'≤ ' if bound else ''}{int(run.weights[level]):,}"


def _short(summary: Summary | None, form: str = ".3f") -> str:
    return counted(deviated(summary, form), summary)


def _against(found: Comparison) -> str:
    return f"full {_short(found.full)}, best ticket {_short(found.best)}, difference {_short(found.difference)}"

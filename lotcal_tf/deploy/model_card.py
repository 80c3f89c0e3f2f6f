"""The model card: what the files in an export are, how far to trust them, how to run them; as text and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.deploy.report_tables import FILE_WORDS, LAYER_WORDS, by_file, file_cells, layer_cells
from lotcal_tf.evaluation.open_model import PROBABILITIES
from lotcal_tf.lottery.progress import percent
from lotcal_tf.metrics.bins import BinStatistics
from lotcal_tf.metrics.reliability import bins_diagram
from lotcal_tf.tables import markdown

TEXT, JSON, DIAGRAM = "model_card.md", "model_card.json", "reliability.png"

# Fields of an experiment, by the section they stand in; the rest is training.
_OF_DATA = (
    *("dataset", "source", "half", "validation_size", "augment", "input_mean", "input_std"),
    *("label_noise", "noise_kind", "noise_map"),
)
_OF_STRATEGY = (
    *("calib", "calib_weight", "passes", "dropout_rate", "dropout_at", "mixup_a", "prior"),
    *("nba_bins", "nba_width", "prune_rate", "output_prune_rate", "scope", "exclude", "rewind"),
    *("ticket", "control"),
)
_OF_PLACES = ("data_dir", "out", "memory_limit_mb", "distribute", "levels", "export_logits")
_OF_DENSITY = ("level", "density", "remaining", "prunable", "weights")
# Likewise of the realised figures, which are data's if not named here.
_REALISED_IN_TRAINING = ("steps_per_epoch", "plan", "replicas")
_REALISED_IN_STRATEGY = ("hyperparameters",)
_REALISED_IN_DENSITY = ("parameters", "kernels", "prunable", "remaining_at_start")
_METRICS = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier"}


def write(directory: Path, facts: Mapping[str, Any]) -> None:
    """Writes `model_card.md`, `model_card.json` and the reliability diagram beside them.

    Args:
      directory: that of the export; the card speaks of the files in it.
      facts: all that the card says. `experiment`: the fields of `experiment.json`; `data`: its
        realised figures; `record`: the ticket's row of `metrics.csv`; `parity`: as `parity.json`
        has it; `verdict`: `Verdict.as_dict()`; `reliability`: `reliability_of` of the main file;
        `input`: `shape` of an example, `range` of its values (or None) and `scaling`, a sentence
        on who scales them; `main`: the name of the file to show.
    """
    from matplotlib.image import imsave

    limits = _limits(facts)
    statistics = _statistics(facts["reliability"])
    imsave(directory / DIAGRAM, bins_diagram(statistics, title=facts["main"]))
    whole = {**facts, "limits": limits, "diagram": DIAGRAM, "run": snippet(facts)}
    text = json.dumps(_plain(whole), indent=2, ensure_ascii=False, allow_nan=False)
    (directory / JSON).write_text(text + "\n", encoding="utf-8")
    (directory / TEXT).write_text(_text(facts, limits), encoding="utf-8")


def reliability_of(statistics: BinStatistics) -> list[dict[str, Any]]:
    """Bins of equal width as a card's facts hold them; an empty bin has no confidence or accuracy."""
    rows = zip(statistics.confidence, statistics.accuracy, statistics.counts, strict=True)
    return [
        {
            "confidence": float(confidence) if count else None,
            "accuracy": float(accuracy) if count else None,
            "count": int(count),
        }
        for confidence, accuracy, count in rows
    ]


def snippet(facts: Mapping[str, Any]) -> str:
    """At most ten lines of Python that run the main file with LiteRT and NumPy alone.

    They print the class and the confidence. Empty where the main file is no `.tflite`.
    """
    if not facts["main"].endswith(".tflite"):
        return ""
    # Where any length goes, 1 does.
    shape = ", ".join(str(size or 1) for size in (1, *facts["input"]["shape"]))
    lines = [
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
        f"x = np.zeros(({shape}), np.float32)  # your example{_range(facts, '; values {} to {}')}",
        f"model = Interpreter({json.dumps(facts['main'])})",
        "model.allocate_tensors()",
        'model.set_tensor(model.get_input_details()[0]["index"], x)',
        "model.invoke()",
        'p = model.get_tensor(model.get_output_details()[0]["index"])[0]',
    ]
    if facts["parity"]["output"] != PROBABILITIES:
        lines.append("p = np.exp(p - p.max()) / np.exp(p - p.max()).sum()")
    lines.append('print("class", p.argmax(), "confidence", p.max())')
    return "\n".join(lines)


def _range(facts: Mapping[str, Any], template: str) -> str:
    limits = facts["input"].get("range")
    return template.format(*(f"{limit:g}" for limit in limits)) if limits else ""


# Sections


def _text(facts: Mapping[str, Any], limits: Sequence[str]) -> str:
    experiment, record = facts["experiment"], facts["record"]
    title = " · ".join(str(experiment[key]) for key in ("dataset", "model") if experiment.get(key))
    elsewhere = _REALISED_IN_TRAINING + _REALISED_IN_STRATEGY + _REALISED_IN_DENSITY
    named = _OF_DATA + _OF_STRATEGY + _OF_PLACES
    data = facts["data"]
    sections = {
        "Data": _pairs(_chosen(experiment, _OF_DATA) | _others(data, elsewhere)),
        "Training": _pairs(_others(experiment, named) | _chosen(data, _REALISED_IN_TRAINING)),
        "Strategy": _pairs(
            _chosen(experiment, _OF_STRATEGY) | _chosen(data, _REALISED_IN_STRATEGY)
        ),
        "Density": _pairs(_chosen(data, _REALISED_IN_DENSITY) | _chosen(record, _OF_DENSITY)),
        "Metrics": _metrics(facts),
        "Parity": _parity(facts["parity"]),
        "Sizes and latency": _sizes(facts["verdict"]),
        "What the zeros turned into": _layers(facts),
        "Limits": "\n".join(f"- {limit}" for limit in limits),
        "How to run it": _running(facts),
    }
    head = f"# {title or 'A ticket'}, level {facts['parity']['level']}\n\nTicket `{facts['parity']['ticket']}`."
    return "\n\n".join([head, *(f"## {name}\n\n{body}" for name, body in sections.items())]) + "\n"


def _chosen(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _others(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _metrics(facts: Mapping[str, Any]) -> str:
    parity, main = facts["parity"], _main(facts)
    rows = [["", *_METRICS.values()]]
    for name, key in (("ticket", "ticket"), (facts["main"], "measured")):
        rows.append([name, *_figures(main[key])])
    scaled = (
        f"divided by the temperature {main['temperature']:.4g}, which was fitted on validation data"
        if main["temperature"] != 1
        else "as the network was trained to give them: no temperature is in them (T = 1)"
    )
    if parity["output"] == PROBABILITIES:
        given = f"The file gives probabilities, the softmax of logits {scaled}"
    else:
        given = f"The file gives logits {scaled}; their softmax is probabilities"
    return "\n\n".join(
        [
            f"On the {parity['examples']:,} examples of the {_split(facts)} split:",
            markdown(rows),
            f"![Reliability diagram]({DIAGRAM})",
            f"{given}. The confidence is the highest of them. It is to be read as a share: of predictions "
            "made with a confidence of 0.9, nine of ten should be right. On these examples "
            f"confidence and accuracy differ by {main['measured']['ece']:.4f} on average (ECE, {parity['ece_bins']} "
            "bins). The confidence tells nothing of inputs unlike these.",
        ]
    )


def _parity(parity: Mapping[str, Any]) -> str:
    rows = [["file", "encoding", "temperature", "zeros", "largest difference of a logit"]]
    rows[0] += [f"{name}, ticket → file" for name in _METRICS.values()]
    for row in parity["files"].values():
        difference = row.get("largest_difference")
        cells = [row["file"], row["encoding"], f"{row['temperature']:.4g}", f"{row['zeros']:,}"]
        cells.append("–" if difference is None else f"{difference:.2g}")
        pairs = zip(_figures(row["ticket"]), _figures(row["measured"]), strict=True)
        rows.append([*cells, *(f"{ticket} → {file}" for ticket, file in pairs)])
    tolerance = "; ".join(f"{name}: {_shown(value)}" for name, value in parity["tolerance"].items())
    return f"{markdown(rows, FILE_WORDS)}\n\nTolerance: {tolerance}."


def _sizes(verdict: Mapping[str, Any]) -> str:
    measured = any(row["latency"] for row in verdict["files"])
    note = (
        f"\n\nOne example at a time, in microseconds, on {verdict['machine']}; “smaller” and “faster” are against the "
        "dense network, which is not in this directory."
    )
    return markdown(file_cells(verdict["files"]), FILE_WORDS) + (note if measured else "")


def _layers(facts: Mapping[str, Any]) -> str:
    rows = by_file(facts["verdict"]["layers"]).get(facts["main"])
    if not rows:
        return f"Not told for `{facts['main']}`."
    return f"In `{facts['main']}`; the other files are in `{JSON}`.\n\n{markdown(layer_cells(rows), LAYER_WORDS)}"


def _limits(facts: Mapping[str, Any]) -> list[str]:
    """What was not measured, and what the figures hang on."""
    experiment, data, verdict = facts["experiment"], facts["data"], facts["verdict"]
    noise = experiment.get("label_noise") or 0
    classes = f"one of its {data['classes']} classes" if "classes" in data else "one of its classes"
    limits = [
        f"Distribution shift was not measured: the figures hold for examples drawn as those of the {_split(facts)} "
        "split were.",
        f"Inputs of other kinds were not measured: the network gives {classes} to whatever it is shown.",
        f"Latency was measured on {verdict['machine']}; other devices were not measured."
        if any(row["latency"] for row in verdict["files"])
        else "Latency was not measured.",
        f"Training labels were made wrong on purpose (label_noise {noise:g}); how many were wrong before is not known."
        if noise
        else "Label noise was not measured: labels count as right as the data set gives them.",
        f"ECE is of {facts['parity']['ece_bins']} bins and {facts['parity']['examples']:,} examples; with others it "
        "comes out otherwise.",
    ]
    if "seed" in experiment:
        limits.append(
            f"All figures are of one run, seed {experiment['seed']}; the spread over seeds was not measured."
        )
    return limits


def _running(facts: Mapping[str, Any]) -> str:
    code, given = snippet(facts), facts["input"]
    if not code:
        return f"`{facts['main']}` runs in TensorFlow; export a `.tflite` file to run it without."
    shape = "×".join(str(size or "any") for size in given["shape"])
    values = _range(facts, ", values from {} to {}")
    return (
        f"An example has shape {shape}{values}. {given['scaling']}\n\n"
        "Without TensorFlow, in this directory, after `pip install ai-edge-litert numpy`:\n\n"
        f"```python\n{code}\n```"
    )


def _main(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(row for row in facts["parity"]["files"].values() if row["file"] == facts["main"])


def _split(facts: Mapping[str, Any]) -> str:
    return str(facts["parity"].get("split", "test"))


def _figures(metrics: Mapping[str, float]) -> list[str]:
    return [
        percent(metrics[key], 2) if key == "accuracy" else f"{metrics[key]:.4f}" for key in _METRICS
    ]


# Forms


def _pairs(values: Mapping[str, Any]) -> str:
    """A table of what is set; None and what is empty stays out."""
    rows = [
        [name, _shown(v)]
        for name, v in values.items()
        if v is not None and v not in ("", [], {}, ())
    ]
    return markdown([["", ""], *rows], [""]) if rows else "Not recorded."


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _statistics(bins: Sequence[Mapping[str, Any]]) -> BinStatistics:
    def column(name: str) -> Any:
        return np.array([math.nan if row[name] is None else row[name] for row in bins])

    counts = np.array([row["count"] for row in bins])
    return BinStatistics(
        np.arange(len(bins) + 1) / len(bins), counts, column("confidence"), column("accuracy")
    )


def _plain(value: Any) -> Any:
    """As JSON can hold it: NumPy's numbers as Python's, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The model card of an export: what the files are, how accurate and calibrated, and how to run them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.config.experiment import by_section
from lotcal_tf.deploy.report_tables import FILE_WORDS, LAYER_WORDS, by_file, file_cells, layer_cells
from lotcal_tf.formats.outputs import PROBABILITIES
from lotcal_tf.metrics.bins import BinStatistics
from lotcal_tf.metrics.reliability import bins_diagram
from lotcal_tf.tables import markdown, percent

TEXT, JSON, DIAGRAM = "model_card.md", "model_card.json", "reliability.png"

# Realised values of a run, by section; those not listed here are about the data.
_REALISED = {
    "Training": ("steps_per_epoch", "plan", "replicas"),
    "Density": ("parameters", "kernels", "prunable", "remaining_at_start"),
}
_OF_DENSITY = ("level", "density", "remaining", "prunable", "weights")
_METRICS = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier"}


def write(directory: Path, facts: Mapping[str, Any]) -> None:
    """Writes `model_card.md`, `model_card.json` and the reliability diagram beside them.

    Args:
      directory: of the export.
      facts: the content of the card. `experiment`: the fields of `experiment.json`; `data`: its
        realised values; `record`: the ticket's row of `metrics.csv`; `parity`: the content of
        `parity.json`; `sparsity_report`: `SparsityReport.as_dict()`; `reliability`: `reliability_of`
        the main file; `input`: `shape` and `dtype` of an example (of several inputs, dictionaries by
        name), `range` of its values (or None) and `scaling`, a sentence on who scales them; `main`:
        the name of the file that is shown.
    """
    from matplotlib.image import imsave

    limits = _limits(facts)
    statistics = _statistics(facts["reliability"])
    imsave(directory / DIAGRAM, bins_diagram(statistics, title=facts["main"]))
    content = {**facts, "limits": limits, "diagram": DIAGRAM, "run": snippet(facts)}
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    (directory / JSON).write_text(text + "\n", encoding="utf-8")
    (directory / TEXT).write_text(_text(facts, limits), encoding="utf-8")


def reliability_of(statistics: BinStatistics) -> list[dict[str, Any]]:
    """Bins of equal width as JSON; an empty bin has neither confidence nor accuracy."""
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
    """At most ten lines of Python that run the main file with LiteRT and NumPy only.

    They print the class and the confidence. Empty if the main file is not a `.tflite` file.
    """
    if not facts["main"].endswith(".tflite"):
        return ""
    given, note = facts["input"], f"  # your example{_range(facts, '; values {} to {}')}"
    lines = [
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
    ]
    if isinstance(given["shape"], Mapping):
        zeros = (
            f"{json.dumps(n)}: {_zeros(s, given['dtype'][n])}" for n, s in given["shape"].items()
        )
        lines += [
            f"x = {{{', '.join(zeros)}}}{note}",
            f"model = Interpreter({json.dumps(facts['main'])}).get_signature_runner()",
            "(p,) = model(**x).values()",
            "p = p[0]",
        ]
    else:
        lines += [
            f"x = {_zeros(given['shape'], given.get('dtype', 'float32'))}{note}",
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


def _zeros(shape: Sequence[int | None], dtype: str) -> str:
    """Code for one example of zeros; a dimension of any size is set to 1."""
    return f"np.zeros(({', '.join(str(size or 1) for size in (1, *shape))}), np.{dtype})"


def _range(facts: Mapping[str, Any], template: str) -> str:
    limits = facts["input"].get("range")
    return template.format(*(f"{limit:g}" for limit in limits)) if limits else ""


# Sections


def _text(facts: Mapping[str, Any], limits: Sequence[str]) -> str:
    experiment, record = facts["experiment"], facts["record"]
    title = " · ".join(str(experiment[key]) for key in ("dataset", "model") if experiment.get(key))
    data, recorded = facts["data"], by_section(experiment)
    elsewhere = [name for names in _REALISED.values() for name in names]
    realised = {section: _chosen(data, names) for section, names in _REALISED.items()}
    realised["Data"] = _others(data, elsewhere)
    recorded["Run"] |= recorded.pop("Metrics")  # settings of measuring; the section has the results
    described = {
        section: _pairs(values | realised.pop(section, {})) for section, values in recorded.items()
    }
    if not experiment:
        described["Run"] = "Not recorded."
    sections = {
        **{name: body for name, body in described.items() if body},
        "Density": _pairs(realised["Density"] | _chosen(record, _OF_DENSITY)) or "Not recorded.",
        "Metrics": _metrics(facts),
        "Parity": _parity(facts["parity"]),
        "Sizes and latency": _sizes(facts["sparsity_report"]),
        "What the zeros save": _layers(facts),
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
        rows.append([name, *_metric_cells(main[key])])
    scaled = (
        f"divided by the temperature {main['temperature']:.4g}, which was fitted on validation data"
        if main["temperature"] != 1
        else "as the network was trained, not divided by a temperature (T = 1)"
    )
    if parity["output"] == PROBABILITIES:
        given = f"The file gives probabilities, the softmax of logits {scaled}"
    else:
        given = f"The file gives logits {scaled}; their softmax gives probabilities"
    return "\n\n".join(
        [
            f"On the {parity['examples']:,} examples of the {_split(facts)} split:",
            markdown(rows),
            f"![Reliability diagram]({DIAGRAM})",
            f"{given}. The confidence is the highest probability. In a calibrated model, nine of ten "
            "predictions with a confidence of 0.9 are correct. On these examples "
            f"confidence and accuracy differ by {main['measured']['ece']:.4f} on average (ECE, {parity['ece_bins']} "
            "bins). This does not hold for inputs of other kinds.",
        ]
    )


def _parity(parity: Mapping[str, Any]) -> str:
    rows = [["file", "encoding", "temperature", "zeros", "largest difference of a logit"]]
    rows[0] += [f"{name}, ticket → file" for name in _METRICS.values()]
    for row in parity["files"].values():
        difference = row.get("largest_difference")
        cells = [row["file"], row["encoding"], f"{row['temperature']:.4g}", f"{row['zeros']:,}"]
        cells.append("–" if difference is None else f"{difference:.2g}")
        pairs = zip(_metric_cells(row["ticket"]), _metric_cells(row["measured"]), strict=True)
        rows.append([*cells, *(f"{ticket} → {file}" for ticket, file in pairs)])
    tolerance = "; ".join(
        f"{name}: {_text_of(value)}" for name, value in parity["tolerance"].items()
    )
    return f"{markdown(rows, FILE_WORDS)}\n\nTolerance: {tolerance}."


def _sizes(report: Mapping[str, Any]) -> str:
    measured = any(row["latency"] for row in report["files"])
    note = (
        f"\n\nOne example at a time, in microseconds, on {report['machine']}; “smaller” and “faster” are relative "
        "to the dense network, which is not in this directory."
    )
    return markdown(file_cells(report["files"]), FILE_WORDS) + (note if measured else "")


def _layers(facts: Mapping[str, Any]) -> str:
    rows = by_file(facts["sparsity_report"]["layers"]).get(facts["main"])
    if not rows:
        return f"Not known for `{facts['main']}`."
    return f"In `{facts['main']}`; `{JSON}` has the other files.\n\n{markdown(layer_cells(rows), LAYER_WORDS)}"


def _limits(facts: Mapping[str, Any]) -> list[str]:
    """What was not measured, and what the metrics depend on."""
    experiment, data, report = facts["experiment"], facts["data"], facts["sparsity_report"]
    noise = experiment.get("label_noise") or 0
    classes = f"one of its {data['classes']} classes" if "classes" in data else "one of its classes"
    limits = [
        f"Distribution shift was not measured: the metrics hold for data distributed like the {_split(facts)} split.",
        f"Inputs of other kinds were not measured: the network assigns {classes} to any input.",
        f"Latency was measured on {report['machine']}; other devices were not measured."
        if any(row["latency"] for row in report["files"])
        else "Latency was not measured.",
        f"Training labels were changed on purpose (label_noise {noise:g}); label noise in the data set itself "
        "was not measured."
        if noise
        else "Label noise was not measured: the labels of the data set count as correct.",
        f"The ECE depends on its {facts['parity']['ece_bins']} bins and {facts['parity']['examples']:,} examples.",
    ]
    if "seed" in experiment:
        limits.append(
            f"All metrics are from one run with seed {experiment['seed']}; the spread over seeds was not measured."
        )
    return limits


def _running(facts: Mapping[str, Any]) -> str:
    code, given = snippet(facts), facts["input"]
    if not code:
        return f"`{facts['main']}` needs TensorFlow; export a `.tflite` file to run it without."
    values = _range(facts, ", values from {} to {}")
    return (
        f"An example has shape {_shape(given['shape'])}{values}. {given['scaling']}\n\n"
        "Without TensorFlow, in this directory, after `pip install ai-edge-litert numpy`:\n\n"
        f"```python\n{code}\n```"
    )


def _shape(shape: Any) -> str:
    """The shape of an example as text, e.g. 28×28×1; of several inputs by name."""
    if isinstance(shape, Mapping):
        return ", ".join(f"{_shape(one)} for `{name}`" for name, one in shape.items())
    return "×".join(str(size or "any") for size in shape)


def _main(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(row for row in facts["parity"]["files"].values() if row["file"] == facts["main"])


def _split(facts: Mapping[str, Any]) -> str:
    return str(facts["parity"].get("split", "test"))


def _metric_cells(metrics: Mapping[str, float]) -> list[str]:
    return [
        percent(metrics[key], 2) if key == "accuracy" else f"{metrics[key]:.4f}" for key in _METRICS
    ]


# Forms


def _pairs(values: Mapping[str, Any]) -> str:
    """A table of the values that are set; None and empty values are left out."""
    rows = [
        [name, _text_of(v)]
        for name, v in values.items()
        if v is not None and v not in ("", [], {}, ())
    ]
    return markdown([["", ""], *rows], [""]) if rows else ""


def _text_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text_of(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text_of, value))
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
    """A value as JSON: NumPy numbers become Python numbers, NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The model card of an export: what the files are, how accurate and calibrated, and how to run them."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from lotcal_tf.config.experiment import by_section
from lotcal_tf.config.export_record import CARD, CARD_JSON, DIAGRAM
from lotcal_tf.config.registry import FORMATS, SOURCES
from lotcal_tf.deploy.report_tables import FILE_WORDS, LAYER_WORDS, by_file, file_cells, layer_cells
from lotcal_tf.formats.outputs import PROBABILITIES
from lotcal_tf.metrics.bins import BinStatistics
from lotcal_tf.metrics.reliability import bins_diagram
from lotcal_tf.tables import markdown, percent

_TEMPLATE = "model_card.md.j2"

# Realised values of a run, by section; those not listed here are about the data.
_REALISED = {
    "Training": ("steps_per_epoch", "plan", "threads", "replicas"),
    "Density": ("parameters", "kernels", "prunable", "remaining_at_start"),
    "Classes": ("class_names",),
}
_OF_DENSITY = ("level", "density", "remaining", "prunable", "weights")
_METRICS = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier"}


def write(directory: Path, facts: Mapping[str, Any]) -> None:
    """Writes `README.md`, `model_card.json` and the reliability diagram beside them.

    The text begins with the metadata of the Hugging Face Hub.

    Args:
      directory: of the export.
      facts: the content of the card. `experiment`: the fields of `experiment.json`; `data`: its
        realised values; `class_names`: in the order of the classes, empty if unknown; `license`: of
        the files, or None; `record`: the ticket's row of `metrics.csv`; `parity`: the content of
        `parity.json`; `sparsity_report`: `SparsityReport.as_dict()`; `reliability`: `reliability_of`
        the main file; `input`: `shape` and `dtype` of an example (of several inputs, dictionaries by
        name), `range` of its values (or None) and `scaling`, a sentence on who scales them; `main`:
        the name of the file that is shown.
    """
    from matplotlib.image import imsave

    statistics = _statistics(facts["reliability"])
    imsave(directory / DIAGRAM, bins_diagram(statistics, title=facts["main"]))
    content = {**facts, "limits": _limits(facts), "diagram": DIAGRAM, "run": snippet(facts)}
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    (directory / CARD_JSON).write_text(text + "\n", encoding="utf-8")
    places = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=places,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"markdown": markdown, "text": _text_of, "cells": _metric_cells}
    environment.globals["zip"] = zip
    card = environment.get_template(_TEMPLATE).render(**content, **_sections(content))
    (directory / CARD).write_text(card, encoding="utf-8")


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
    name = 'open("labels.txt", encoding="utf-8").read().splitlines()[p.argmax()]'
    known = bool(facts["class_names"])
    lines.append(f'print("class", {name if known else "p.argmax()"}, "confidence", p.max())')
    return "\n".join(lines)


def _zeros(shape: Sequence[int | None], dtype: str) -> str:
    """Code for one example of zeros; a dimension of any size is set to 1."""
    return f"np.zeros(({', '.join(str(size or 1) for size in (1, *shape))}), np.{dtype})"


def _range(facts: Mapping[str, Any], template: str) -> str:
    limits = facts["input"].get("range")
    return template.format(*(f"{limit:g}" for limit in limits)) if limits else ""


# Sections


def _sections(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows in addition to the facts."""
    experiment, parity, report = facts["experiment"], facts["parity"], facts["sparsity_report"]
    formats = [FORMATS[name] for name in parity["files"]]
    kinds = [row.kind for row in formats] + ["quantized" for row in formats if row.quantised]
    layers = by_file(report["layers"]).get(facts["main"])
    shape = facts["input"]["shape"]
    main = next(name for name, row in parity["files"].items() if row["file"] == facts["main"])
    return {
        "main_format": FORMATS[main],
        "title": " · ".join(str(experiment[k]) for k in ("dataset", "model") if experiment.get(k)),
        "dataset": _data_set(experiment) if parity["of_run"] else None,
        "image": not isinstance(shape, Mapping) and len(shape) == 3,
        "kinds": list(dict.fromkeys(kinds)),
        "recorded": _recorded(experiment, facts["data"]),
        "density": _pairs(
            _chosen(facts["data"], _REALISED["Density"]) | _chosen(facts["record"], _OF_DENSITY)
        ),
        "metrics": _METRICS,
        "shown": parity["files"][main],
        "source": _source(parity),
        "quantised": [row for row in parity["files"].values() if row.get("intervals")],
        "file_rows": file_cells(report["files"]),
        "words": FILE_WORDS,
        "timed": any(row["latency"] for row in report["files"]),
        "layer_rows": layer_cells(layers) if layers else [],
        "layer_words": LAYER_WORDS,
        "json": CARD_JSON,
        "shape": _shape(shape),
        "range": _range(facts, ", values from {} to {}"),
    }


def _data_set(experiment: Mapping[str, Any]) -> str | None:
    """The name of a public data set; None if `dataset` names the user's data, or a kind of files."""
    source = SOURCES.get(experiment.get("source", ""))
    name = experiment.get("dataset")
    return None if name == "own" or (source and source.from_files) else name


def _recorded(experiment: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, str]:
    """Tables of the fields of a run and their realised values, by section."""
    if not experiment:
        return {"Data": _pairs(_others(data)), "Run": "Not recorded."}
    recorded = by_section(experiment)
    recorded["Run"] |= recorded.pop("Metrics")  # settings of measuring; the section has the results
    realised = {
        "Data": _others(data),
        "Training": _chosen(data, _REALISED["Training"]),
    }
    return {name: _pairs(fields | realised.get(name, {})) for name, fields in recorded.items()}


def _chosen(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _others(data: Mapping[str, Any]) -> dict[str, Any]:
    """Realised values of the data, by the names of their rows."""
    elsewhere = [name for names in _REALISED.values() for name in names]
    # The field `classes` says which classes were kept.
    rows = {"classes": "number_of_classes"}
    return {rows.get(name, name): v for name, v in data.items() if name not in elsewhere}


def _limits(facts: Mapping[str, Any]) -> list[str]:
    """What was not measured, and what the metrics depend on."""
    experiment, data, report = facts["experiment"], facts["data"], facts["sparsity_report"]
    noise = experiment.get("label_noise") or 0
    classes = f"one of its {data['classes']} classes" if "classes" in data else "one of its classes"
    limits = [
        f"Distribution shift was not measured: the metrics hold for data distributed like {_source(facts['parity'])}.",
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


def _shape(shape: Any) -> str:
    """The shape of an example as text, e.g. 28×28×1; of several inputs by name."""
    if isinstance(shape, Mapping):
        return ", ".join(f"{_shape(one)} for `{name}`" for name, one in shape.items())
    return "×".join(str(size or "any") for size in shape)


def _source(parity: Mapping[str, Any]) -> str:
    """The data on which the files were measured, in words."""
    if parity["of_run"]:
        return f"the {parity['split']} split"
    if parity["data"] is None:
        return "the data that was passed to the export"
    return f"the {parity['split']} split of {_text_of(parity['data'])}"


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
    # Names come from files: in the page they are one line of text, never HTML.
    return " ".join(html.escape(str(value), quote=False).split())


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

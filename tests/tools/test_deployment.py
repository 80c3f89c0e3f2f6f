"""The table of exports, from hand-made model cards; ratios are to the first row of each."""

import json
import re

import pytest


@pytest.fixture(scope="module")
def tool(load):
    return load("deployment")


def latency(one, two):
    return {"1": {"median_us": one, "p99_us": 9.0}, "2": {"median_us": two, "p99_us": 9.0}}


@pytest.mark.parametrize("measured", [True, False])
def test_a_row_a_file_with_ratios_against_the_dense_network(tool, tmp_path, measured):
    files = [
        {"file": "dense network", "encoding": "dense", "bytes": 8000, "gzipped": 7000},
        {"file": "masked network", "encoding": "dense", "bytes": 8000, "gzipped": 900},
        {"file": "ticket.tflite", "encoding": "compact", "bytes": 1000, "gzipped": 500},
    ]
    times = [latency(30.0, 20.0), latency(31.0, 21.0), latency(10.0, 8.0)]
    for row, time in zip(files, times, strict=True):
        row["latency"] = time if measured else {}
    compared = {
        "file": "ticket.tflite",
        "ticket": {"accuracy": 0.9, "ece": 0.01},
        "measured": {"accuracy": 0.895, "ece": 0.0125},
    }
    card = {
        "sparsity_report": {"files": files},
        "parity": {"files": {"float32": compared}},
        "record": {"density": 0.125},
    }
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    head, rule, dense, ticket = re.sub(" +", " ", tool.table([tmp_path])).splitlines()
    assert head.count("|") == rule.count("|") == dense.count("|") == ticket.count("|")
    slow, fast = ("30.0 | 1.00 × | 20.0", "10.0 | 3.00 × | 8.0") if measured else ["– | – | –"] * 2
    assert dense == f"| 100 % | dense network | dense | 8,000 | 1.0 × | 7,000 | {slow} | – | – |"
    assert ticket == (
        f"| 12.5 % | ticket.tflite | compact | 1,000 | 8.0 × | 500 | {fast} | 90.00 → 89.50 | 0.0100 → 0.0125 |"
    )

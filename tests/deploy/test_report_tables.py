"""The tables of a report, compared with rows written by hand."""

import dataclasses

from lotcal_tf.deploy.latency import Latency
from lotcal_tf.deploy.report_tables import by_file, file_cells, layer_cells, report_text
from lotcal_tf.deploy.sparsity_report import DENSE, FileRow, LayerRow, SparsityReport

REPORT = SparsityReport(
    layers=[
        LayerRow("a.tflite", "hidden", (4, 6), (4, 6), 24, 9, "dense", "XNNPACK, dense", "dense"),
        LayerRow("b.tflite", "hidden", (4, 6), (4, 4), 16, 0, "dense", "XNNPACK, dense", ""),
    ],
    files=[
        FileRow(DENSE, "dense", 3000, 2500, {1: Latency(20, 30, 100), 2: Latency(15, 22, 9)}),
        FileRow("a.tflite", "sparse", 750, 1234, {1: Latency(5.04, 7.5, 400)}),
        FileRow("saved_model", "dense", 6000, 5000, {}, "TensorFlow"),
    ],
    machine="a machine, 2 processors",
).as_dict()


def test_each_file_has_its_table_of_layers():
    found = by_file(REPORT["layers"])
    assert list(found) == ["a.tflite", "b.tflite"]
    head, row = layer_cells(found["a.tflite"])
    assert head == ["layer", "dense", "compact", "zeros", "stored", "executed", "why not faster"]
    assert row == ["hidden", "4×6", "4×6", "37.5 %", "dense", "XNNPACK, dense", "dense"]
    assert layer_cells(found["b.tflite"])[1][1:4] == ["4×6", "4×4", "0.0 %"]


def test_files_of_litert_are_multiples_of_the_dense_network():
    head, dense, sparse, saved = file_cells(REPORT["files"])
    times = ["µs, 1 thread (p99)", "faster", "µs, 2 threads (p99)", "faster"]
    assert head == ["file", "encoding", "bytes", "smaller", "gzipped", *times]
    size = [DENSE, "dense", "3,000", "1.00 ×", "2,500"]
    assert dense == [*size, "20.0 (30.0)", "1.00 ×", "15.0 (22.0)", "1.00 ×"]
    # 3000 / 750; 20 / 5.04.
    size = ["a.tflite", "sparse", "750", "4.00 ×", "1,234"]
    assert sparse == [*size, "5.0 (7.5)", "3.97 ×", "–", "–"]
    assert saved == ["saved_model", "dense", "6,000", "–", "5,000", "–", "–", "–", "–"]


def test_without_the_dense_network_there_are_no_multiples():
    (_, row) = file_cells([REPORT["files"][1]])
    assert (row[3], row[6]) == ("–", "–")


def test_as_text_every_table_stands_under_what_it_is_of():
    first, second, files = report_text(REPORT).split("\n\n")
    assert first.splitlines()[0] == "a.tflite" and second.splitlines()[0] == "b.tflite"
    lines = files.splitlines()
    assert lines[0] == "latency of one example on a machine, 2 processors"
    assert [line.split("  ")[0] for line in lines[2:]] == [DENSE, "a.tflite", "saved_model"]


def test_no_latency_is_announced_where_none_was_measured():
    files = [{**row, "latency": {}} for row in REPORT["files"]]
    *_, last = report_text({**REPORT, "files": files}).split("\n\n")
    assert last.splitlines()[0] == "files"


def test_the_kernels_of_one_layer_are_told_apart():
    rest = ((4, 6), (4, 6), 24, 9, "dense", "dense kernel", "dense")
    rows = [
        LayerRow("a.tflite", "lstm", *rest),
        LayerRow("a.tflite", "lstm", *rest, weight="recurrent_kernel"),
        LayerRow("a.tflite", "logits", *rest),
    ]
    _, *cells = layer_cells([dataclasses.asdict(row) for row in rows])
    assert [row[0] for row in cells] == ["lstm/kernel", "lstm/recurrent_kernel", "logits"]

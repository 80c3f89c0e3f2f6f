"""docs/tour.ipynb runs from top to bottom and shows what its text says."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import tensorflow as tf

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tour.ipynb"
CELLS = [c for c in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]


def test_the_stored_outputs_are_small_and_clean():
    assert len(CELLS) == 10
    assert NOTEBOOK.stat().st_size < 300_000
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    text = "".join("".join(output.get("text", [])) for output in outputs)
    assert "selected" in text
    assert not {"INFO", "WARNING", "/tmp"} & set(text.replace(":", " ").split())
    assert all(output.get("name") != "stderr" for output in outputs)


@pytest.mark.full
def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    plt.switch_backend("agg")
    logger = tf.get_logger()
    level, names = logger.level, {}
    try:
        for number, cell in enumerate(CELLS):
            code = compile("".join(cell["source"]), f"docs/tour.ipynb, code cell {number}", "exec")
            exec(code, names)
    finally:
        logger.setLevel(level)
        plt.close("all")

    run, exported = names["run"], names["exported"]
    assert run.directory == Path("runs/tour") and run.directory.is_dir()
    assert set(exported.files) == {"float32", "int8"}
    assert run.selected.record["test_accuracy"] > 0.95
    # What the text says of the sparsest ticket, of blank pixels and of the file.
    sparsest = names["sparsest"].record
    assert sparsest["test_overconfidence"] < 0 and sparsest["temperature"] < 1
    assert sparsest["test_ece_scaled"] < sparsest["test_ece"]
    assert names["left"][names["blank"]].mean() < 0.7 * names["left"].mean()
    assert names["same"] > 0.98
    assert "ticket_int8.tflite" in capsys.readouterr().out

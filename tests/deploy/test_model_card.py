"""The model card says what the facts say, and its ten lines run where there is no TensorFlow."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.config.fields import SECTIONS
from lotcal_tf.config.registry import FORMATS
from lotcal_tf.deploy import model_card
from lotcal_tf.deploy.latency import Latency
from lotcal_tf.deploy.sparsity_report import DENSE, FileRow, LayerRow, SparsityReport
from lotcal_tf.formats.tflite import Float32
from lotcal_tf.metrics import prediction_bins
from lotcal_tf.metrics.reliability import reliability_diagram

pytestmark = pytest.mark.usefixtures("diagrams")

EXPERIMENT = Experiment.of(
    dataset="blobs", seed=31, rewind="epoch:2", lr=0.003, calib="vwcc", passes=3
)
LABELS = np.array([0, 1, 1, 2, 0, 2])
LOGITS = np.array([[3, 1, 0], [0, 2, 1], [2, 1, 0], [0, 1, 3], [1, 0, 0], [0, 1, 1.5]])


def metrics(shift):
    return {
        "accuracy": 0.9812 + shift,
        "ece": 0.0077 + shift,
        "nll": 0.0535 + shift,
        "brier": 0.0256 + shift,
    }


@pytest.fixture
def facts():
    layers = [
        LayerRow("ticket_float32.tflite", "hidden", (8, 6), (8, 4), 32, 8, "dense", "dense kernel", "for 1|2 reasons"),
        LayerRow("ticket_int8.tflite", "hidden", (8, 6), (8, 4), 48, 12, "sparse", "sparse kernel", ""),
    ]  # fmt: skip
    files = [
        FileRow(DENSE, "dense", 4000, 3600, {1: Latency(30.0, 41.0, 500)}),
        FileRow("ticket_float32.tflite", "compact", 1600, 1500, {1: Latency(12.0, 17.5, 700)}),
    ]  # fmt: skip
    file = {"temperature": 2.5, "bytes": 1600, "zeros": 14, "ticket": metrics(0)}
    return {
        "experiment": EXPERIMENT.as_dict(),
        "data": {
            "examples": {"train": 1237, "val": 200, "test": 360},
            "input_shape": [4, 2],
            "classes": 3,
            "prunable": 66,
            "plan": "xla",
        },
        "class_names": [],
        "license": None,
        "record": {"level": 2, "density": 0.512, "remaining": 34, "prunable": 66, "weights": 34},
        "parity": {
            "ticket": "abc123",
            "level": 2,
            "output": "logits",
            "temperature": 2.5,
            "data": "blobs",
            "of_run": True,
            "split": "test",
            "examples": 360,
            "ece_bins": 15,
            "interval_level": 0.99,
            "tolerance": {"float": {"accuracy": 0.0001}, "quantised": {"ece": 0.01}},
            "files": {
                "float32": {
                    "file": "ticket_float32.tflite",
                    "encoding": "compact",
                    "largest_difference": 3.1e-6,
                    "measured": metrics(0.001),
                    "intervals": {},
                    **file,
                },
                "int8": {
                    "file": "ticket_int8.tflite",
                    "encoding": "sparse",
                    "largest_difference": None,
                    "measured": metrics(0.002),
                    "intervals": {
                        name: {"difference": 0.002, "low": -0.0123, "high": 0.0163}
                        for name in metrics(0)
                    },
                    **file,
                },
            },
        },
        "sparsity_report": SparsityReport(layers, files, "a small computer").as_dict(),
        "reliability": model_card.reliability_of(prediction_bins(LABELS, LOGITS, bins=5)),
        "input": {
            "shape": [4, 2],
            "range": [0.0, 255.0],
            "scaling": "The file scales them itself.",
        },
        "main": "ticket_float32.tflite",
    }


@pytest.fixture
def written(facts, tmp_path):
    """written() → the text of the card of the facts, which a test may change before."""

    def write():
        model_card.write(tmp_path, facts)
        return (tmp_path / "README.md").read_text()

    return write


def section(text, name):
    return text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_sections_in_their_order(written):
    assert re.findall(r"^## (.*)$", written(), re.MULTILINE) == [
        *[name for name in SECTIONS if name != "Metrics"],
        "Density",
        "Metrics",
        "Parity",
        "Sizes and latency",
        "What the zeros save",
        "Limits",
        "How to run it",
    ]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("Data", ["| dataset | blobs |", "| examples | train 1237, val 200, test 360 |"]),
        ("Training", ["| lr | 0.003 |", "| plan | xla |"]),
        ("Calibration", ["| calib | vwcc |", "| passes | 3 |", "| dropout_rate | 0.1 |"]),
        ("Pruning", ["| rewind | epoch:2 |", "| criterion | magnitude |"]),
        ("Run", ["| seed | 31 |"]),
        ("Density", ["| density | 0.512 |", "| prunable | 66 |"]),
        ("Metrics", ["| ticket_float32.tflite | 98.22 % | 0.0087 | 0.0545 | 0.0266 |"]),
        ("Parity", ["| 3.1e-06 | 98.12 % → 98.22 % | 0.0077 → 0.0087 |", "| 14 | – | 98.12 % →"]),
        ("Parity", ["their 99 % intervals", "| +0.0020 (-0.0123 to +0.0163) | +0.0020 (-0.0123"]),
        ("Sizes and latency", ["| 1,600 | 2.50 × | 1,500 | 12.0 (17.5) | 2.50 × |"]),
        ("What the zeros save", ["| hidden | 8×6 | 8×4 | 25.0 % | dense | dense kernel |"]),
    ],
)
def test_each_section_shows_its_facts(written, name, rows):
    found = section(written(), name)
    for row in rows:
        assert row in re.sub(" +", " ", found)
    for block in found.split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line[:1] == "|"]
        assert len({line.count("|") for line in lines}) <= 1, "rows of different numbers of cells"


def test_the_card_lists_each_field_that_applies_and_no_other(written):
    text = re.sub(" +", " ", written().partition("\n## Density\n")[0])
    shown = re.findall(r"^\| (\w+) \| ", text, re.MULTILINE)
    realised = {"plan"}  # what the field came to
    shown = [name for name in shown if name in FIELDS.keys() - realised]
    assert len(set(shown)) == len(shown)
    result_depends_on = {n for n, f in FIELDS.items() if f.metadata["identity"]}
    absent = {name for name in FIELDS if name not in shown}
    # What is empty has nothing to say; what depends on another field's value means nothing here.
    empty = {n for n in FIELDS if getattr(EXPERIMENT, n) in (None, "", ())}
    void = {"momentum", "nesterov", "lr_drop_factor", "control", "noise_kind", "count"}
    void |= {"label_column", "color_mode"}
    void |= {"nu", "dimensions"}
    assert absent == (set(FIELDS) - result_depends_on) | empty | void


def test_the_classes_that_were_kept_are_listed_beside_their_number(written, facts):
    facts["experiment"]["classes"] = [3, 5, 1]
    found = re.sub(" +", " ", section(written(), "Data"))
    assert "| classes | 3, 5, 1 |" in found
    assert f"| number_of_classes | {facts['data']['classes']} |" in found


def test_confidence_is_explained_by_temperature_and_error(written, facts):
    found = section(written(), "Metrics")
    assert "gives logits divided by the temperature 2.5, which was fitted on validation" in found
    assert "differ by 0.0087 on average (ECE, 15 bins)" in found
    facts["parity"]["files"]["float32"]["temperature"] = 1.0
    facts["parity"]["output"] = "probabilities"
    found = section(written(), "Metrics")
    assert "gives probabilities, the softmax of logits as the network was trained" in found
    assert "temperature 1" not in found


def test_limits_are_read_from_the_facts(written, facts):
    found = section(written(), "Limits")
    for piece in (
        "Distribution shift was not measured",
        "one of its 3 classes",
        "on a small computer; other devices were not measured",
        "Label noise was not measured",
        "one run with seed 31",
        "15 bins and 360 examples",
    ):
        assert piece in found
    facts["experiment"]["label_noise"] = 0.2
    report = facts["sparsity_report"]
    report["files"] = [row | {"latency": {}} for row in report["files"]]
    found = section(written(), "Limits")
    assert "label_noise 0.2" in found and "Label noise was not measured" not in found
    assert "Latency was not measured." in found and "small computer" not in found


def test_the_diagram_is_of_the_bins(written, tmp_path):
    assert "![Reliability diagram](reliability.png)" in written()
    image = np.round(255 * imread(tmp_path / "reliability.png")[..., :3]).astype("uint8")
    wanted = reliability_diagram(LABELS, LOGITS, bins=5, title="ticket_float32.tflite")
    np.testing.assert_array_equal(image, wanted)


def test_an_empty_bin_has_no_values():
    bins = model_card.reliability_of(prediction_bins(LABELS, LOGITS, bins=5))
    assert [row["count"] for row in bins] == [0, 0, 2, 2, 2]
    assert bins[0] == {"confidence": None, "accuracy": None, "count": 0}
    # Softmax of (1, 0, 0) and (0, 1, 1.5); both right.
    two = np.exp(1) / (np.exp(1) + 2), 1 / (np.exp(-1.5) + np.exp(-0.5) + 1)
    assert bins[2] == {"confidence": pytest.approx(sum(two) / 2), "accuracy": 1.0, "count": 2}


def test_the_json_holds_the_facts(written, facts, tmp_path):
    facts["record"]["val_nll"] = float("nan")
    facts["record"]["seconds"] = np.float32(1.5)
    written()
    found = json.loads((tmp_path / "model_card.json").read_text())
    assert found["record"]["val_nll"] is None and found["record"]["seconds"] == 1.5
    for name in ("experiment", "data", "parity", "sparsity_report", "reliability", "input", "main"):
        assert found[name] == json.loads(json.dumps(facts[name])), name
    assert len(found["limits"]) == section(written(), "Limits").count("\n- ")
    assert found["run"] in section(written(), "How to run it")


def test_a_ticket_of_no_known_run_still_has_its_card(written, facts):
    facts |= {"experiment": {}, "data": {}}
    facts["input"] |= {"shape": [None, 2], "range": None}
    facts["parity"]["split"] = "val"
    text = written()
    assert "\n---\n\n# A ticket, level 2\n" in text and "datasets:" not in text
    assert section(text, "Run").strip() == "Not recorded."
    assert not section(text, "Data")
    assert "one of its classes to any input" in text and "seed" not in section(text, "Limits")
    assert "360 examples of the val split" in text and "test split" not in text
    assert "shape any×2. The file" in text
    assert "x = np.zeros((1, 1, 2), np.float32)  # your example\n" in text


def test_without_a_tflite_file_no_lines_are_promised(written, facts):
    facts["main"] = "saved_model"
    facts["parity"]["files"] = {
        "saved_model": facts["parity"]["files"]["float32"] | {"file": "saved_model"}
    }
    found = section(written(), "How to run it")
    assert "```" not in found and "needs TensorFlow" in found


# --- metadata ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[4, 2], [8, 8, 3]])
def test_the_hub_reads_the_metadata(written, facts, shape):
    ModelCard = pytest.importorskip("huggingface_hub").ModelCard
    facts["license"], facts["input"]["shape"] = "apache-2.0", shape
    data = ModelCard(written()).data
    assert (data.library_name, data.license, data.datasets) == ("tflite", "apache-2.0", ["blobs"])
    assert {"pruning", "calibration", "tflite", "quantized"} <= set(data.tags)
    assert data.metrics == ["accuracy", "ece", "nll", "brier"]
    if len(shape) == 2:  # The Hub knows no kind of task for it.
        assert data.pipeline_tag is None and data.eval_results is None
        return
    assert data.pipeline_tag == "image-classification"
    results = {one.metric_type: one.metric_value for one in data.eval_results}
    assert results == {name: pytest.approx(metrics(0.001)[name], abs=5e-5) for name in metrics(0)}
    assert {(one.dataset_name, one.dataset_split) for one in data.eval_results} == {
        ("blobs", "test")
    }


@pytest.mark.parametrize("name", ["rings", None])
def test_metrics_on_other_data_are_not_credited_to_the_data_of_the_run(written, facts, name):
    ModelCard = pytest.importorskip("huggingface_hub").ModelCard
    facts["input"]["shape"] = [8, 8, 3]
    assert ModelCard(written()).data.eval_results is not None
    facts["parity"] |= {"of_run": False, "data": name}
    text = written()
    data = ModelCard(text).data
    assert data.datasets is None and data.eval_results is None
    # The data of its training is still that of the run.
    assert re.search(r"\| dataset +\| blobs", section(text, "Data"))
    measured = [section(text, "Metrics"), section(text, "Limits")]
    assert all((name or "passed to the export") in one for one in measured)


@pytest.mark.parametrize(
    ("name", "library", "needs"),
    [
        ("keras", "tf-keras", "TensorFlow"),
        ("keras3", "keras", "Keras 3"),
        ("saved_model", None, "TensorFlow"),
    ],
)
def test_the_library_is_one_that_loads_the_file(written, facts, name, library, needs):
    ModelCard = pytest.importorskip("huggingface_hub").ModelCard
    file = facts["main"] = FORMATS[name].file
    facts["parity"]["files"] = {name: facts["parity"]["files"]["float32"] | {"file": file}}
    text = written()
    assert ModelCard(text).data.library_name == library
    assert f"`{file}` needs {needs};" in section(text, "How to run it")


def test_what_is_unknown_is_not_in_the_metadata(written, facts):
    ModelCard = pytest.importorskip("huggingface_hub").ModelCard
    facts["experiment"] = facts["experiment"] | {"dataset": "own"}
    facts["parity"]["files"] = {"keras": facts["parity"]["files"]["float32"] | {"file": "t.keras"}}
    facts["main"], facts["input"]["shape"] = "t.keras", [8, 8, 3]
    data = ModelCard(written()).data
    assert (data.library_name, data.license, data.datasets) == ("tf-keras", None, None)
    assert "quantized" not in data.tags and data.eval_results is None


# --- run without TensorFlow ----------------------------------------------------------------------

ALONE = """
import sys
sys.path.insert(0, {packages!r})
try:
    import tensorflow
except ImportError:
    pass
else:
    raise SystemExit("TensorFlow is here")
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A directory that holds LiteRT and NumPy, and nothing else."""
    import ai_edge_litert

    place = tmp_path_factory.mktemp("packages")
    site = Path(ai_edge_litert.__file__).parents[1]
    for name in ("ai_edge_litert", "numpy", "numpy.libs"):
        if (site / name).exists():  # Not every system's NumPy brings libraries beside it.
            (place / name).symlink_to(site / name)
    return place


def lines_of(text):
    return re.search(r"```python\n(.*?)\n```", section(text, "How to run it"), re.DOTALL)[1]


def test_the_name_of_the_class_is_printed_where_it_is_known(
    written, facts, ticket, packages, tmp_path
):
    Float32().write(ticket.model(), tmp_path / "ticket_float32.tflite")
    facts["class_names"] = ["ein Hund", "Kätzchen", "Maus"]
    (tmp_path / "labels.txt").write_text("ein Hund\nKätzchen\nMaus\n", "utf-8")
    text = written()
    assert "ein Hund, Kätzchen, Maus" in section(text, "Classes")
    printed = printed_alone(lines_of(text), packages, tmp_path)
    best = ticket.model()(np.zeros((1, 4, 2), np.float32)).numpy().argmax()
    assert printed.startswith(f"class {facts['class_names'][best]} confidence 0.")


def printed_alone(code, packages, directory):
    # -I and -S: no site-packages, no variables, no working directory.
    script = ALONE.format(packages=str(packages)) + code
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        cwd=directory, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_alone(code, packages, directory):
    name, kind, word, confidence = printed_alone(code, packages, directory).split()
    assert (name, word) == ("class", "confidence")
    return int(kind), float(confidence)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_its_ten_lines_run_with_litert_and_numpy_alone(
    written, facts, ticket, packages, tmp_path, output
):
    model = ticket.model()
    if output == "probabilities":
        model = keras.Model(model.inputs, keras.layers.Softmax(name=output)(model.output))
    Float32().write(model, tmp_path / "ticket_float32.tflite")
    facts["parity"]["output"] = output
    code = lines_of(written())
    assert len(code.splitlines()) <= 10

    def expected(example):
        found = ticket.model()(example).numpy()[0].astype("float64")
        probabilities = np.exp(found) / np.exp(found).sum()
        return found.argmax(), pytest.approx(probabilities.max(), rel=1e-5)

    zeros = np.zeros((1, 4, 2), np.float32)
    assert run_alone(code, packages, tmp_path) == expected(zeros)
    # And with another example in its place.
    mine = code.replace("np.zeros((1, 4, 2), np.float32)", "np.full((1, 4, 2), 1.5, np.float32)")
    assert mine != code
    assert run_alone(mine, packages, tmp_path) == expected(zeros + 1.5)

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf.compat import keras, tfmot

ROOT = Path(__file__).resolve().parents[1]

# The order that broke TFP: tf.keras touched first. Our import comes before and settles it.
ASK = """
from lotcal_tf.compat import keras
import tensorflow as tf
import json, os
same = tf.keras.Model is keras.Model
import tensorflow_probability as tfp
layer = tfp.layers.DenseFlipout(2)
print(json.dumps({"same": same, "tfp": isinstance(layer, keras.layers.Layer),
                  "log": os.environ["TF_CPP_MIN_LOG_LEVEL"]}))
"""


@pytest.fixture(scope="module")
def answer():
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL")
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.full
def test_keras_is_the_legacy_one():
    assert keras.__name__.split(".")[0] == "tf_keras"
    assert keras.__version__.startswith("2.")


@pytest.mark.full
def test_one_keras_for_tensorflow_and_tfp_with_no_variable_set(answer):
    assert answer["same"]
    assert answer["tfp"]


@pytest.mark.full
def test_notices_are_off_by_default(answer):
    assert answer["log"] == "2"


def test_tfmot_takes_our_models():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model)
    assert isinstance(pruned, keras.Model)
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    inputs = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(stripped(inputs), model(inputs))

"""Changes made inside a file: packing changes nothing, and a temperature divides just the logits."""

import numpy as np
import pytest

from lotcal_tf.config import registry
from lotcal_tf.formats import tflite
from lotcal_tf.formats.format import Material
from lotcal_tf.formats.tflite_file import flatbuffer


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8"])
def test_logits_are_divided(ticket, inputs, tmp_path, name):
    path = tmp_path / "a.tflite"
    material = Material(inputs, np.zeros(len(inputs), int))
    registry.FORMATS[name].load()(ticket.model(), path, material=material)
    before, whole = tflite.Runner(path)(inputs), path.read_bytes()
    path.write_bytes(flatbuffer.pack(flatbuffer.unpack(whole)))
    np.testing.assert_array_equal(tflite.Runner(path)(inputs), before)
    path.write_bytes(flatbuffer.divide_logits(whole, 2.0))
    # A power of 2 changes no digit.
    np.testing.assert_array_equal(tflite.Runner(path)(inputs), before / 2)
    step = flatbuffer.logit_step(whole)
    assert (step > 0) == (name == "int8")
    assert flatbuffer.logit_step(path.read_bytes()) == step / 2

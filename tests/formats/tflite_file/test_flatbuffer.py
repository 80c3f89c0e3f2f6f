"""Packing a flatbuffer changes nothing. Division of logits is tested by the contract of formats."""

import numpy as np

from lotcal_tf.formats.format import Material
from lotcal_tf.formats.tflite import Int8, TFLiteRunner
from lotcal_tf.formats.tflite_file import flatbuffer


def test_packing_changes_nothing(ticket, inputs, tmp_path):
    path = tmp_path / "a.tflite"
    Int8().write(ticket.model(), path, Material(inputs, np.zeros(len(inputs), int)))
    before, content = TFLiteRunner(path)(inputs), path.read_bytes()
    path.write_bytes(flatbuffer.pack(flatbuffer.unpack(content)))
    np.testing.assert_array_equal(TFLiteRunner(path)(inputs), before)

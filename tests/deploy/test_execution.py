"""How kernels are executed, rule by rule."""

import dataclasses
import re

import numpy as np
import pytest

from lotcal_tf.deploy.execution import execution, litert_execution
from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.formats.tflite_file.operators import Graph, KernelUse

POINT = KernelUse("CONV_2D", (32, 1, 1, 16), True, True, (), True)
SPARSE_READY = Graph(("CONV_2D", "CONV_2D", "MEAN"), {}, True)


def said(zeros=90, graph=SPARSE_READY, **changes):
    return litert_execution(dataclasses.replace(POINT, **changes), zeros, 100, graph)


def test_a_dense_kernel_skips_nothing():
    assert said(sparse=False, densified=False) == (
        "dense kernel",
        "stored dense: a dense kernel multiplies zeros like other values",
    )


def test_a_sparse_kernel_skips_blocks():
    executed, why = said(operator="FULLY_CONNECTED", shape=(8, 16), densified=False, block=(1, 4))
    assert executed == "sparse kernel, blocks 1×4"
    assert why == "a 1×4 block is skipped only if all its values are zero"
    assert said(operator="FULLY_CONNECTED", densified=False) == ("sparse kernel", "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"operator": "FULLY_CONNECTED", "shape": (8, 16)}, "not stored in blocks"),
        ({"shape": (32, 3, 3, 16)}, "no sparse kernel for 3×3 convolutions"),
        ({"operator": "DEPTHWISE_CONV_2D"}, "no sparse kernel for depthwise convolutions"),
        ({"operator": "TRANSPOSE_CONV"}, "no sparse kernel for this operator"),
        ({"floating": False}, "needs floats$"),
        ({"zeros": 66}, "needs 2/3 zeros$"),
        ({"graph": Graph(("MEAN",), {}, False)}, "needs a 3×3 stride-2 convolution of 3 channels"),
        ({"graph": Graph(("CONV_2D",), {}, True)}, "needs a spatial mean after it$"),
    ],
)
def test_an_unpacked_kernel_is_dense_for_a_reason(changes, reason):
    executed, why = said(**changes)
    assert executed == "DENSIFY, then dense kernel"
    assert re.search(reason, why), why


def test_what_xnnpack_may_take_for_sparse_is_left_open():
    executed, why = said(zeros=67)
    assert executed == "DENSIFY, then dense kernel or XNNPACK's sparse one"
    assert "XNNPACK chooses" in why


def test_other_runtimes_are_named():
    dense = StoredTensor.of("hidden/kernel", np.array([[1.0, 0.0]]))
    executed, why = execution(dense, "TensorFlow", None)
    assert executed == "dense kernel (TensorFlow)" and "multiplies zeros" in why
    executed, _ = execution(dataclasses.replace(dense, sparse=True), "another", None)
    assert executed == "unknown (another)"
    full = StoredTensor.of("hidden/kernel", np.ones((2, 2)))
    assert execution(full, "TensorFlow", None)[1] == "it has no zeros"

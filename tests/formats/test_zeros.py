"""Kernels found in files, and their zeros: tensors made by hand, so that each rule stands alone.

Files that converters write are in test_layers and test_contract.
"""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.errors import ExportMismatch
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.pruning import masking

layers = keras.layers


def model_of(*stack, shape=(4,)):
    """A sequential model whose kernels have different values; about half of them are 0."""
    model = keras.Sequential([keras.Input(shape), *stack], name="net")
    draw = np.random.default_rng(1)
    values = masking.values(model)
    for path, value in values.items():
        if path in masking.kernels(model):
            kept = draw.permutation(value.size).reshape(value.shape) < value.size // 2
            values[path] = (draw.uniform(1, 2, value.shape) * kept).astype("float32")
    masking.assign(model, values)
    return model


def stored(model, **renamed):
    """The kernels of a model as tensors of a file; `renamed`: other names by layer."""
    found = []
    for path, value in masking.kernels(model).items():
        layer, _, kernel = path.rpartition("/")
        found.append(StoredTensor.of(f"{renamed.get(layer, layer)}/{kernel}", value))
    return found


def with_nonzero(tensor, nonzero):
    """The tensor with nonzero values at other places."""
    return StoredTensor.of(tensor.name, nonzero.astype("float32"))


@pytest.mark.parametrize("first", [0, 1])
def test_two_kernels_of_one_layer_are_told_apart_by_their_zeros(first):
    """Both are 4 x 12, in either order, and without names."""
    model = model_of(layers.LSTM(4, name="lstm"), shape=(3, 4))
    tensors = stored(model)[:: (1, -1)[first]]
    found = zeros.match(tensors, model)
    assert found == {"lstm/kernel": tensors[first], "lstm/recurrent_kernel": tensors[1 - first]}
    zeros.check("a", tensors, model)


def test_of_two_tensors_the_one_that_loses_no_zero_is_the_kernel():
    """Quantisation adds zeros, and loses none; of two that lose none, the one with fewer is it."""
    model = model_of(layers.Dense(4, name="a"), layers.Flatten())
    (kept,) = (value != 0 for value in masking.kernels(model).values())
    rounded, emptier, other = kept.copy(), kept.copy(), kept.copy()
    nonzero = list(zip(*np.nonzero(kept), strict=True))
    for place in nonzero[:3]:
        rounded[place] = emptier[place] = False
    emptier[nonzero[3]] = False
    other[tuple(index[0] for index in np.nonzero(~kept))] = True
    tensors = [
        StoredTensor.of(f"a/{number}", values.astype("float32"))
        for number, values in enumerate((emptier, rounded, other))
    ]
    for order in (slice(None), slice(None, None, -1)):
        assert zeros.match(tensors[order], model) == {"a/kernel": tensors[1]}


def test_the_longest_path_owns_a_name():
    names = ["block", "block/dense", "outer/dense_1", "den"]
    assert zeros.owner("block/dense/MatMul", names) == "block/dense"
    assert zeros.owner("block/other", names) == "block"
    assert zeros.owner("outer_dense_1/MatMul", names) == "outer/dense_1"
    assert zeros.owner("dense", names) == ""


def test_kernels_are_found_in_other_orders_of_axes():
    """Transposed convolutions swap the last two axes, tables of embeddings the first and the last."""
    model = model_of(layers.Conv1DTranspose(3, 2, name="t"), layers.Flatten(), shape=(4, 5))
    (tensor,) = stored(model)
    (value,) = masking.kernels(model).values()
    zeros.check("a", [with_nonzero(tensor, np.swapaxes(value, -1, -2) != 0)], model)
    table = model_of(layers.Embedding(5, 3, name="e"), layers.Flatten(), shape=(4,))
    (tensor,) = stored(table)
    (value,) = masking.kernels(table).values()
    zeros.check("a", [with_nonzero(tensor, np.moveaxis(value, 0, -1) != 0)], table)
    cube = model_of(layers.EinsumDense("ab,bcd->acd", (2, 3), name="c"), layers.Flatten())
    (tensor,) = stored(cube)
    (value,) = masking.kernels(cube).values()
    zeros.check("a", [with_nonzero(tensor, np.moveaxis(value, 0, -1) != 0)], cube)
    with pytest.raises(ExportMismatch):
        zeros.check("a", [with_nonzero(tensor, np.flip(value, 0) != 0)], cube)


def test_a_lost_zero_is_named_with_its_kernel_and_an_added_one_is_none():
    model = model_of(layers.Dense(6, name="a"), layers.Dense(3, name="b"))
    tensors = stored(model)
    fewer = tensors[0].nonzero.copy()
    fewer[tuple(index[0] for index in np.nonzero(fewer))] = False
    zeros.check("x", [with_nonzero(tensors[0], fewer), tensors[1]], model)
    more = tensors[0].nonzero.copy()
    for place in list(zip(*np.nonzero(~more), strict=True))[:2]:
        more[place] = True
    with pytest.raises(ExportMismatch, match=r"^x: 2 weight\(s\) of a/kernel "):
        zeros.check("x", [with_nonzero(tensors[0], more), tensors[1]], model)


def test_names_do_not_matter_where_sizes_and_zeros_fit():
    model = model_of(layers.Dense(6, name="a"), layers.Dense(3, name="b"))
    tensors = stored(model, a="x", b="y")
    assert zeros.match(tensors, model) == dict(zip(masking.kernels(model), tensors, strict=True))


def test_kernels_that_are_split_are_compared_by_the_number_of_values():
    """Two halves of one kernel: neither is found, and together they may have as many values."""
    model = model_of(layers.Dense(6, name="a"), layers.Dense(3, name="b"))
    whole, last = stored(model)
    halves = [
        StoredTensor.of(f"half_{side}", part.astype("float32"))
        for side, part in enumerate(np.split(whole.nonzero, 2))
    ]
    zeros.check("x", [*halves, last], model)
    halves[0] = StoredTensor.of("half_0", np.ones((2, 6), "float32"))
    lost = int((~np.split(whole.nonzero, 2)[0]).sum())
    with pytest.raises(ExportMismatch, match=rf"^x: {lost} weight\(s\) are 0"):
        zeros.check("x", [*halves, last], model)
    # Where every kernel is found, further constants are no kernels.
    zeros.check("x", [whole, last, StoredTensor.of("constant", np.ones((9, 9), "float32"))], model)

"""Contract of every registered model: its ticket is stored, read and exported."""

import contextlib

import numpy as np
import pytest

from lotcal_tf.config import registry
from lotcal_tf.config.arguments import ExportArguments
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.export import export
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.ticket import Ticket, architecture_of, wrap_for_training
from lotcal_tf.models.build import build_model
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.rewind import masked_start

SHAPE, CLASSES = (16, 16, 3), 4
INPUTS = np.random.default_rng(0).integers(0, 256, size=(9, *SHAPE)).astype("float32")


# Converting deep networks takes long; `resnet8_4` and the formats' own tests have the same parts.
DEEP = {"resnet18", "vgg"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.full] if name in DEEP else [])
        for name in registry.MODELS
    ],
)
def ticket(request):
    """Half of each kernel pruned; BatchNorm's weights and statistics are not those it begins with."""
    name = registry.MODELS[request.param].example or request.param
    network = wrap_for_training(
        build_model(name, SHAPE, CLASSES, seed=0, input_range=255.0, dropout_rate=0.2)
    )
    assert any(isinstance(layer, StatelessDropout) for layer in network.layers)
    draw = np.random.default_rng(0)
    rewind = masking.values(network)
    masks = {n: draw.random(v.shape) < 0.5 for n, v in masking.mask_variables(network).items()}
    moved = {n: v * draw.uniform(0.9, 1.1, v.shape).astype("float32") for n, v in rewind.items()}
    architecture = architecture_of(masking.strip(network))
    return Ticket(0, architecture, masks, rewind, masked_start(moved, masks), {"level": 0})


def test_it_comes_back_from_the_disk_as_it_was(ticket, tmp_path):
    store = RunStore(tmp_path)
    store.begin({})
    store.save(ticket)
    back = store.read(0)
    assert back.digest == ticket.digest
    np.testing.assert_array_equal(
        back.model()(INPUTS, training=False), ticket.model()(INPUTS, training=False)
    )
    # Ready to train again: the rewind weights, those that are pruned 0, and the masks.
    network = back.network()
    for name, value in masking.values(network).items():
        np.testing.assert_array_equal(value, masked_start(ticket.rewind, ticket.masks)[name])
    for name, mask in masking.mask_variables(network).items():
        np.testing.assert_array_equal(mask, ticket.masks[name])


def test_its_files_compute_what_it_computes_and_hold_its_zeros(ticket, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    examples = Examples.given((INPUTS, np.zeros(len(INPUTS), int)), classes=CLASSES)
    # The converter reads a SavedModel: that this can be written is tested too.
    options = ExportArguments(formats=("float32",), encoding="dense", scaled=False, seconds=0)
    done = export(ticket, tmp_path / "export", lambda: examples, options)
    assert done.examples == len(INPUTS)

    interpreter = Interpreter(str(done.files["float32"]))
    interpreter.allocate_tensors()
    patterns = set()
    for detail in interpreter.get_tensor_details():
        if len(detail["shape"]) in (2, 4):
            with contextlib.suppress(ValueError):  # A tensor that only exists while it computes.
                value = interpreter.get_tensor(detail["index"])
                patterns.add((value.shape, (value != 0).tobytes()))
    for name, mask in ticket.masks.items():
        # The converter puts the output channel first, and may fold BatchNorm's scale in.
        stored = np.moveaxis(mask, -1, 0)
        assert (stored.shape, stored.tobytes()) in patterns, name

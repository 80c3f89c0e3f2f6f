"""Two devices against one, and what several devices cannot share.

Two devices there are only in a process that asks for them before TensorFlow starts: this file run
as a script is that process. Several processes are a matter of tests/test_workers.py.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.strategies import CrossEntropy, Mixup
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset, ResidentSplit
from lotcal_tf.errors import FieldError, LotcalError, WorkerLost
from lotcal_tf.models.precision import policy
from lotcal_tf.pruning import masking
from lotcal_tf.seeds import draw_seed, step_seed
from lotcal_tf.training.distributed import distribution
from lotcal_tf.training.distributed.cluster import Cluster
from lotcal_tf.training.distributed.distribution import ONE_DEVICE, Distribution
from lotcal_tf.training.time_estimate import estimate_time
from lotcal_tf.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
SEED = (30, 40)


def arrays(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    inputs = rng.normal(size=(count, 4, 4, 2)) + labels[:, None, None, None]
    return inputs.astype(np.float32), labels


def make_network():
    """A convolution and a dense layer, BatchNorm after each, half of the weights pruned."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    x = inputs = keras.Input((4, 4, 2))
    for layer in (layers.Conv2D(3, 3, name="conv"), layers.Dense(5, name="dense")):
        x = layers.ReLU()(layers.BatchNormalization(name=f"{layer.name}_norm")(layer(x)))
        x = layers.Flatten()(x) if layer.name == "conv" else x
    network = masking.wrap(keras.Model(inputs, layers.Dense(3, name="logits")(x)))
    masks = {n: np.random.default_rng(0).random(m.shape) < 0.5 for n, m in mask_values(network)}
    masking.assign_masks(network, masks)
    return network


def mask_values(network):
    return [(name, mask.numpy()) for name, mask in masking.mask_variables(network).items()]


def make_trainer(devices, **fields):
    schedule = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    schedule |= {"lr_drops": (1,), "epochs": 2, "batch_size": 8, "plan": "graph"}
    dataset = Dataset(3, ResidentSplit.of(*arrays(50, 0)), ResidentSplit.of(*arrays(20, 1)), None)
    experiment = Experiment(**(schedule | fields))
    return Trainer(experiment, CrossEntropy, make_network(), dataset, devices)


# Not Adam, which makes steps of full size of the rounding errors in gradients that are 0.
OPTIONS = {"nesterov": True, "ema": 0.5, "clip_norm": 0.5, "early_stopping": 1, "epochs": 3}
OPTIONS |= {"schedule": "cosine", "warmup_epochs": 0.5}


def trained(devices, **fields):
    """Two levels' training: rows, weights, and the weights of a step in the middle."""
    trainer, captured = make_trainer(devices, **fields), []
    found = []
    for progress in trainer.train(0, pause_at=[8]):
        if progress.step == 8:
            trainer.fetch()
            captured.append(masking.values(trainer.network))
        found.append(progress)
    found += trainer.train(1, first_step=8)
    rows = [progress.epoch for progress in found if progress.epoch]
    return trainer, {
        "rows": [list(row.row.values()) for row in rows],
        "weights": {name: v.tolist() for name, v in masking.values(trainer.network).items()},
        "captured": {name: v.tolist() for name, v in captured[0].items()},
    }


def estimated(trainer):
    """Whether there is a time estimate, and it left every copy of every variable as it was."""

    def bits():
        variables = [*trainer.strategy.variables, *trainer.strategy.optimizer.variables]
        copies = [
            copy for variable in variables for copy in getattr(variable, "values", [variable])
        ]
        return [copy.numpy().tobytes() for copy in copies]

    before = bits()
    return estimate_time(trainer, len).step > 0 and bits() == before


class SetsBiases(keras.callbacks.Callback):
    """Changes weights at the end of a level, as EarlyStopping does."""

    def on_train_end(self, logs=None):
        self.model.network.get_layer("masked_logits").layer.bias.assign([1.0, 2.0, 3.0])


def changed_by_a_callback(trainer):
    """The biases of the network after a level whose callback has set them."""
    list(trainer.train(0, callbacks=[SetsBiases()]))
    return masking.values(trainer.network)["logits/bias"].tolist()


def draws(devices):
    """What each device draws in a step, added up."""

    def step(data, seed):
        with step_seed(seed):
            drawn = tf.random.stateless_uniform([], draw_seed("use"), alg="philox")
        return {"drawn": drawn, "label": tf.reduce_mean(tf.cast(data[1], tf.float32))}

    batch = tf.zeros([4, 1]), tf.constant([1, 2, 3, 4])
    logs = tf.function(lambda: devices.run(step, batch, tf.constant(SEED)))()
    return {name: float(value) for name, value in logs.items()}


def main():
    """Everything on one device and on two, printed as JSON."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    devices = distribution.start("mirrored")
    one, two = trained(ONE_DEVICE)[1], trained(devices)
    masks = masking.mask_variables(two[0].replicas).values()
    print(
        json.dumps(
            {
                "replicas": devices.replicas,
                "one": one,
                "two": two[1],
                "one, options": trained(ONE_DEVICE, **OPTIONS)[1],
                "two, options": trained(devices, **OPTIONS)[1],
                "drawn": draws(devices),
                "estimated": estimated(two[0]),
                "biases": changed_by_a_callback(two[0]),
                "copies": [[c.numpy().tolist() for c in mask.values] for mask in masks],
                "masks": [mask.tolist() for _, mask in mask_values(two[0].network)],
            }
        )
    )


@pytest.fixture(scope="module")
def compared():
    command = [sys.executable, __file__]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.full
@pytest.mark.parametrize("options", ["", ", options"])
def test_two_devices_train_as_one(compared, options):
    assert compared["replicas"] == 2
    one, two = compared[f"one{options}"], compared[f"two{options}"]
    np.testing.assert_allclose(two["rows"], one["rows"], rtol=1e-5)
    for kind in ("weights", "captured"):
        for name, value in one[kind].items():
            np.testing.assert_allclose(two[kind][name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    assert one["captured"] != one["weights"]


@pytest.mark.full
def test_a_time_estimate_changes_no_device(compared):
    assert compared["estimated"]


@pytest.mark.full
def test_weights_that_a_callback_changes_come_back_from_the_devices(compared):
    assert compared["biases"] == [1.0, 2.0, 3.0]


@pytest.mark.full
def test_every_device_has_the_same_masks(compared):
    for copies, mask in zip(compared["copies"], compared["masks"], strict=True):
        assert copies == [mask, mask]
        assert 0 < np.mean(mask) < 1


@pytest.mark.full
def test_every_device_takes_its_rows_and_draws_for_itself(compared):
    def drawn(number):
        with step_seed(tf.add(SEED, [number * distribution.REPLICA_SEED, 0])):
            return float(tf.random.stateless_uniform([], draw_seed("use"), alg="philox"))

    assert drawn(0) == draws(ONE_DEVICE)["drawn"] != drawn(1)
    mean = {"drawn": (drawn(0) + drawn(1)) / 2, "label": (1.5 + 3.5) / 2}
    assert compared["drawn"] == pytest.approx(mean, rel=1e-6)


class TwoDevices(Distribution):
    replicas = 2


@pytest.mark.parametrize(
    ("fields", "strategy", "told"),
    [
        (
            {"batch_size": 7},
            CrossEntropy,
            r"batch_size=7: is shared by 2 devices: must be a multiple of 2",
        ),
        ({"drop_remainder": False}, CrossEntropy, r"drop_remainder=False: 2 devices .*=none"),
        ({"calib": "mixup"}, Mixup, r"calib=mixup: .* 2 devices .* distribute=none"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(fields, strategy, told):
    experiment = Experiment(**({"batch_size": 8} | fields))
    ONE_DEVICE.check(experiment, strategy)
    with pytest.raises(FieldError, match=told):
        TwoDevices().check(experiment, strategy)


def test_mixed_precision_is_not_shared_out():
    with policy("mixed_bfloat16"):
        network = make_network()
    experiment = Experiment(batch_size=8, distribute="mirrored")
    ONE_DEVICE.check(experiment, CrossEntropy, network)
    with pytest.raises(FieldError, match="distribute=mirrored: .* distribute=none"):
        TwoDevices().check(experiment, CrossEntropy, network)


def test_distributed_steps_are_not_compiled_whole():
    devices = distribution.start("mirrored")
    assert (devices.replicas, devices.plan("xla"), ONE_DEVICE.plan("xla")) == (1, "graph", "xla")
    with pytest.raises(FieldError, match="plan=xla: distribute=mirrored"):
        make_trainer(devices, plan="xla", distribute="mirrored")


def test_workers_that_differ_are_told_in_what(monkeypatch):
    devices = distribution.start("mirrored")
    devices.agree(levels=[3, 10], flags="same")
    monkeypatch.setattr(devices, "gather", lambda own: tf.concat([own, own + 1], 0))
    with pytest.raises(LotcalError, match=r"do not agree on the levels, here \[3, 10\]: .* share"):
        devices.agree(levels=[3, 10])
    trainer = make_trainer(devices, plan="auto")
    with pytest.raises(LotcalError, match="do not agree on the weights and masks"):
        list(trainer.train(0))


CLUSTER = Cluster({"worker 0": "a:1", "worker 1": "b:1"}, "worker 0")


def test_one_of_several_processes_is_the_chief():
    other = dataclasses.replace(CLUSTER, task="worker 1")
    places = [Distribution(None, place) for place in (None, CLUSTER, other)]
    assert [(place.worker, place.workers) for place in places] == [(0, 1), (0, 2), (1, 2)]
    assert [Distribution(None, place).chief for place in (None, CLUSTER, other)] == [1, 1, 0]


def test_processes_go_by_the_largest_of_their_values(monkeypatch):
    assert ONE_DEVICE.largest(2.5) == 2.5
    devices = Distribution(None, CLUSTER)
    monkeypatch.setattr(devices, "gather", lambda own: tf.concat([own, 3 - own], 0))
    assert (devices.largest(2.5), devices.largest(0.5)) == (2.5, 2.5)


@pytest.mark.parametrize(
    ("message", "who"),
    [
        ("/job:worker/task:1: unhealthy\n/job:worker/replica:0/task:1, told to task:0", "worker 1"),
        ("/job:worker/replica:0/task:0 had its connection reset", "a worker"),
    ],
)
def test_a_lost_worker_is_told_of_by_name(message, who):
    told = f"^{who} of TF_CONFIG was lost; finished levels are kept"
    with pytest.raises(WorkerLost, match=told), Distribution(None, CLUSTER).watch():
        raise tf.errors.UnavailableError(None, None, message)


def test_other_errors_stay_what_they_are():
    with pytest.raises(tf.errors.UnavailableError), distribution.start("mirrored").watch():
        raise tf.errors.UnavailableError(None, None, "")
    with pytest.raises(ZeroDivisionError), Distribution(None, CLUSTER).watch():
        raise ZeroDivisionError


if __name__ == "__main__":
    main()

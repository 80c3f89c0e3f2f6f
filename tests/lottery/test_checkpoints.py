"""Checkpoints of the level in progress: whole or not used, of this level, and not too rare."""

import contextlib

import numpy as np
import pytest

from lotcal_tf.config.sealed import seal, unseal
from lotcal_tf.lottery.checkpoints import Checkpoint, Checkpoints
from lotcal_tf.training.state import TrainingState
from lotcal_tf.training.trainer import Epoch

ORIGIN = {"run": "mine", "level": 3, "before": {"masks": "00"}}


def make(epochs, level=3, late=None):
    """A checkpoint whose every value depends on its epoch."""
    done = [Epoch(level, n, 1 / (3 + n), 0.5, 1e-17, 0.25, {"gap": 0.1 * n}) for n in range(epochs)]
    tensors = {
        "weights/00000": np.full((2, 3), epochs, "float32"),
        "optimizer/00000": np.asarray(epochs, "int64"),
        "rate": np.asarray(-1.0, "float32"),
    }
    stopping, callbacks = {"best": 1 / 3, "wait": 1.0}, [{"class": "m:C", "state": {"n": epochs}}]
    return Checkpoint(level, done, TrainingState(epochs, tensors, stopping, callbacks), late)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path)


def test_a_checkpoint_comes_back_as_it_was(checkpoints):
    late = {"hidden/kernel": np.arange(4, dtype="float32"), "norm/scale": np.asarray(2.0)}
    written = make(2, late=late)
    checkpoints.write(written, ORIGIN)
    found, damaged = checkpoints.newest(3, ORIGIN)
    assert damaged == []
    assert (found.level, found.epochs) == (3, written.epochs)
    assert (found.state.epochs, found.state.stopping) == (2, written.state.stopping)
    assert found.state.callbacks == written.state.callbacks
    for theirs, ours in ((found.state.tensors, written.state.tensors), (found.late_weights, late)):
        assert theirs.keys() == ours.keys()
        for name, value in ours.items():
            assert theirs[name].dtype == value.dtype and np.array_equal(theirs[name], value)


def test_the_newest_two_are_kept(checkpoints):
    for epochs in (8, 9, 10, 11):
        checkpoints.write(make(epochs), ORIGIN)
    names = sorted(path.name for path in checkpoints.directory.iterdir())
    assert names == ["level_03_epoch_0010", "level_03_epoch_0011"]


def test_one_of_a_new_attempt_is_kept_and_those_of_an_abandoned_one_are_not(checkpoints):
    """As after an update of Keras, with which the checkpoints of a run cannot be continued."""
    for epochs in (3, 50, 51):
        checkpoints.write(make(epochs), {**ORIGIN, "run": "another"})
        checkpoints.write(make(epochs, level=4), ORIGIN)
    checkpoints.write(make(4), ORIGIN)
    assert checkpoints.newest(3, ORIGIN)[0].state.epochs == 4
    checkpoints.write(make(5), ORIGIN)
    names = sorted(path.name for path in checkpoints.directory.iterdir())
    third = [f"level_03_epoch_{epochs:04d}" for epochs in (4, 5)]
    assert names == [*third, "level_04_epoch_0050", "level_04_epoch_0051"]


def test_those_of_finished_levels_are_removed(checkpoints):
    checkpoints.write(make(1), ORIGIN)
    checkpoints.remove(3)
    assert checkpoints.newest(3, ORIGIN)[0].state.epochs == 1
    checkpoints.remove(4)
    assert not checkpoints.directory.exists()
    assert checkpoints.newest(3, ORIGIN) == (None, [])


@pytest.mark.parametrize("file", ["checkpoint.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "gone"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(checkpoints, file, damage):
    for epochs in (1, 2):
        checkpoints.write(make(epochs), ORIGIN)
    path = checkpoints.directory / "level_03_epoch_0002" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    new = {"cut": path.read_bytes()[:-1], "bit": bytes(content), "empty": b""}
    path.unlink()
    if damage != "gone":
        path.write_bytes(new[damage])
    found, damaged = checkpoints.newest(3, ORIGIN)
    assert found.state.epochs == 1
    assert len(damaged) == 1 and str(path.parent) in damaged[0]
    checkpoints.write(make(2), ORIGIN)  # The damaged one is in the way.
    assert checkpoints.newest(3, ORIGIN)[0].state.epochs == 2


@pytest.mark.parametrize(
    "content",
    [
        {"epochs": 5},
        {"epochs": [{"no": 1}]},
        {"epochs": [None]},
        {"stopping": None},
        {"callbacks": [3]},
        {"sha256": None},
    ],
)
def test_one_with_a_checksum_but_other_content_is_damaged(checkpoints, content):
    for epochs in (1, 2):
        checkpoints.write(make(epochs), ORIGIN)
    path = checkpoints.directory / "level_03_epoch_0002" / "checkpoint.json"
    path.write_bytes(seal(unseal(path, always=True) | content))
    found, damaged = checkpoints.newest(3, ORIGIN)
    assert (found.state.epochs, len(damaged)) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [ORIGIN | {"run": "other"}, ORIGIN | {"before": {"masks": "01"}}, ORIGIN | {"before": None}],
)
def test_one_of_another_run_or_ticket_is_not_used(checkpoints, other):
    checkpoints.write(make(1), other)
    assert checkpoints.newest(3, ORIGIN) == (None, [])


def test_one_of_another_level_is_not_used_even_under_its_name(checkpoints):
    checkpoints.write(make(1, level=2), ORIGIN | {"level": 2})
    path = checkpoints.directory / "level_02_epoch_0001"
    path.rename(path.with_name("level_03_epoch_0001"))
    assert checkpoints.newest(3, ORIGIN) == (None, [])


@pytest.fixture
def written(begin, tmp_path, monkeypatch):
    """written(minutes, seconds per epoch) → the epochs after which level 0 wrote a checkpoint.

    With `stopped`, Ctrl-C comes when so many epochs are done.
    """

    def written(minutes, seconds, epochs=12, stopped=None):
        started, found, now, done = (
            begin(tmp_path, epochs=epochs, levels=0, checkpoint_minutes=minutes, plan="graph"),
            [],
            [0.0],
            [0],
        )
        monkeypatch.setattr("lotcal_tf.lottery.search.time.monotonic", lambda: now[0])
        started.search.stored_at = 0.0
        train = started.search.trainer.train

        def timed(*given, **named):
            for progress in train(*given, **named):
                now[0] += seconds if progress.epoch is not None else 0.0
                yield progress
                if progress.take_state is not None:
                    done[0] += 1
                    if done[0] == stopped:
                        raise KeyboardInterrupt

        monkeypatch.setattr(started.search.trainer, "train", timed)
        monkeypatch.setattr(
            started.store, "save_checkpoint", lambda c: found.append(c.state.epochs)
        )
        with contextlib.nullcontext() if stopped is None else pytest.raises(KeyboardInterrupt):
            started.run()
        return found

    return written


@pytest.mark.full
@pytest.mark.parametrize(
    ("minutes", "seconds", "expected"),
    [
        (0, 1, list(range(1, 12))),
        (5, 400, list(range(1, 12))),  # An epoch takes longer.
        (5, 100, [2, 4, 6, 8, 10]),  # After one more epoch, 300 s would be lost.
        (5, 90, [3, 6, 9]),
        (5, 1, []),
        (1e9, 100, []),
    ],
)
def test_so_often_that_no_more_than_the_interval_is_lost(written, minutes, seconds, expected):
    assert written(minutes, seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "stopped", "expected"),
    [
        (2, 7, 7),
        (0.4, 3, 1),  # after 0.4 s; next after 1.6 s
        (0.4, 6, 4),
    ],
)
def test_ctrl_c_loses_a_second_at_most(written, seconds, stopped, expected):
    assert written(5, seconds, stopped=stopped) == [expected]

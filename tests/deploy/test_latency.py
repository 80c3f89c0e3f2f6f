"""Latency: what is timed, in which order, and the statistics, with a simulated clock."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lotcal_tf.deploy import latency
from lotcal_tf.errors import LotcalError
from lotcal_tf.formats.tflite import Float32, TFLiteRunner


@pytest.fixture
def clock(monkeypatch):
    """A clock in nanoseconds that stands still unless a test moves it on."""
    now = [0]
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: now[0])
    return now


def taking(clock, log, name, milliseconds):
    """A file whose runs take so long, one after another; the last time stays."""
    left = list(milliseconds)

    def run():
        log.append(name)
        clock[0] += int(1e6 * (left.pop(0) if len(left) > 1 else left[0]))

    return run


def test_median_and_percentile_of_the_runs_but_the_first_of_a_turn(clock, monkeypatch):
    # One turn of 20 ms: a warm-up of 500 ms, then 3, 1, 2 and 30 ms, and that is over 20.
    run = taking(clock, [], "a", [500, 3, 1, 2, 30])
    monkeypatch.setattr(latency, "ready", lambda name, path, threads, example: run)
    found = latency.measure({"a": None}, None, threads=(1,), seconds=0.02)["a"][1]
    # Of 1, 2, 3, 30 ms: the middle of 2 and 3; and 0.97 of the way from the third to the fourth.
    assert found.runs == 4
    assert found.median_us == pytest.approx(2500)
    assert found.p99_us == pytest.approx(3000 + 0.97 * 27_000)


def test_files_take_turns_in_every_round_and_threads_are_kept_apart(clock, monkeypatch):
    log, ready = [], []

    def open_(name, path, threads, example):
        ready.append((name, path, threads))
        return taking(clock, log, f"{name}{threads}", [10 * threads if name == "a" else 50])

    monkeypatch.setattr(latency, "ready", open_)
    found = latency.measure({"a": "A", "b": "B"}, None, threads=(1, 2), seconds=0.04)
    assert ready == [("a", "A", 1), ("b", "B", 1), ("a", "A", 2), ("b", "B", 2)]
    # Two rounds a number of threads; b's turn is one run beside the warm-up, longer than a turn.
    one, two = 3 * ["a1"] + 2 * ["b1"], 2 * ["a2"] + 2 * ["b2"]
    assert log == 2 * one + 2 * two
    assert {n: {t: (v.median_us, v.runs) for t, v in by.items()} for n, by in found.items()} == {
        "a": {1: (10_000, 4), 2: (20_000, 2)},
        "b": {1: (50_000, 2), 2: (50_000, 2)},
    }


@pytest.fixture(scope="module")
def path(ticket, tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "ticket.tflite"
    Float32().write(ticket.model(), path)
    return path


def test_a_real_file_runs_on_one_example(path, inputs, monkeypatch):
    made = []

    class Noted(Interpreter):
        def __init__(self, path, num_threads=None):
            super().__init__(path, num_threads=num_threads)
            made.append((self, num_threads))

    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", Noted)
    found = latency.measure({"ticket": path}, inputs[:1], threads=(1, 2), seconds=0.01)
    assert [threads for _, threads in made] == [1, 2] == list(found["ticket"])
    monkeypatch.undo()
    for interpreter, threads in made:
        (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert given["shape"].tolist() == [1, 4, 2] and result["shape"].tolist() == [1, 3]
        # It has been run: the result is that of the example that was set.
        example = interpreter.get_tensor(given["index"])
        np.testing.assert_array_equal(example, inputs[:1])
        np.testing.assert_allclose(
            interpreter.get_tensor(result["index"]), TFLiteRunner(path)(example), rtol=1e-5
        )
        measured = found["ticket"][threads]
        assert measured.runs > 1 and 0 < measured.median_us <= measured.p99_us


def test_a_file_that_cannot_be_run_is_named(tmp_path, inputs):
    (tmp_path / "broken.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(LotcalError, match=r"int8: LiteRT cannot run .*broken.tflite: "):
        latency.measure({"int8": tmp_path / "broken.tflite"}, inputs[:1])

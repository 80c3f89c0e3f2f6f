"""Memory and file handles of a process do not grow with the searches and levels that it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Prints resident memory in MB and the number of open files: after each call, or after each level.
SCRIPT = """
import ctypes, gc, json, os, sys, tempfile
import numpy as np
from lotcal_tf.compat import keras
import lotcal_tf

plans, calls, levels, progress = json.loads(sys.argv[1])
libc = ctypes.CDLL("libc.so.6")
page = os.sysconf("SC_PAGESIZE")

def report():
    gc.collect()
    libc.malloc_trim(0)
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    print(json.dumps([pages * page / 1e6, len(os.listdir("/proc/self/fd"))]), flush=True)

class Levels(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        report()

draw = np.random.default_rng(0)
data = draw.normal(size=(240, 8)).astype("float32"), draw.integers(0, 3, 240)
model = keras.Sequential([
    keras.Input((8,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(3)
])
with tempfile.TemporaryDirectory() as directory:
    for call in range(calls):
        for plan in plans:
            lotcal_tf.find_tickets(
                model, data, data, epochs=1, levels=levels, prune_rate=0.02, batch_size=40,
                plan=plan, seed=call, out=f"{directory}/{plan}_{call}", progress=progress,
                callbacks=[Levels()] if calls == 1 else [],
            )
        if calls > 1:
            report()
"""

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc of Linux")


def measure(*plans, calls=1, levels=0, progress=False):
    """Memory in MB, and open files, after each of the calls, or of the levels of a single call."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([plans, calls, levels, progress])],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [memory for memory, _ in found], [files for _, files in found]


@pytest.mark.full
@linux
def test_a_process_does_not_grow_with_its_searches():
    memory, files = measure("xla", calls=9)
    assert (memory[8] - memory[5]) / 3 <= 1
    assert files[5] == files[8]


@linux
@pytest.mark.full
@pytest.mark.parametrize("plan", ["xla", "graph"])
def test_a_process_does_not_grow_with_thirty_searches(plan):
    memory, files = measure(plan, calls=30, levels=1, progress=True)
    assert (memory[29] - memory[5]) / 24 <= 1
    assert files[5] == files[29]


@linux
@pytest.mark.full
@pytest.mark.parametrize("plan", ["xla", "graph"])
def test_a_search_does_not_grow_with_a_hundred_levels(plan):
    memory, files = measure(plan, levels=100)
    assert len(memory) == 101
    assert (memory[100] - memory[10]) / 90 <= 0.1
    assert files[10] == files[100]

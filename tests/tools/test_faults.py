"""A short campaign of faults: nothing is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.full
def test_nothing_is_lost_in_a_short_campaign(tmp_path):
    done = subprocess.run(
        [sys.executable, "tools/faults.py", f"--out={tmp_path / 'faults'}", "--minutes=1.5"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    kind, faults, survived, refused, lost = done.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert (kind, lost) == ("all", "0")
    assert int(faults) == int(survived) + int(refused) >= 3

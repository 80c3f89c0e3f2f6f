"""A campaign of faults: kills, damaged files, full disks, signals, two writers. Prints a table.

    python tools/faults.py --out=DIR                the whole campaign
    python tools/faults.py --out=DIR --short        a tenth of it
    python tools/faults.py --out=DIR --minutes=30   as many as begin in this time, in random order

Each fault hits a run of its own. Then the same command is given again. A fault is survived if the run
ends as one that was not disturbed: tickets, metrics.csv, history.csv and exported files are the same to
the bit, except for times. It is refused if a command ends with one line that names the file, and changes
nothing. Everything else is lost: the exit code is then 1, and the cases are printed.

Commands are children of a process that has imported TensorFlow but not used it.
"""

import argparse
import contextlib
import dataclasses
import errno
import functools
import importlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from compare_runs import differences
from tqdm import tqdm

from lotcal_tf.config import registry
from lotcal_tf.files import parts

# Two levels that take a few seconds; checkpoints after each of their epochs.
RUN = ("--epochs=5", "--levels=2", "--checkpoint_minutes=0")
MODELS = {"slimming": "resnet8_4"}  # Strategies that need another network than the others.
USUAL = "lenet_20_10"
SURVIVED, REFUSED, LOST = "survived", "refused", "lost"
# What a kill must not leave behind.
LEFTOVERS = ("*.export.*", ".*.csv.*", ".level_*")
LONGEST = 300.0  # seconds; a command that takes longer hangs
HANGS = 124  # its exit code here, as that of `timeout`

_fork = multiprocessing.get_context("forkserver")


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
      code: its exit code; below 0 the signal that killed it.
      lines: the lines of its standard error.
      seconds: how long it took.
    """

    code: int | None
    lines: Sequence[str]
    seconds: float

    @property
    def is_refusal(self) -> bool:
        """Whether the command ended in one line."""
        return self.code in (1, 2) and "Traceback" not in "".join(self.lines)


def _child(command: str, flags: Sequence[str], log: str, inject: Callable[[], None] | None) -> None:
    """Runs a command in this process, with its streams in a file."""
    with Path(log).open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if inject is not None:
        inject()
    importlib.import_module(f"lotcal_tf.{command}").run(list(flags))


class Campaign:
    """Runs commands in a directory. Each kind of fault takes the source of its random moment or place.

    Args:
      out: the directory.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.found: dict[str, list[str]] = {}
        self.lost: list[str] = []
        self._references: dict[str, tuple[Path, float]] = {}
        self._numbers = itertools.count()
        self._lock, self._polling = threading.Lock(), threading.Lock()

    def new(self) -> Path:
        """The path of a new directory."""
        return self.out / f"fault_{next(self._numbers):03d}"

    def start(
        self,
        command: str,
        flags: Sequence[str],
        log: Path,
        inject: Callable[[], None] | None = None,
    ) -> Any:
        """Starts a command."""
        process = _fork.Process(target=_child, args=(command, flags, str(log), inject))
        with self._polling:  # `start` polls all children, see `_code`.
            process.start()
        return process

    def _code(self, process: Any, seconds: float | None = None) -> int | None:
        """Waits for a process; its exit code, or None if it goes on.

        Two threads must not poll one process: the second finds the pipe of its exit code empty, and
        Python then reports 255.
        """
        if not multiprocessing.connection.wait([process.sentinel], seconds):
            return None
        with self._polling:
            process.join()
            return int(process.exitcode)

    def _end(self, process: Any) -> int:
        """Waits for a process; its exit code, or `HANGS`."""
        code = self._code(process, LONGEST)
        if code is None:
            process.kill()
            self._code(process)
            return HANGS
        return code

    def run(
        self,
        command: str,
        flags: Sequence[str],
        *,
        stop: tuple[float, int] | None = None,
        inject: Callable[[], None] | None = None,
    ) -> Ended:
        """Runs a command, and sends it a signal after some seconds if `stop` has both."""
        log, begun = self.new().with_suffix(".log"), time.monotonic()
        log.touch()  # The process may be killed before it opens it.
        process = self.start(command, flags, log, inject)
        if stop is not None and self._code(process, stop[0]) is None:
            with contextlib.suppress(ProcessLookupError):  # It has just ended.
                os.kill(process.pid, stop[1])
        code = self._end(process)
        lines = log.read_text(errors="replace").splitlines()
        log.unlink()
        return Ended(code, lines, time.monotonic() - begun)

    def flags(self, calib: str, directory: Path) -> list[str]:
        """The flags of a run with a strategy."""
        model = MODELS.get(calib, USUAL)
        return [*RUN, f"--calib={calib}", f"--model={model}", f"--out={directory}"]

    def reference(self, calib: str) -> tuple[Path, float]:
        """A run that was not disturbed, and its seconds."""
        with self._lock:
            if calib not in self._references:
                directory = self.out / f"reference_{calib}"
                ended = self.run("train", self.flags(calib, directory))
                if ended.code:
                    raise SystemExit(f"the run that is not disturbed failed: {ended.lines[-1:]}")
                self._references[calib] = directory, ended.seconds
            return self._references[calib]

    def copy(self) -> Path:
        """A copy of a run that was not disturbed."""
        target = self.new()
        shutil.copytree(self.reference("none")[0], target)
        return target

    def note(self, kind: str, verdict: str, case: str, directory: Path | None = None) -> None:
        """Counts a fault; keeps the directory of one that is lost."""
        self.found.setdefault(kind, []).append(verdict)
        if verdict == LOST:
            self.lost.append(f"{kind}: {case}")
            if directory is not None and directory.exists():
                directory.rename(directory.with_name(f"lost_{directory.name}"))
        elif directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def verdict(self, calib: str, directory: Path, ended: Ended) -> tuple[str, str]:
        """Whether a continued run equals the one that was not disturbed, and what is wrong."""
        if ended.code:
            return (REFUSED if ended.is_refusal else LOST), f"{ended.code}: {ended.lines[-1:]}"
        left = [path.name for pattern in LEFTOVERS for path in directory.rglob(pattern)]
        with contextlib.redirect_stdout(None):
            found = [*differences(self.reference(calib)[0], directory), *left]
        return (LOST if found else SURVIVED), "; ".join(found[:3])

    # --- kinds of faults ---

    def kill_training(self, draw: random.Random, calib: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to a run at a random moment, and runs the same command again."""
        kind = f"{signal.Signals(number).name} while training and exporting"
        directory, seconds = self.new(), self.reference(calib)[1]
        when = draw.uniform(0, seconds)
        ended = self.run("train", self.flags(calib, directory), stop=(when, number))
        case = f"{calib} after {when:.2f} s of {seconds:.2f}"
        expected = (-signal.SIGKILL, 0) if number == signal.SIGKILL else (128 + number, -number, 0)
        if ended.code not in expected:
            self.note(kind, LOST, f"{case}: exit code {ended.code}", directory)
            return
        verdict, why = self.verdict(
            calib, directory, self.run("train", self.flags(calib, directory))
        )
        self.note(kind, LOST if verdict == REFUSED else verdict, f"{case}: {why}", directory)

    def kill_command(self, draw: random.Random, command: str, flags: Sequence[str]) -> None:
        """Kills a command on a finished run at a random moment, and runs it again."""
        whole, victim = self.copy(), self.copy()
        name = "run" if command == "export" else "model"
        undisturbed = self.run(command, [f"--{name}={whole}", *flags])
        given = [f"--{name}={victim}", *flags]
        when = draw.uniform(0, undisturbed.seconds)
        self.run(command, given, stop=(when, signal.SIGKILL))
        again = self.run(command, given)
        expected, found = (
            {p.relative_to(run): p.read_bytes() for p in parts(run)} for run in (whole, victim)
        )
        shutil.rmtree(whole)
        # Latencies differ, so do the files that hold them.
        same = found.keys() == expected.keys() and all(
            found[name] == content for name, content in expected.items() if name.suffix == ".tflite"
        )
        good = same and not again.code
        case = (
            f"after {when:.2f} s: exit code {again.code}, {sorted(found.keys() ^ expected.keys())}"
        )
        self.note(f"SIGKILL of {command}", SURVIVED if good else LOST, case, victim)

    def damage(self, draw: random.Random, file: Path, how: str) -> None:
        """Damages a file of a finished run; every command must refuse it or mend it."""
        victim = self.copy()
        path = victim / file
        content = bytearray(path.read_bytes())
        place = draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        cut = {"empty": 0, "cut after 8 bytes": 8, "cut in the middle": len(content) // 2}
        cut["cut by one byte"] = len(content) - 1
        damaged = bytes(content) if how == "one bit" else path.read_bytes()[: cut[how]]
        path.unlink()  # Levels share equal files by hard links.
        path.write_bytes(damaged)
        before = {p: p.read_bytes() for p in parts(victim)}
        ended = self.run("train", self.flags("none", victim))
        verdict, why = self.verdict("none", victim, ended)
        if verdict == REFUSED and {p: p.read_bytes() for p in parts(victim)} != before:
            verdict, why = LOST, f"refused, but changed files: {why}"
        self.note(f"damaged {file.name}: {how}", verdict, f"{file}: {why}", victim)

    def swap(self, draw: random.Random, first: Path, second: Path) -> None:
        """Exchanges two files or directories of a finished run."""
        victim = self.copy()
        aside = victim / "aside"
        for source, target in ((first, aside), (second, first), (aside, second)):
            (victim / source).rename(victim / target)
        ended = self.run("train", self.flags("none", victim))
        verdict, why = self.verdict("none", victim, ended)
        self.note("files exchanged between levels", verdict, f"{first}, {second}: {why}", victim)

    def transplant(self, draw: random.Random, level: str) -> None:
        """Puts a ticket of another run in the place of one."""
        victim, other = self.copy(), self.reference("vwcc")[0]
        shutil.rmtree(victim / "tickets" / level)
        shutil.copytree(other / "tickets" / level, victim / "tickets" / level)
        verdict, why = self.verdict("none", victim, self.run("train", self.flags("none", victim)))
        self.note("ticket of another run", verdict, f"{level}: {why}", victim)

    def disk_full(self, draw: random.Random, call: int) -> None:
        """Fails one write of a new run for lack of space, and runs the same command again."""
        directory = self.new()
        ended = self.run("train", self.flags("none", directory), inject=FullAt(call))
        verdict, why = self.verdict(
            "none", directory, self.run("train", self.flags("none", directory))
        )
        if ended.code and not ended.is_refusal:
            verdict, why = LOST, f"{ended.code}: {ended.lines[-1:]}"
        self.note("no space at a write", verdict, f"call {call}: {why}", directory)

    def two_writers(self, draw: random.Random, delay: float) -> None:
        """Starts two experiments on one new directory, and ends the one that is left."""
        directory, kind = self.new(), "two writers"
        flags = self.flags("none", directory)
        logs = [directory.with_suffix(f".log{number}") for number in (1, 2)]
        first = self.start("train", flags, logs[0])
        time.sleep(delay)
        both = [first, self.start("train", [*flags, "--seed=1"], logs[1])]
        ended = multiprocessing.connection.wait([process.sentinel for process in both])
        loser = next(n for n, process in enumerate(both) if process.sentinel in ended)
        code = self._end(both[loser])
        lines = logs[loser].read_text().splitlines()
        refused = code == 2 and "Traceback" not in "".join(lines)
        record, winner = directory / "experiment.json", both[1 - loser]
        while self._code(winner, 0.01) is None and not record.exists():
            pass
        winner.terminate()
        ends = self._end(winner) != HANGS
        seed = json.loads(record.read_text())["experiment"]["seed"]
        good = refused and ends and seed == 1 - loser
        case = f"{delay:.2f} s apart: {lines[-1:]}, record of seed {seed}"
        self.note(kind, SURVIVED if good else LOST, case, directory)

    def clock_jump(self, draw: random.Random, seconds: float) -> None:
        """Runs with a clock that jumps, is killed, and goes on with the right clock."""
        directory, whole = self.new(), self.reference("none")[1]
        when = draw.uniform(0.3, 0.9) * whole
        flags = self.flags("none", directory)
        self.run("train", flags, stop=(when, signal.SIGKILL), inject=ClockOff(seconds))
        verdict, why = self.verdict("none", directory, self.run("train", flags))
        verdict = LOST if verdict == REFUSED else verdict
        self.note("clock jumps", verdict, f"{seconds:+.0f} s: {why}", directory)

    def table(self) -> str:
        """The counts as a Markdown table."""
        rows = ["| fault | faults | survived | refused | lost |", "|---|---:|---:|---:|---:|"]
        total = dict.fromkeys((SURVIVED, REFUSED, LOST), 0)
        for kind, verdicts in sorted(self.found.items()):
            counts = {verdict: verdicts.count(verdict) for verdict in total}
            total = {verdict: total[verdict] + counts[verdict] for verdict in total}
            cells = (kind, len(verdicts), *counts.values())
            rows.append("| " + " | ".join(map(str, cells)) + " |")
        cells = ("all", sum(total.values()), *total.values())
        return "\n".join([*rows, "| " + " | ".join(map(str, cells)) + " |"])


@dataclasses.dataclass(frozen=True)
class FullAt:
    """Lets one of the calls that flush a file fail for lack of space, and all later ones, too."""

    call: int

    def __call__(self) -> None:
        """Replaces `os.fsync`."""
        left, real = [self.call], os.fsync

        def fsync(handle: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        os.fsync = fsync  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class ClockOff:
    """Shifts the time of day."""

    seconds: float

    def __call__(self) -> None:
        """Replaces `time.time`."""
        real, off = time.time, self.seconds
        time.time = lambda: real() + off


def faults(campaign: Campaign, seed: int) -> list[functools.partial[None]]:
    """The faults of the campaign."""
    strategies = list(registry.STRATEGIES)
    found: list[functools.partial[None]] = []

    def add(times: int, method: Callable[..., None], *given: Any) -> None:
        for _ in range(times):
            draw = random.Random(f"{seed} {len(found)}")
            found.append(functools.partial(method, draw, *given))

    for calib in strategies:
        add(5, campaign.kill_training, calib)
        add(2, campaign.kill_training, calib, signal.SIGTERM)
    add(10, campaign.kill_command, "export", ("--formats=float32,int8,keras", "--seconds=0.01"))
    add(3, campaign.kill_command, "evaluate", ())
    run = campaign.reference("none")[0]
    kept = [p.relative_to(run) for p in parts(run) if "tfevents" not in p.name]
    for file in kept:
        ways = ("empty", "cut after 8 bytes", "cut in the middle", "cut by one byte", "one bit")
        for how in ways if file.parts[0] != "tickets" or "level_01" in file.parts else ways[-1:]:
            add(1, campaign.damage, file, how)
    levels = [Path("tickets") / f"level_{n:02d}" for n in range(3)]
    add(1, campaign.swap, levels[0], levels[1])
    add(1, campaign.swap, levels[1], levels[2])
    for name in ("ticket.json", "masks.safetensors", "trained.safetensors"):
        add(1, campaign.swap, levels[1] / name, levels[2] / name)
    for level in levels:
        add(1, campaign.transplant, level.name)
    for call in range(0, 60, 3):
        add(1, campaign.disk_full, call)
    for step in range(50):
        add(1, campaign.two_writers, 0.01 * step)
    for seconds in (-86_400.0, -400.0, 400.0, 86_400.0):
        add(1, campaign.clock_jump, seconds)
    return found


def main() -> None:
    """Runs the campaign, prints the table, and exits with code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="faults at a time")
    parser.add_argument("--only", default="", help="one kind of fault: a method of Campaign")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no fault after this time")
    parser.add_argument("--short", action="store_true", help="every tenth fault")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    _fork.set_forkserver_preload(
        ["lotcal_tf.train", "lotcal_tf.export", "lotcal_tf.evaluate", "lotcal_tf.api"]
    )
    campaign = Campaign(given.out)
    chosen = [
        fault
        for fault in faults(campaign, given.seed)[:: 10 if given.short else 1]
        if given.only in ("", fault.func.__name__)
    ]
    random.Random(given.seed).shuffle(chosen)
    until = time.monotonic() + 60 * given.minutes

    def carry_out(fault: functools.partial[None]) -> None:
        try:
            if time.monotonic() < until:
                fault()
        except Exception as error:  # Of the campaign itself; the table still counts it.
            campaign.note("not carried out", LOST, f"{fault}: {error!r}")

    with ThreadPoolExecutor(given.workers) as pool:
        running = [pool.submit(carry_out, fault) for fault in chosen]
        for _ in tqdm(as_completed(running), total=len(running), unit="fault"):
            pass
    print("\n" + campaign.table())
    print(*campaign.lost, sep="\n", file=sys.stderr)
    sys.exit(bool(campaign.lost))


if __name__ == "__main__":
    main()

"""Exporting a ticket: written, run as a phone would, held against it, and only then put in place."""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lotcal_tf import tables
from lotcal_tf.compat import keras
from lotcal_tf.config.registry import DEFAULT_FORMATS, ENCODINGS, FORMATS, Format, file_format
from lotcal_tf.deploy import latency, model_card
from lotcal_tf.deploy.background import Background
from lotcal_tf.deploy.candidates import Made, Maker
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.parity import COMPARED, DEFAULT_TOLERANCE, Parity, Tolerance, compare
from lotcal_tf.deploy.report_tables import FILE_WORDS, verdict_text
from lotcal_tf.deploy.scaling import fold_temperature, temperature_of
from lotcal_tf.deploy.sparsity_report import DENSE, MASKED, Verdict, verdict
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.evaluation.open_model import KerasRunner, logits_of, open_model
from lotcal_tf.files import flush, parts
from lotcal_tf.formats.format import LOGITS, PROBABILITIES
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.metrics import DEFAULT_BINS, prediction_bins
from lotcal_tf.pruning.compaction import Compaction, compact

PARITY, VERDICT = "parity.json", "verdict.json"


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export left.

    Attributes:
      directory: holds the files, `parity.json`, `verdict.json` and the model card.
      files: what was written, by format.
      parity: what `parity.json` says.
      verdict: what `verdict.json` says.
    """

    directory: Path
    files: Mapping[str, Path]
    parity: Mapping[str, Any]
    verdict: Mapping[str, Any]

    @property
    def examples(self) -> int:
        """How many the files were compared on."""
        return int(self.parity["examples"])

    @classmethod
    def read(cls, directory: Path) -> "Exported":
        """What an export's own files say of it."""
        parity = json.loads((directory / PARITY).read_text())
        files = {name: directory / row["file"] for name, row in parity["files"].items()}
        return cls(directory, files, parity, json.loads((directory / VERDICT).read_text()))

    def table(self) -> str:
        """The files beside the ticket, and what the zeros turned into, as text to read."""
        columns = list(COMPARED)
        rows = [["file", "encoding", "bytes", *COMPARED.values()]]
        measured = list(self.parity["files"].values())
        for name, row, figures in (
            ("the ticket", None, measured[0]["ticket"]),
            *((row["file"], row, row["measured"]) for row in measured),
        ):
            size = [row["encoding"], f"{row['bytes']:,}"] if row else ["", ""]
            shown = [f"{figures[key]:.4f}" for key in columns]
            rows.append([name, *size, *shown])
        return f"{tables.plain(rows, FILE_WORDS)}\n\n{verdict_text(self.verdict)}"


def export(
    ticket: Ticket,
    directory: Path,
    examples: Examples,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    encoding: str | None = None,
    output: str = LOGITS,
    scaled: bool = True,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    bins: int = DEFAULT_BINS,
    dense: "keras.Model | None" = None,
    origin: Mapping[str, Any] | None = None,
    seconds: float = 0.5,
    progress: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Writes a ticket as files of several formats, each held against the ticket.

    Args:
      ticket: what to export.
      directory: replaced by the new export once that is verified, and only if it is empty or holds
        an earlier one.
      examples: what to compare on, and what quantising draws on.
      formats: names of `catalog.FORMATS`.
      encoding: one of `catalog.ENCODINGS` for all files; None: of each file the smallest.
      output: `logits` or `probabilities`, what files give.
      scaled: whether the temperature is folded in, and fitted anew on what is quantised.
      tolerance: how far a file may be from its ticket.
      bins: of the ECE.
      dense: the network before pruning; None: the ticket's own with its rewind weights.
      origin: the run's `experiment.json`, for the model card.
      seconds: how long each file's latency is measured at one and at two threads; 0: not at all.
      progress: told in a line what is going on.

    Raises:
      UsageError: the directory holds something else, or ticket, data and formats do not fit.
      ExportMismatch: a file is farther from the ticket than the tolerance, or a zero of the ticket
        is none in the file; nothing is left behind.
    """
    _check(directory, examples, formats, encoding)
    model = ticket.model()
    temperature = temperature_of(ticket) if scaled else 1.0
    # Another copy than the temperature is folded into: the comparison covers that step too.
    runner = KerasRunner(ticket.model())
    if scaled:
        fold_temperature(model, temperature)
    compaction = compact(model)
    # Writing keeps one processor busy: the ticket, and what is written already, run meanwhile.
    with _replacing(directory) as (files, work), Background() as background:
        running = background.run(runner, examples.inputs)
        maker = Maker(model, compaction, output, examples.material, work)
        written = {}
        for name in formats:
            row = FORMATS[name]
            progress(f"{row.file}: writing")
            made = maker.make(row, encoding, files, refitted=scaled)
            written[name] = made, background.run(open_model(made.path).runner, examples.inputs)
        against = {
            DENSE: maker.reference(dense or ticket.dense(), "dense"),
            MASKED: maker.reference(model, "masked"),
        }
        progress(f"running all of them on {len(examples.labels):,} examples")
        truth = np.divide(running.result(), temperature, dtype=np.float32)
        if output == PROBABILITIES:
            truth = softmax(truth, axis=-1)
        held = {}
        for name, (made, found) in written.items():
            held[name] = _hold(
                FORMATS[name],
                made,
                examples.labels,
                truth,
                found.result(),
                bins=bins,
                tolerance=tolerance,
                probabilities=output == PROBABILITIES,
            )
            progress(
                f"{made.path.name}: agrees with the ticket on {len(examples.labels):,} examples"
            )
        parity = {
            **_compared(ticket, examples, output, temperature, bins, tolerance),
            "files": {name: one.told(temperature) for name, one in held.items()},
        }
        if seconds:
            progress("measuring latency")
        told = _verdict(held.values(), against, model, compaction, seconds)
        facts = {
            "experiment": (origin or {}).get("experiment", {}),
            "data": (origin or {}).get("realised", {}),
            "record": ticket.record,
            "parity": parity,
            "verdict": told.as_dict(),
            "input": _input(ticket, runner.shape),
            **_shown(list(held.values()), examples, output, bins),
        }
        model_card.write(files, facts)
        for name, content in ((PARITY, parity), (VERDICT, told.as_dict())):
            (files / name).write_text(f"{json.dumps(content, indent=2)}\n")
    return Exported.read(directory)


@contextlib.contextmanager
def _replacing(directory: Path) -> Iterator[tuple[Path, Path]]:
    """Two new directories, for what is to stand at `directory` and for scratch.

    The first one takes `directory`'s place at the end, and only without an error; nothing else is
    left behind.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        files = work / "files"
        files.mkdir()
        yield files, work
        for part in parts(files):
            flush(part)
        before = work / "before"
        if directory.exists():
            directory.rename(before)
        try:
            files.rename(directory)
        except OSError:
            if before.exists():
                before.rename(directory)
            raise
        flush(directory.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class _Held:
    """A file that was written and agrees with its ticket, and what it gives for the examples."""

    made: Made
    parity: Parity
    outputs: NDArray[np.float32]

    def told(self, temperature: float) -> dict[str, Any]:
        """Its row of `parity.json`; `temperature` is what the network was divided by."""
        return {
            "file": self.made.path.name,
            "encoding": self.made.encoding,
            "temperature": temperature * self.made.temperature,
            "bytes": self.made.sizes[self.made.encoding],
            "bytes_by_encoding": self.made.sizes,
            "zeros": sum(tensor.zeros for tensor in self.made.tensors),
            **dataclasses.asdict(self.parity),
        }


def _hold(
    row: Format,
    made: Made,
    labels: NDArray,
    truth: NDArray[np.float32],
    found: NDArray[np.float32],
    *,
    bins: int,
    tolerance: Tolerance,
    probabilities: bool,
) -> _Held:
    """Holds what a file gives against what the ticket gives; raises ExportMismatch."""
    parity = compare(
        row.file,
        labels,
        truth,
        found,
        bins=bins,
        exact=row.tolerance == "float",
        tolerance=tolerance,
        probabilities=probabilities,
    )
    return _Held(made, parity, found)


def _compared(
    ticket: Ticket,
    examples: Examples,
    output: str,
    temperature: float,
    bins: int,
    tolerance: Tolerance,
) -> dict[str, Any]:
    """What `parity.json` says of the comparison as a whole."""
    return {
        "ticket": ticket.digest,
        "level": ticket.level,
        "output": output,
        "temperature": temperature,
        "split": examples.split,
        "examples": len(examples.labels),
        "ece_bins": bins,
        "tolerance": dataclasses.asdict(tolerance),
    }


def _shown(held: Sequence[_Held], examples: Examples, output: str, bins: int) -> dict[str, Any]:
    """The file that a card shows, and its reliability; the last one that needs no TensorFlow."""
    portable = [one for one in held if one.made.path.suffix == ".tflite"]
    main = (portable or held)[-1]
    logits = logits_of(main.outputs, 0.0) if output == PROBABILITIES else main.outputs
    reliability = model_card.reliability_of(prediction_bins(examples.labels, logits, bins=bins))
    return {"main": main.made.path.name, "reliability": reliability}


def exported(
    ticket: Ticket, directory: Path, *, formats: Sequence[str], scaled: bool
) -> Exported | None:
    """What an earlier export of just this ticket left there, in these formats, so scaled; else None."""
    try:
        there = Exported.read(directory)
        same = tuple(there.parity[key] for key in ("ticket", "temperature", "output"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    temperature = temperature_of(ticket) if scaled else 1.0
    if same != (ticket.digest, temperature, LOGITS) or set(there.files) != set(formats):
        return None
    return there if all(path.exists() for path in there.files.values()) else None


def _check(
    directory: Path, examples: Examples, formats: Sequence[str], encoding: str | None
) -> None:
    """Refuses what cannot be exported, before anything is done."""
    if not len(examples.labels):
        raise UsageError("export compares the files with the ticket on examples: give at least one")
    if not formats:
        raise FieldError("formats", "", f"choose of {', '.join(FORMATS)}")
    for name in formats:
        row = file_format(name)
        if encoding and ENCODINGS[encoding].sparse and not row.encoder:
            problem = f"there is no sparse encoding of {name}: choose dense or compact"
            raise FieldError("encoding", encoding, problem)
    taken = directory.exists() and not (directory / PARITY).exists()
    if taken and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(
            f"{directory} holds something else than an export: choose another directory"
        )


def _input(ticket: Ticket, shape: Sequence[int | None]) -> dict[str, Any]:
    """What a user of the files must feed."""
    inside = "Scaling is part of the file: feed values as the data have them."
    known = None if ticket.input_range is None else [0.0, ticket.input_range]
    return {"shape": list(shape), "range": known, "scaling": inside}


def _verdict(
    held: Collection[_Held],
    against: Mapping[str, Path],
    masked: "keras.Model",
    compaction: Compaction,
    seconds: float,
) -> Verdict:
    """What the sparsity turned into, held against the dense network's file and the masked one's."""
    made = {one.made.path.name: one.made for one in held}
    paths = {**against, **{file: one.path for file, one in made.items()}}
    runs = {name: path for name, path in paths.items() if path.suffix == ".tflite"}
    return verdict(
        masked,
        compaction,
        {file: one.tensors for file, one in made.items()},
        paths=paths,
        encodings={file: one.encoding for file, one in made.items()},
        latency=latency.measure(runs, seconds=seconds) if seconds else {},
        sparse_bytes={
            file: one.sizes["sparse"] for file, one in made.items() if "sparse" in one.sizes
        },
    )

"""The steps of an export: write the files, verify them against the ticket, report."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lotcal_tf.compat import keras
from lotcal_tf.config.arguments import ExportArguments
from lotcal_tf.config.export_record import LABELS, PARITY, SPARSITY_REPORT
from lotcal_tf.config.registry import FORMATS, LITERT
from lotcal_tf.deploy import latency, model_card
from lotcal_tf.deploy.background import Background
from lotcal_tf.deploy.candidates import Candidates, WrittenFile
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.parity import Parity, Tolerance, compare
from lotcal_tf.deploy.scaling import fold_temperature
from lotcal_tf.deploy.sparsity_report import DENSE, MASKED, SparsityReport, sparsity_report
from lotcal_tf.errors import UsageError
from lotcal_tf.evaluation.open_model import Opened
from lotcal_tf.formats.batches import spread
from lotcal_tf.formats.keras import KerasRunner
from lotcal_tf.formats.outputs import PROBABILITIES, logits_of
from lotcal_tf.inputs import Specs, by_name, count, example_shape, select, specs_of
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.metrics import prediction_bins
from lotcal_tf.metrics.intervals import LEVEL
from lotcal_tf.models.precision import in_float32
from lotcal_tf.pruning.compaction import Compaction, compact

_PROBED = 8  # examples on which the folded temperature is verified


@dataclasses.dataclass(frozen=True)
class Job:
    """The arguments of `export`, which its steps share."""

    ticket: Ticket
    examples: Examples
    options: ExportArguments
    temperature: float  # the divisor of the network's logits
    tolerance: Tolerance
    bins: int
    dense: "keras.Model | None"
    origin: Mapping[str, Any]
    class_names: Sequence[str]
    progress: Callable[[str], None]

    @property
    def scaled(self) -> bool:
        """Whether a temperature is folded in, and a new one fitted to quantised files."""
        return self.options.scaled is not False

    @property
    def probabilities(self) -> bool:
        """Whether files give probabilities."""
        return self.options.output == PROBABILITIES


@dataclasses.dataclass(frozen=True)
class Written:
    """The result of writing.

    Attributes:
      model: the plain network in the files, with any temperature folded in.
      compaction: of that network.
      ticket_outputs: the outputs of the ticket, before any temperature.
      files: each file with its outputs, by format.
      references: the dense and the masked network as `.tflite` files, by name; none if TFLite cannot
        run them.
    """

    model: "keras.Model"
    compaction: Compaction
    ticket_outputs: "Future[NDArray[np.float32]]"
    files: Mapping[str, "tuple[WrittenFile, Future[NDArray[np.float32]]]"]
    references: Mapping[str, Path]


def write(job: Job, target: Path, scratch: Path, background: Background) -> Written:
    """Writes all files; the ticket, and the files already written, are run in the background.

    A network that was trained in mixed precision computes in float32 here and in the files.

    Raises:
      UsageError, ExportMismatch: see `export`.
    """
    model = in_float32(job.ticket.model())
    inputs = _named(job.examples.inputs, model)
    # The ticket runs as a second copy without the temperature: this verifies the folding, too.
    runner = KerasRunner(in_float32(job.ticket.model()))
    ticket = Opened(Path("the ticket"), "ticket", runner)
    ticket.check_fits(example_shape(inputs), job.examples.classes, f"the {job.examples.split} data")
    material = dataclasses.replace(job.examples.material, examples=inputs)
    if material.validation is not None:
        material = dataclasses.replace(material, validation=_named(material.validation, model))
        ticket.check_fits(example_shape(material.validation), None, "the validation data")
    if material.training is not None:
        ticket.check_fits(material.training.shape, None, "the training data")
    if job.scaled:
        fold_temperature(model, job.temperature, select(inputs, spread(count(inputs), _PROBED)))
    compaction = compact(model)
    ticket_outputs = background.run(runner, inputs)
    example = select(inputs, slice(1))
    candidates = Candidates(model, compaction, job.options.output, material, scratch, example)
    files = {}
    for name in job.options.formats:
        job.progress(f"{FORMATS[name].file}: writing")
        file = candidates.write(
            name, job.options.encoding, target, prefer=job.options.prefer, refitted=job.scaled
        )
        files[name] = file, background.run(file.row.load().runner(file.path), inputs)
    references = {}
    # A network that TFLite cannot run can be exported to other formats, without this comparison.
    with contextlib.suppress(UsageError):
        dense = in_float32(job.dense or job.ticket.dense())
        references[DENSE] = candidates.reference(dense, "dense")
        references[MASKED] = candidates.reference(model, "masked")
    return Written(model, compaction, ticket_outputs, files, references)


def _named(inputs: Any, model: "keras.Model") -> Any:
    """Several inputs by name, as files take them; a tuple is in the order of the ticket's model."""
    specs = specs_of(model)
    return by_name(inputs, specs) if len(specs) > 1 and count(inputs) else inputs


@dataclasses.dataclass(frozen=True)
class Verified:
    """A file that agrees with the ticket, with its outputs for the examples."""

    file: WrittenFile
    parity: Parity
    outputs: NDArray[np.float32]


def verify(job: Job, written: Written) -> dict[str, Verified]:
    """Compares the outputs of every file with those of the ticket.

    Raises:
      ExportMismatch: a file differs by more than the tolerance.
    """
    labels = job.examples.labels
    job.progress(f"running all files on {len(labels):,} examples")
    truth = np.divide(written.ticket_outputs.result(), job.temperature, dtype=np.float32)
    if job.probabilities:
        truth = softmax(truth, axis=-1)
    verified = {}
    for name, (file, outputs) in written.files.items():
        found = outputs.result()
        parity = compare(
            file.row.file,
            labels,
            truth,
            found,
            bins=job.bins,
            exact=not file.row.quantised,
            tolerance=job.tolerance,
            probabilities=job.probabilities,
        )
        verified[name] = Verified(file, parity, found)
        job.progress(f"{file.path.name}: agrees with the ticket on {len(labels):,} examples")
    return verified


def report(job: Job, target: Path, written: Written, verified: Mapping[str, Verified]) -> None:
    """Writes `parity.json`, `sparsity_report.json`, `labels.txt` and the model card."""
    parity = _parity(job, verified)
    sparsity = _sparsity_report(job, written).as_dict()
    main = _main_file(verified)
    logits = logits_of(main.outputs, 0.0) if job.probabilities else main.outputs
    bins = prediction_bins(job.examples.labels, logits, bins=job.bins)
    facts = {
        "experiment": job.origin.get("experiment", {}),
        "data": job.origin.get("realised", {}),
        "class_names": list(job.class_names),
        "license": job.options.license,
        "record": job.ticket.record,
        "parity": parity,
        "sparsity_report": sparsity,
        "input": _input(job.ticket, specs_of(written.model)),
        "main": main.file.path.name,
        "reliability": model_card.reliability_of(bins),
    }
    if job.class_names:
        (target / LABELS).write_text("".join(f"{name}\n" for name in job.class_names), "utf-8")
    model_card.write(target, facts)
    for name, content in ((PARITY, parity), (SPARSITY_REPORT, sparsity)):
        (target / name).write_text(f"{json.dumps(content, indent=2)}\n")


def _parity(job: Job, verified: Mapping[str, Verified]) -> dict[str, Any]:
    """The content of `parity.json`."""
    return {
        "ticket": job.ticket.digest,
        "level": job.ticket.level,
        "output": job.options.output,
        "requested_encoding": job.options.encoding,
        "prefer": job.options.prefer,
        "temperature": job.temperature,
        "data": job.examples.data,
        "of_run": job.examples.of_run,
        "split": job.examples.split,
        "examples": len(job.examples.labels),
        "ece_bins": job.bins,
        "tolerance": dataclasses.asdict(job.tolerance),
        "interval_level": LEVEL,
        "files": {
            name: {
                "file": one.file.path.name,
                "encoding": one.file.encoding,
                "temperature": job.temperature * one.file.temperature,
                "bytes": one.file.sizes[one.file.encoding],
                "bytes_by_encoding": one.file.sizes,
                "zeros": sum(tensor.zeros for tensor in one.file.tensors),
                **dataclasses.asdict(one.parity),
            }
            for name, one in verified.items()
        },
    }


def _sparsity_report(job: Job, written: Written) -> SparsityReport:
    """What the zeros save, in comparison with the dense and the masked network."""
    files = {file.path.name: file for file, _ in written.files.values()}
    paths, encodings, timed = (dict(written.references), {}, dict(written.references))
    for name, file in files.items():
        shown = {name: (file.encoding, file.path)}
        if (other := file.alternative) is not None:
            shown[f"{name} (prefer={other.prefer})"] = (other.encoding, other.path)
        for title, (encoding, path) in shown.items():
            paths[title], encodings[title] = path, encoding
            if file.row.runtime == LITERT:
                timed[title] = path
    if job.options.seconds:
        job.progress("measuring latency")
    example = by_name(select(job.examples.inputs, slice(1)), specs_of(written.model))
    return sparsity_report(
        written.model,
        written.compaction,
        {name: file.tensors for name, file in files.items()},
        paths=paths,
        encodings=encodings,
        latency=latency.measure(timed, example, seconds=job.options.seconds)
        if job.options.seconds
        else {},
    )


def _main_file(verified: Mapping[str, Verified]) -> Verified:
    """The file that the model card shows: the last one that runs without TensorFlow, if there is one."""
    files = list(verified.values())
    portable = [one for one in files if one.file.row.runtime == LITERT]
    return (portable or files)[-1]


def _input(ticket: Ticket, specs: Specs) -> dict[str, Any]:
    """The inputs of the files, for the model card."""
    shapes = {name: list(spec.shape[1:]) for name, spec in specs.items()}
    types = {name: spec.dtype.name for name, spec in specs.items()}
    if len(specs) == 1:
        shapes, types = (next(iter(one.values())) for one in (shapes, types))
    limits = None if ticket.input_range is None else [0.0, ticket.input_range]
    scaling = "Scaling is part of the file: pass values as they are in the data."
    return {"shape": shapes, "dtype": types, "range": limits, "scaling": scaling}

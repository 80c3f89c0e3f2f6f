"""Transfer: levels that start from the tickets of another run, and the controls for comparison.

`Sources` reads tickets from files, and `Transfer` adapts them to other data, to another strategy or
to a control. It changes the JSON of a ticket's architecture and its arrays.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.config.run_directory import (
    check_ticket,
    finished_levels,
    is_run,
    level_path,
    read_experiment,
)
from lotcal_tf.data.splits import Dataset
from lotcal_tf.errors import DamagedTicket, FieldError, UsageError
from lotcal_tf.inputs import misfit, specs_of
from lotcal_tf.lottery.store import RunStore, read_ticket
from lotcal_tf.lottery.ticket import Record, Ticket, from_architecture
from lotcal_tf.models.initial import redraw
from lotcal_tf.models.stateless_dropout import StrategyDropout
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.rewind import masked_start
from lotcal_tf.seeds import generator


class Sources:
    """The tickets that the field `ticket` names. All are verified; only the first stays in memory.

    Args:
      path: `RUN/tickets/level_NN` for one ticket, `RUN` for the tickets of all its finished levels.

    Attributes:
      every_level: whether `path` is a run.
      directories: the directory of each ticket.
      digests: the digest of each ticket.
      first: the first ticket.
      found_by: the fields and hyperparameters on which the run that found them depends; empty if unknown.
      notes: messages for the user.

    Raises:
      UsageError: there is no ticket, one is damaged, or the tickets are of different models.
    """

    def __init__(self, path: str) -> None:
        """Reads the first ticket and checks that the others are of its model."""
        check_ticket(path)
        self.path = Path(path)
        self.every_level = is_run(self.path)
        self.notes: tuple[str, ...] = ()
        self.directories = [self.path]
        if self.every_level:
            levels = range(finished_levels(self.path))
            self.directories = [level_path(self.path, level) for level in levels]
            if not self.directories:
                raise FieldError("ticket", path, "this run has no finished level yet")
        self.first = self.read(0)
        self.digests = [self.first.digest]
        for place in range(1, len(self.directories)):
            ticket = self.read(place)
            if _kind(ticket) != _kind(self.first):
                problem = f"{self.directories[place].name} holds another model than level_00"
                raise FieldError("ticket", path, problem)
            self.digests.append(ticket.digest)
        self.found_by = _found_by(self.path if self.every_level else self.path.parent.parent)
        self.content = {"ticket": self.digests[0]}
        if self.every_level:
            recorded = RunStore(self.path).experiment()
            # The run id and the first ticket determine the other tickets. Their digests are left out,
            # so that more levels can be taken when the source run has more; `check_same` compares
            # the digest of each finished level.
            self.content = {"run": f"{recorded.get('run_id')}/{self.digests[0]}"}
            levels_planned = recorded.get("experiment", {}).get("levels", 0) + 1
            if levels_planned > len(self.digests):
                self.notes = (
                    f"{path}: {len(self.digests)} of its {levels_planned} levels are finished, and used; run the same "
                    "command again to use the others once they are finished",
                )

    def read(self, place: int) -> Ticket:
        """Reads a ticket by its index.

        Raises:
          FieldError: it is missing or damaged.
        """
        directory = self.directories[place]
        try:
            return read_ticket(directory)
        except DamagedTicket as error:
            raise FieldError("ticket", directory, str(error)) from error

    def check_levels(self, levels: int) -> None:
        """Raises FieldError if the source run has fewer finished levels than requested."""
        if self.every_level and levels >= len(self.digests):
            problem = f"{self.path} has {len(self.digests)} finished levels: at most {len(self.digests) - 1}"
            raise FieldError("levels", levels, problem)

    def check_same(self, records: Sequence[Record]) -> None:
        """Raises FieldError if a finished level was trained from a ticket that has changed since."""
        for record, digest in zip(records, self.digests, strict=False):
            if record.get("source", digest) != digest:
                problem = (
                    f"level {record['level']} was trained from another ticket; choose another out"
                )
                raise FieldError("ticket", self.path, problem)


def _kind(ticket: Ticket) -> tuple[Any, ...]:
    """What all tickets of a run have in common."""
    arrays = (ticket.masks, ticket.rewind)
    return ticket.architecture, *({n: v.shape for n, v in one.items()} for one in arrays)


class Transfer(Sequence[Ticket]):
    """The tickets of `sources`, each adapted to an experiment and its data when it is accessed.

    Args:
      sources: the tickets.
      experiment: its seed, strategy and control are used.
      dataset: its input shape, input range and number of classes are used.

    Raises:
      UsageError: the tickets' model does not fit the data.
    """

    def __init__(self, sources: Sources, experiment: Experiment, dataset: Dataset) -> None:
        """Checks that the tickets fit the data."""
        self.sources, self.experiment, self.dataset = sources, experiment, dataset
        sources.first.network()  # Refuses tensors that do not fit the ticket's own model.
        check_shape(sources.first, dataset.train.shape)
        # Level 0 is accessed twice: by checks before training, and by training.
        self._ready = functools.lru_cache(maxsize=1)(self._make_ready)

    def __len__(self) -> int:
        return len(self.sources.directories)

    @overload
    def __getitem__(self, place: int) -> Ticket: ...

    @overload
    def __getitem__(self, place: slice) -> list[Ticket]: ...

    def __getitem__(self, place: int | slice) -> Ticket | list[Ticket]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._ready(place)

    def _make_ready(self, place: int) -> Ticket:
        ticket, seed = self.sources.read(place), self.experiment.seed
        ready = with_dropout(ticket, self.experiment.settings.get("dropout_rate", 0.0))
        ready = with_range(ready, self.dataset.input_range)
        ready = with_classes(ready, self.dataset.classes, seed)
        if self.experiment.control == "random_mask":
            ready = with_random_masks(ready, seed)
        elif self.experiment.control == "redrawn_weights":
            ready = with_redrawn_weights(ready, seed)
        source = {"source_level": ticket.level, "source": self.sources.digests[place]}
        trained = masked_start(ready.rewind, ready.masks)
        return dataclasses.replace(ready, trained=trained, record={}, history=(), source=source)

    def describe(self) -> dict[str, Any]:
        """The entry of `experiment.json`: where the tickets come from, and what was changed in them."""
        last = self.experiment.levels + 1
        before, after = self.sources.first, self[0]
        return {
            "tickets": [str(path) for path in self.sources.directories[:last]],
            "digests": self.sources.digests[:last],
            "found_by": self.sources.found_by,
            "control": self.experiment.control,
            "output_layer": _change(_classes(before), _classes(after), "classes", "redrawn: "),
            "input_range": _change(before.input_range, after.input_range, "", "rescaled: "),
            "dropout": _change(_rates(before), _rates(after), "", "rates: "),
        }


def _found_by(run: Path) -> dict[str, Any]:
    """The fields and hyperparameters on which the results of a run depend; nothing if there is no such run."""
    try:
        record = read_experiment(run).get("experiment", {})
    except UsageError:
        return {}
    names = [name for name, field in FIELDS.items() if field.metadata["identity"]]
    return {name: record[name] for name in (*names, "settings") if name in record}


def _change(before: Any, after: Any, unit: str, verb: str) -> str:
    """`as in the ticket`, or `redrawn: 10 → 100 classes`."""
    return "as in the ticket" if before == after else f"{verb}{before} → {after} {unit}".rstrip()


def with_dropout(ticket: Ticket, rate: float) -> Ticket:
    """The ticket with another rate in the dropout layers that a strategy added to its model.

    Dropout layers of the user's own model stay unchanged.
    """
    config = json.loads(ticket.architecture)
    for layer in _strategy_dropout(config):
        layer["config"]["rate"] = rate
    return dataclasses.replace(ticket, architecture=_text(config))


def with_range(ticket: Ticket, input_range: float | None) -> Ticket:
    """The ticket for inputs of another range, by which the layer `scaling` of built-in models divides.

    Nothing is changed if one of the ranges is unknown.

    Raises:
      UsageError: the ranges differ, and the model has no such layer.
    """
    before = ticket.input_range
    if before == input_range or before is None or input_range is None:
        return ticket
    config = json.loads(ticket.architecture)
    layer = dict(_layers(config)).get("scaling")
    if layer is None or layer["class_name"] != "Rescaling":
        raise UsageError(
            f"the ticket was found on inputs of 0 … {before:g}, the data has 0 … {input_range:g}, and the ticket's "
            "model has no layer `scaling` that could be adapted"
        )
    scale = np.asarray(layer["config"]["scale"]) * (before / input_range)
    layer["config"]["scale"] = scale.tolist()
    return dataclasses.replace(ticket, architecture=_text(config), input_range=input_range)


def with_classes(ticket: Ticket, classes: int, seed: int) -> Ticket:
    """The ticket for another number of classes, with a new random output layer that is not pruned.

    Args:
      ticket: returned unchanged if it has this number of classes.
      classes: the number of classes.
      seed: determines the new weights.

    Raises:
      UsageError: the configuration of the output layer has neither `units` nor `filters`.
    """
    if _classes(ticket) == classes:
        return ticket
    output = masking.output_layer(
        from_architecture(ticket.architecture, stored=ticket.stored_bytes)
    )
    config = json.loads(ticket.architecture)
    layer = dict(_layers(config))[output]
    width = next((key for key in ("units", "filters") if key in layer["config"]), None)
    if width is None:
        raise UsageError(
            f"the ticket has {_classes(ticket)} classes, the data has {classes}, and the ticket's output layer "
            f"{output!r} ({layer['class_name']}) has neither `units` nor `filters` to change"
        )
    layer["config"][width] = classes
    architecture = _text(config)
    drawn = masking.values(redraw(from_architecture(architecture), seed, "output_layer"))
    own = {name: value for name, value in drawn.items() if name.rpartition("/")[0] == output}
    whole = {n: np.ones(value.shape, bool) for n, value in own.items() if n in ticket.masks}
    return dataclasses.replace(
        ticket,
        architecture=architecture,
        masks=ticket.masks | whole,
        rewind=ticket.rewind | own,
    )


def with_random_masks(ticket: Ticket, seed: int) -> Ticket:
    """A control: each tensor keeps as many weights as in the ticket, but randomly chosen ones.

    Raises:
      UsageError: the ticket has no values for its pruned weights, since it was found without
        rewinding.
    """
    masks = {}
    for name, mask in ticket.masks.items():
        if not mask.all() and not ticket.rewind[name][~mask].any():
            raise UsageError(
                f"control=random_mask: the ticket's {name} has no weights where it is pruned, so it was found "
                "without rewinding; use control=redrawn_weights, or a ticket of a run that rewinds"
            )
        draw = generator(seed, f"random_mask/{name}", ticket.level)
        masks[name] = draw.permutation(mask.ravel()).reshape(mask.shape)
    return dataclasses.replace(ticket, masks=masks)


def with_redrawn_weights(ticket: Ticket, seed: int) -> Ticket:
    """A control: the masks of the ticket with new random weights and initial BatchNorm statistics.

    Frozen layers keep their weights.
    """
    model = from_architecture(ticket.architecture, stored=ticket.stored_bytes)
    drawn = masking.values(redraw(model, seed, "redrawn_weights", ticket.level))
    kept = {name: ticket.rewind[name] for name in masking.frozen_weights(model)}
    return dataclasses.replace(ticket, rewind=drawn | kept)


def check_shape(ticket: Ticket, shape: Sequence[int]) -> None:
    """Raises UsageError if the ticket's model takes inputs of another shape; lists the differences."""
    takes = specs_of(from_architecture(ticket.architecture, stored=ticket.stored_bytes))
    if not misfit(takes, shape):
        return
    if len(takes) > 1:
        raise UsageError(
            f"the ticket's model takes the inputs {', '.join(takes)}, the data has one"
        )
    (taken,) = (tuple(spec.shape[1:]) for spec in takes.values())
    problem = f"the ticket's model takes inputs of shape {taken}, the data has {tuple(shape)}"
    config = json.loads(ticket.architecture)
    for _, layer in _layers(config):
        layer.pop("build_config", None)  # Otherwise the layer would be built for the old inputs.
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_input_shape"] = [None, *shape]
    try:
        other = from_architecture(_text(config))
    except UsageError:
        raise UsageError(f"{problem}, which its layers cannot take") from None
    tensors = masking.mismatches(masking.weight_variables(other), ticket.rewind)
    raise UsageError("; ".join([problem, *tensors]))


def _layers(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All layers of a model's configuration with their paths, including those of nested models."""
    for layer in config["config"]["layers"]:
        name = prefix + layer["config"]["name"]
        if "layers" in layer["config"]:
            yield from _layers(layer, f"{name}/")
        else:
            yield name, layer


def _strategy_dropout(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        layer for _, layer in _layers(config) if layer["class_name"] == StrategyDropout.__name__
    ]


def _rates(ticket: Ticket) -> list[float]:
    return [layer["config"]["rate"] for layer in _strategy_dropout(json.loads(ticket.architecture))]


def _classes(ticket: Ticket) -> int:
    return int(from_architecture(ticket.architecture, stored=ticket.stored_bytes).output_shape[-1])


def _text(config: dict[str, Any]) -> str:
    """As `architecture_of` writes it."""
    return json.dumps(config, sort_keys=True)

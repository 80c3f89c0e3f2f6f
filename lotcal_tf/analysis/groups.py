"""Groups the runs of a report by setting: what may differ inside a group, and what each line is called.

Runs of a group differ in strategy, criterion, rewinding, control, tickets and seed only; under label
noise in network and difficulty too. Runs that differ in anything else are in different groups, since
their metrics cannot be compared. A setting is everything of a group that varies, except for the seed.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun, grouped
from lotcal_tf.config.experiment import FIELDS, setting_owners, unmet_condition
from lotcal_tf.config.fields import as_json

VARIED = ("calib", "criterion", "rewind", "control", "seed")
# The value of a varied field that the others are compared with.
PLAIN = {name: str(FIELDS[name].default) for name in VARIED if name != "seed"}
BASELINE = PLAIN["calib"]
OF_NOISE = ("model", DIFFICULTY)
# Digests that belong to a varied field; those of tickets change with the run that found them, and those
# of initial weights with the seed.
_WEIGHTS = "initial_weights"
# Fields of the data that do not change the validation data.
_OF_TRAINING_DATA = ("augment", "memory_limit_mb", "shuffle_buffer")
_SOURCES = ("calib_source", "criterion_source")
_OF_VARIED = ("run", "ticket", *_SOURCES, _WEIGHTS)
# The fields that a title always names; `dataset` is a title that the user may have given.
_TITLE = ("dataset", "model")
TICKETS = "tickets"  # the strategy that found the tickets of a transfer
# A label names one of these where nothing differs.
_MAIN = (TICKETS, "calib")


@dataclasses.dataclass(frozen=True)
class Setting:
    """The finished runs of a group that differ in their seed only.

    Attributes:
      label: what distinguishes it from the other settings of its group.
      values: the varied fields by name, without those of the strategy's hyperparameters.
      settings: the hyperparameters.
      of_tickets: the hyperparameters and fields of the runs that found the tickets of a transfer.
      runs: by replicate, i.e. the seed; of a transfer together with the seed of its tickets.
    """

    label: str
    values: Mapping[str, Any]
    settings: Mapping[str, Any]
    of_tickets: Mapping[str, Any]
    runs: Mapping[Any, RecordedRun]

    @property
    def strategy(self) -> str:
        """The strategy; of a transfer the one that found the tickets."""
        return str(self.values.get(TICKETS, self.values["calib"]))

    @property
    def trained_by(self) -> set[str]:
        """How a transfer trains, in words that do not depend on the tickets; else nothing."""
        if TICKETS not in self.values:
            return set()
        calib = str(self.values["calib"])
        return {calib, *(["the strategy of the tickets"] if calib == self.strategy else [])}

    def is_baseline_of(self, other: "Setting", field: str) -> bool:
        """Whether it has the value in `PLAIN` of a field, and differs from another setting in nothing else."""
        own = {field, *((TICKETS,) if field == "calib" else ())}
        alike = all(v == other.values.get(n) for n, v in self.values.items() if n not in own)
        # Those of a strategy or criterion are the other's own; the rest must be equal.
        alike = alike and _within(self.settings, other.settings)
        if self is other or not alike:
            return False
        if field == "calib":
            trained = self.trained_by & other.trained_by or not self.trained_by
            alike = _within(self.of_tickets, other.of_tickets)
            return self.strategy == BASELINE and alike and bool(trained)
        return self.values.get(field) == PLAIN[field] and self.of_tickets == other.of_tickets


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs whose metrics can be compared.

    Attributes:
      title: data, network, and the fields in which it differs from other groups.
      runs: all of them, unfinished ones too.
      common: the fields that all have, by name.
      data: a key that groups on the same data share.
    """

    title: str
    runs: Sequence[RecordedRun]
    common: Mapping[str, Any]
    data: str

    @property
    def has_noise(self) -> bool:
        """Whether the training labels are noisy, so that sparse double descent is looked for."""
        return _has_noise(self.runs[0])

    @property
    def is_transfer(self) -> bool:
        """Whether its runs start from tickets."""
        return self.runs[0].source is not None

    @property
    def seeds_differ_in_weights(self) -> bool:
        """Whether own models of the same seed (and network) start from different weights."""
        return _differ_in_weights(self.runs, lambda run: [run.model, run.seed])

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """The settings of the finished runs; plain training first."""
        finished = [run for run in self.runs if run.is_finished]
        made = [
            Setting(
                label=self.label(runs[0]),
                values=_values(runs[0]),
                settings=runs[0].settings,
                of_tickets={} if (source := runs[0].source) is None else source.settings,
                runs=_by_replicate(runs),
            )
            for runs in grouped(finished, lambda run: _key(_varied(run)))
        ]
        # Stable: settings of one strategy stay in the order of the runs.
        order = list(dict.fromkeys(setting.strategy for setting in made))
        order.sort(key=lambda name: name != BASELINE)
        return sorted(made, key=lambda setting: order.index(setting.strategy))

    @property
    def finished(self) -> list[RecordedRun]:
        """Its finished runs, by setting."""
        return [run for setting in self.settings for run in setting.runs.values()]

    def baseline(self, setting: Setting, field: str = "calib") -> Setting | None:
        """The setting with the strategy `none`, or the plain value of another field, to compare a setting with."""
        found = [one for one in self.settings if one.is_baseline_of(setting, field)]
        # Several settings of a transfer can qualify: the one that trains with the same strategy comes first.
        found.sort(key=lambda one: one.values["calib"] != setting.values["calib"])
        return found[0] if found else None

    def label(self, run: RecordedRun) -> str:
        """What distinguishes a run from the others of its group, seed aside."""
        values, differing = _values(run), self._differing
        names = [n for n in values if n in differing] or [n for n in _MAIN if n in values][:1]
        parts = {name: values[name] for name in names}
        parts |= {
            name: v for name, owner, v in _settings(run) if len(self._spread[name, owner]) > 1
        }
        return ", ".join(f"{name}={_text(value)}" for name, value in parts.items())

    @functools.cached_property
    def _differing(self) -> set[str]:
        """The names of the varied fields in which the runs differ."""
        all_values = [_values(run) for run in self.runs]
        names = {name for values in all_values for name in values}
        found = {n for n in names if len({repr(values.get(n)) for values in all_values}) > 1}
        # The digest of an own class tells nothing beside its name, unless a run has another source of it.
        for source in found & {*_SOURCES}:
            method = source.removesuffix("_source")
            pairs = {(repr(v.get(method)), v.get(source)) for v in all_values}
            if len(pairs) == len({name for name, _ in pairs}):
                found.remove(source)
        return found

    @functools.cached_property
    def _spread(self) -> dict[tuple[str, str], set[str]]:
        """The values of each hyperparameter among the runs of its strategy or criterion."""
        found: dict[tuple[str, str], set[str]] = {}
        for run in self.runs:
            for name, owner, value in _settings(run):
                found.setdefault((name, owner), set()).add(repr(value))
        return found


def group(runs: Sequence[RecordedRun]) -> list[Group]:
    """The groups of runs, large ones first."""
    parts, commons = [], []
    for alike in grouped(runs, lambda run: _key(_common(run))):
        split = _by_weights(alike)
        parts += split
        commons += [_common(own[0], weights=len(split) > 1) for own in split]
    groups = [
        Group(_title(common, commons), own, common, _data_key(common))
        for common, own in zip(commons, parts, strict=True)
    ]
    return sorted(groups, key=lambda one: (-len(one.runs), one.title))


def _by_weights(runs: Sequence[RecordedRun]) -> list[list[RecordedRun]]:
    """Separates runs of models that differ in their initial weights although their seed is the same."""
    if not _differ_in_weights(runs, lambda run: [_varied(run), run.seed]):
        return [list(runs)]
    return grouped(runs, lambda run: run.content.get(_WEIGHTS))


def _differ_in_weights(runs: Sequence[RecordedRun], key: Callable[[RecordedRun], Any]) -> bool:
    """Whether runs with the same key start from different weights."""
    drawn = grouped(runs, lambda run: _key(key(run)))
    return any(len({run.content.get(_WEIGHTS) for run in own}) > 1 for own in drawn)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _within(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return all(others.get(name) == value for name, value in some.items())


def _settings(run: RecordedRun) -> list[tuple[str, str, Any]]:
    """What a run and the one that found its tickets are set to: name, strategy or criterion that has it, value."""
    own = {"calib": run.field("calib"), "criterion": run.field("criterion")}
    parts = [("", own, run.settings)]
    if (source := run.source) is not None:
        parts.append(("tickets' ", {**source.settings, "calib": source.calib}, source.settings))
    return [
        (f"{title}{name}", _owner(name, methods), value)
        for title, methods, values in parts
        for name, value in values.items()
    ]


def _owner(name: str, methods: Mapping[str, Any]) -> str:
    """The method to which a hyperparameter belongs; for other fields nothing."""
    if name in FIELDS:
        return ""
    criterion = f"criterion={methods.get('criterion')}"
    return criterion if criterion in setting_owners().get(name, ()) else f"calib={methods['calib']}"


def _has_noise(run: RecordedRun) -> bool:
    return bool(run.field("label_noise"))


def _by_replicate(runs: Sequence[RecordedRun]) -> dict[Any, RecordedRun]:
    """Runs by seed; of a transfer by its seed and that of its tickets."""
    found: dict[Any, RecordedRun] = {}
    for run in runs:
        key = run.seed if run.source is None else (run.seed, run.source.replicate)
        # Tickets whose runs are unknown may have the same key; such runs have no counterpart.
        found[(key, str(run.directory)) if key in found else key] = run
    return found


def _values(run: RecordedRun) -> dict[str, Any]:
    """The varied fields of a run that have a meaning, and the source of its tickets."""
    own: dict[str, Any] = {}
    if run.source is not None:
        own[TICKETS] = run.source.calib or "unknown"
        if "run" not in run.content and (level := run.metric("source_level", 0)) is not None:
            own["ticket_level"] = int(level)
    names = [name for name in VARIED if name != "seed"] + (
        list(OF_NOISE) if _has_noise(run) else []
    )
    own |= {name: run.field(name) for name in names if _applies(run, name)}
    return own | {n: run.content[n] for n in _SOURCES if n in run.content}


def _varied(run: RecordedRun) -> dict[str, Any]:
    """All that identifies the setting of a run in its group."""
    source = None if run.source is None else dict(run.source.settings)
    return {"values": _values(run), "settings": dict(run.settings), "tickets": source}


def _applies(run: RecordedRun, name: str) -> bool:
    # With a ticket for each level, nothing is pruned.
    pruned = "run" not in run.content or not FIELDS[name].metadata["of_pruning"]
    return pruned and unmet_condition(FIELDS[name], run.experiment) is None


def _common(run: RecordedRun, *, weights: bool = False) -> dict[str, Any]:
    """The fields and digests in which the runs of a group agree, with that of the initial weights or without."""
    varied = {*VARIED, *(OF_NOISE if _has_noise(run) else ())}
    found = {
        name: as_json(run.field(name))
        for name, field in FIELDS.items()
        if field.metadata["identity"] and name not in varied and _applies(run, name)
    }
    later = {n: v for n, v in run.fields.items() if n not in FIELDS and n != "settings"}
    left_out = {*_OF_VARIED} - ({_WEIGHTS} if weights else set())
    digests = {f"{n} (digest)": v for n, v in run.content.items() if n not in left_out}
    start = {"start": "tickets"} if run.source is not None else {}
    return {**found, **later, **digests, **start}


def _title(common: Mapping[str, Any], commons: Sequence[Mapping[str, Any]]) -> str:
    """The data and the network, and what distinguishes a group from the others."""
    names = dict.fromkeys(name for one in commons for name in one)
    differing = [
        name
        for name in names
        if name not in _TITLE and len({repr(one.get(name)) for one in commons}) > 1
    ]
    if len({one["dataset"] for one in commons}) > 1:
        differing = [name for name in differing if name != "source"]
    parts = [str(common[name]) for name in _TITLE if name in common]
    parts += [f"{name}={_text(common[name])}" for name in differing if name in common]
    return ", ".join(parts)


def _data_key(common: Mapping[str, Any]) -> str:
    """A text that groups share whose validation data and bins of the ECE are the same."""
    data = {
        name: value
        for name, value in common.items()
        if name not in FIELDS
        or FIELDS[name].metadata["section"] in ("Data", "Label noise", "Metrics")
        if name not in _OF_TRAINING_DATA
    }
    of_model = ("optimizer", "schedule", "lr_", "model", "start", "mc_eval", _WEIGHTS)
    data = {name: value for name, value in data.items() if not name.startswith(of_model)}
    return json.dumps(data, sort_keys=True, default=str)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value)) or "default"
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

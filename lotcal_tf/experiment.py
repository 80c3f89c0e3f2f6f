"""An experiment: everything its result depends on, as one frozen record.

The fields are data: flags, checks, identity and the record in `experiment.json` are all made from
them. A recipe and flags fill them, see `recipes`. No TensorFlow here.
"""

import dataclasses
import hashlib
import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from lotcal_tf import catalog
from lotcal_tf.errors import FieldError

Check = Callable[[Any], str | None]


def _field(
    default: Any,
    help: str,
    *,
    check: Check | None = None,
    choices: tuple[str, ...] = (),
    only_with: tuple[str, Callable[[Any], bool], str] | None = None,
    identity: bool = True,
    from_ticket: bool = False,
    of_strategy: bool = False,
    of_pruning: bool = False,
) -> Any:
    """A field: its default, its line of help, what values it can have, when it means anything.

    `only_with` names the field it depends on, the test of that field's value, and the words for
    it. `identity=False`: no result depends on it. `from_ticket`: a ticket brings it along.
    `of_strategy`: a hyperparameter of some strategies, whose rows in the catalog hold the defaults.
    `of_pruning`: says how a level follows from the one before, so it means nothing where each has a
    ticket to start from.
    """
    metadata = {
        "help": help,
        "check": check,
        "choices": choices,
        "only_with": only_with,
        "identity": identity,
        "from_ticket": from_ticket,
        "of_strategy": of_strategy,
        "of_pruning": of_pruning,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _at_least(minimum: float) -> Check:
    return lambda v: None if v >= minimum else f"must be at least {minimum:g}"


def _rate(value: float) -> str | None:
    return None if 0 < value < 1 else "must lie strictly between 0 and 1"


def _fraction(value: float) -> str | None:
    return None if 0 <= value < 1 else "must lie in [0, 1)"


def _is_positive(value: float) -> bool:
    return value > 0 and math.isfinite(value)


def _positive(value: float) -> str | None:
    return None if _is_positive(value) else "must be a finite number above 0"


def _not_negative(value: float) -> str | None:
    return None if value >= 0 and math.isfinite(value) else "must be a finite number, 0 or more"


def _rewind(value: str) -> str | None:
    if re.fullmatch(r"init|random|none|(step|epoch):[1-9]\d*", value):
        return None
    return "choose one of init, step:K, epoch:K, random, none (K counts from 1)"


def _drops(value: tuple[int, ...]) -> str | None:
    rising = all(a < b for a, b in zip((0, *value), value, strict=False))
    return None if rising else "must be rising epoch numbers, e.g. 80,120"


def _all_positive(value: tuple[float, ...]) -> str | None:
    return None if all(map(_is_positive, value)) else "must be finite numbers above 0"


def _all_finite(value: tuple[float, ...]) -> str | None:
    return None if all(map(math.isfinite, value)) else "must be finite numbers"


def _classes(value: tuple[int, ...]) -> str | None:
    return None if all(v >= 0 for v in value) else "must be class numbers, 0 or more"


def _dimensions(value: int) -> str | None:
    return None if 1 <= value <= 60 else "must be 1 to 60"


def _mc_eval(value: int) -> str | None:
    return None if value == 0 or value >= 2 else "must be 0, or at least 2"


def _prior(value: tuple[float, ...]) -> str | None:
    if not value or (all(v >= 0 for v in value) and abs(sum(value) - 1) < 1e-6):
        return None
    return "must be shares that are 0 or more and add up to 1"


_OF_MIXTURE = ("source", lambda v: v == "mixture", "--dataset=mixture")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One chain of levels: data, model, training, pruning. See each field's `help`."""

    dataset: str = _field("digits", "the recipe of that name: digits, mnist, fashion_mnist, …")
    source: str = _field(
        "", "the TFDS set, `digits` or `mixture`; default: the recipe's, or the dataset's name"
    )
    data_dir: str | None = _field(None, "where TFDS keeps its data", identity=False)
    validation_size: int | None = _field(
        None, "examples cut from training by seed; default: a tenth", check=_at_least(1)
    )
    half: str = _field(
        "whole",
        "train on the whole training set, or on one of two fixed halves of each class",
        choices=("whole", "a", "b"),
    )
    mixture_classes: int = _field(
        4, "classes of the mixture", check=_at_least(2), only_with=_OF_MIXTURE
    )
    mixture_clusters: int = _field(
        2,
        "Gaussians of each class of the mixture: how hard it is",
        check=_at_least(1),
        only_with=_OF_MIXTURE,
    )
    mixture_dimensions: int = _field(
        24, "dimensions of the mixture", check=_dimensions, only_with=_OF_MIXTURE
    )
    label_noise: float = _field(
        0.0, "share of training and validation labels that are made noisy", check=_fraction
    )
    noise_kind: str = _field(
        "symmetric",
        "a noisy label becomes any other class, any class at all, or its image in noise_map",
        choices=("symmetric", "uniform", "asymmetric"),
        only_with=("label_noise", _is_positive, "--label_noise"),
    )
    noise_map: tuple[int, ...] = _field(
        (),
        "the image of each class, e.g. 1,2,0",
        check=_classes,
        only_with=("noise_kind", lambda v: v == "asymmetric", "--noise_kind=asymmetric"),
    )
    augment: str = _field(
        "none",
        "random changes of training images: crop_flip pads 4, crops back and mirrors",
        choices=("none", "crop_flip"),
    )
    input_mean: tuple[float, ...] = _field(
        (),
        "mean of the inputs scaled to [0, 1], one or a channel each",
        check=_all_finite,
        from_ticket=True,
    )
    input_std: tuple[float, ...] = _field(
        (), "their standard deviation", check=_all_positive, from_ticket=True
    )
    memory_limit_mb: int = _field(
        2048, "data larger than this streams instead of staying in memory", check=_at_least(0)
    )
    shuffle_buffer: int = _field(
        10_000, "examples that a stream is shuffled over", check=_at_least(1)
    )
    model: str = _field(
        "lenet_300_100",
        "the network: lenet_300_100, resnet18, resnet20, vgg19, …; narrower ones by resnet20_8",
        from_ticket=True,
    )
    initializer: str = _field(
        "glorot_normal",
        "how weights are first drawn",
        choices=("glorot_normal", "glorot_uniform", "kaiming_normal", "kaiming_uniform"),
        from_ticket=True,
    )
    calib: str = _field("none", "the calibration strategy, or module:Class")
    calib_weight: float | None = _field(
        None, "weight of the strategy's own term", check=_not_negative, of_strategy=True
    )
    passes: int | None = _field(
        None, "T, stochastic passes of a step", check=_at_least(2), of_strategy=True
    )
    dropout_rate: float | None = _field(
        None,
        "rate of the dropout that is put into a catalog model",
        check=_fraction,
        of_strategy=True,
    )
    dropout_at: str | None = _field(
        None,
        "where: after each block of layers, or before the classifier only",
        choices=("blocks", "head"),
        of_strategy=True,
        from_ticket=True,
    )
    mixup_a: float | None = _field(None, "a of Beta(a, a)", check=_positive, of_strategy=True)
    prior: tuple[float, ...] | None = _field(
        None,
        "the classes' shares, e.g. 0.5,0.25,0.25; empty: uniform",
        check=_prior,
        of_strategy=True,
    )
    nba_bins: int | None = _field(None, "bins of confidence", check=_at_least(2), of_strategy=True)
    nba_width: float | None = _field(
        None, "width of their soft edges", check=_positive, of_strategy=True
    )
    optimizer: str = _field("adam", "the optimizer", choices=("adam", "sgd"))
    lr: float = _field(1.2e-3, "learning rate", check=_positive)
    momentum: float = _field(
        0.0,
        "momentum",
        check=_fraction,
        only_with=("optimizer", lambda v: v == "sgd", "--optimizer=sgd"),
    )
    weight_decay: float = _field(
        0.0, "L2 weight decay, added to every gradient as PyTorch does", check=_not_negative
    )
    lr_drops: tuple[int, ...] = _field(
        (), "epochs after which the learning rate drops", check=_drops
    )
    lr_drop_factor: float = _field(
        0.1,
        "what a drop multiplies the learning rate by",
        check=_rate,
        only_with=("lr_drops", bool, "--lr_drops"),
    )
    epochs: int = _field(10, "epochs a level", check=_at_least(1))
    batch_size: int = _field(60, "examples a step", check=_at_least(1))
    levels: int = _field(10, "prunings; level 0 is dense", check=_at_least(0), identity=False)
    prune_rate: float = _field(
        0.2, "share of the survivors that a level prunes", check=_rate, of_pruning=True
    )
    scope: str = _field(
        "local",
        "rank weights in each tensor, or all together",
        choices=("local", "global"),
        of_pruning=True,
    )
    output_prune_rate: float | None = _field(
        None,
        "the output layer's rate; default: half of prune_rate (global scope leaves that layer whole)",
        check=_fraction,
        only_with=("scope", lambda v: v == "local", "--scope=local"),
        of_pruning=True,
    )
    exclude: tuple[str, ...] = _field(
        (), "layers not pruned, by name; * and ? stand for letters", from_ticket=True
    )
    rewind: str = _field(
        "init", "init, step:K, epoch:K, random, none", check=_rewind, of_pruning=True
    )
    ticket: str = _field(
        "",
        "start from this ticket, RUN/tickets/level_NN; of RUN: a level from each of its tickets",
        identity=False,
    )
    control: str = _field(
        "none",
        "what a ticket is compared with: its counts with random masks, its masks with weights drawn anew",
        choices=("none", "random_mask", "redrawn_weights"),
        only_with=("ticket", bool, "--ticket"),
    )
    ece_bins: int = _field(15, "bins of the expected calibration error", check=_at_least(1))
    mc_eval: int = _field(
        0, "average the predictions of so many stochastic passes; 0: dropout off", check=_mc_eval
    )
    seed: int = _field(0, "seed of every random draw", check=_at_least(0))
    export_logits: str = _field(
        "scaled",
        "what exported files give: logits divided by the temperature, so that confidence fits, or raw ones",
        choices=("raw", "scaled"),
        identity=False,
    )
    plan: str = _field(
        "auto",
        "how a step is run: compiled whole (xla), or as a graph; auto: by model and device",
        choices=("auto", "xla", "graph"),
        identity=False,
    )
    distribute: str = _field(
        "none",
        "train on all devices of this machine (mirrored), or on all workers of TF_CONFIG",
        choices=("none", "mirrored", "multi_worker"),
        identity=False,
    )
    out: str | None = _field(None, "the run directory; default: runs/<run id>", identity=False)

    def __post_init__(self) -> None:
        """Checks every field by itself.

        Raises:
          FieldError: a value is of the wrong kind or outside its range.
        """
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _typed(field, getattr(self, field.name)))
        if len(self.input_mean) != len(self.input_std):
            raise FieldError(
                "input_std",
                self.input_std,
                f"must have as many values as input_mean={self.input_mean}",
            )

    @property
    def output_rate(self) -> float:
        """The rate the output layer is pruned at; 0 where it is left whole."""
        if self.scope == "global":
            return 0.0
        return self.prune_rate / 2 if self.output_prune_rate is None else self.output_prune_rate

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the strategy takes: the fields given, else the defaults of its row.

        A strategy of the user's own takes the fields that are given.
        """
        given = {
            name: getattr(self, name)
            for name, field in FIELDS.items()
            if field.metadata["of_strategy"] and getattr(self, name) is not None
        }
        defaults = catalog.strategy(self.calib).hyperparameters
        if self.calib in catalog.STRATEGIES:
            given = {name: value for name, value in given.items() if name in defaults}
        return {**defaults, **given}

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, as JSON can hold it."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    def identity(self, **content: str) -> dict[str, Any]:
        """The fields a result depends on, without those that hold their default or do not apply.

        Leaving out defaults keeps ids still when a later version adds a field.

        Args:
          **content: digests of what the fields only point to: a ticket, a user's arrays or model.
        """
        fields, hyperparameters = {}, self.hyperparameters
        for field in dataclasses.fields(self):
            value = hyperparameters.get(field.name, getattr(self, field.name))
            if field.metadata["identity"] and value != field.default and _applies(field, self):
                fields[field.name] = list(value) if isinstance(value, tuple) else value
        return fields | {k: v for k, v in content.items() if v}

    def run_id(self, **content: str) -> str:
        """A readable name that ends in a hash of `identity`."""
        text = json.dumps(self.identity(**content), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        calib = self.calib.rpartition(":")[2]
        return f"{self.dataset}-{self.model}-{calib}-{digest}"


FIELDS: Mapping[str, "dataclasses.Field[Any]"] = {f.name: f for f in dataclasses.fields(Experiment)}
_TYPES = typing.get_type_hints(Experiment)
_WORDS = {int: "a whole number", float: "a number", str: "a text"}


def _applies(field: "dataclasses.Field[Any]", values: Experiment) -> bool:
    """Whether the field means anything beside the other fields' values."""
    if field.metadata["of_strategy"]:
        return field.name in values.hyperparameters
    return _unmet(field, values) is None


def _unmet(field: "dataclasses.Field[Any]", values: Experiment) -> tuple[str, str] | None:
    """What a field would need to mean anything: the other field, and the words for its values."""
    if field.metadata["only_with"] is None:
        return None
    other, applies, words = field.metadata["only_with"]
    # A field that means nothing itself lends no meaning.
    return _unmet(FIELDS[other], values) if applies(getattr(values, other)) else (other, words)


def _scalar(field: str, kind: type, value: Any) -> Any:
    """`value`, from Python, TOML or the command line, as `kind`."""
    wrong = isinstance(value, bool) or (kind is str and not isinstance(value, str))
    wrong = wrong or (kind is int and isinstance(value, float) and not value.is_integer())
    if not wrong:
        try:
            return kind(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise FieldError(field, value, f"must be {_WORDS[kind]}")


def _typed(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """`value` in the field's type, or the FieldError that says what is wrong with it."""
    hint = _TYPES[field.name]
    if value is None and type(None) in typing.get_args(hint):
        return None
    given = value
    kinds = [hint] if typing.get_origin(hint) is tuple else typing.get_args(hint) or (hint,)
    (kind,) = (kind for kind in kinds if kind is not type(None))
    if typing.get_origin(kind) is tuple:
        kind, _ = typing.get_args(kind)
        parts = [p.strip() for p in value.split(",")] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            parts = [parts]
        value = tuple(_scalar(field.name, kind, p) for p in parts if p != "")
    else:
        value = _scalar(field.name, kind, value)
    choices, check = field.metadata["choices"], field.metadata["check"]
    if choices and value not in choices:
        raise FieldError(field.name, given, f"choose one of {', '.join(choices)}")
    problem = check(value) if check else None
    if problem:
        raise FieldError(field.name, given, problem)
    return value


def check_applies(experiment: Experiment, given: Mapping[str, Any]) -> None:
    """Raises FieldError where a field that was given means nothing beside the others' values."""
    for name, value in given.items():
        if _applies(FIELDS[name], experiment):
            continue
        unmet = _unmet(FIELDS[name], experiment)
        if unmet is None:
            users = [s for s, row in catalog.STRATEGIES.items() if name in row.hyperparameters]
            problem = (
                f"is no hyperparameter of calib={experiment.calib}; of {', '.join(users)} it is"
            )
        else:
            other, words = unmet
            problem = (
                f"only means something with {words}; here {other}={getattr(experiment, other)}"
            )
        raise FieldError(name, value, problem)

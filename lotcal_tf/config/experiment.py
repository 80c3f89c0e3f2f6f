"""An experiment: everything its result depends on, as one frozen record.

The fields are data: flags, checks, identity and the record in `experiment.json` are all made from
them. A recipe and flags fill them, see `recipes`. No TensorFlow here.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from typing import Any

from lotcal_tf.config import fields, registry
from lotcal_tf.config.fields import declared
from lotcal_tf.errors import FieldError

_OF_MIXTURE = ("source", lambda v: v == "mixture", "--dataset=mixture")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One chain of levels: data, model, training, pruning. See each field's `help`."""

    dataset: str = declared("digits", "the recipe of that name: digits, mnist, fashion_mnist, …")
    source: str = declared(
        "", "the TFDS set, `digits` or `mixture`; default: the recipe's, or the dataset's name"
    )
    data_dir: str | None = declared(None, "where TFDS keeps its data", identity=False)
    validation_size: int | None = declared(
        None, "examples cut from training by seed; default: a tenth", check=fields.at_least(1)
    )
    half: str = declared(
        "whole",
        "train on the whole training set, or on one of two fixed halves of each class",
        choices=("whole", "a", "b"),
    )
    mixture_classes: int = declared(
        4, "classes of the mixture", check=fields.at_least(2), only_with=_OF_MIXTURE
    )
    mixture_clusters: int = declared(
        2,
        "Gaussians of each class of the mixture: how hard it is",
        check=fields.at_least(1),
        only_with=_OF_MIXTURE,
    )
    mixture_dimensions: int = declared(
        24, "dimensions of the mixture", check=fields.dimensions, only_with=_OF_MIXTURE
    )
    label_noise: float = declared(
        0.0, "share of training and validation labels that are made noisy", check=fields.fraction
    )
    noise_kind: str = declared(
        "symmetric",
        "a noisy label becomes any other class, any class at all, or its image in noise_map",
        choices=("symmetric", "uniform", "asymmetric"),
        only_with=("label_noise", lambda v: v > 0, "--label_noise"),
    )
    noise_map: tuple[int, ...] = declared(
        (),
        "the image of each class, e.g. 1,2,0",
        check=fields.classes,
        only_with=("noise_kind", lambda v: v == "asymmetric", "--noise_kind=asymmetric"),
    )
    augment: str = declared(
        "none",
        "random changes of training images: crop_flip pads 4, crops back and mirrors",
        choices=("none", "crop_flip"),
    )
    input_mean: tuple[float, ...] = declared(
        (),
        "mean of the inputs scaled to [0, 1], one or a channel each",
        check=fields.all_finite,
        from_ticket=True,
    )
    input_std: tuple[float, ...] = declared(
        (), "their standard deviation", check=fields.all_positive, from_ticket=True
    )
    memory_limit_mb: int = declared(
        2048, "data larger than this streams instead of staying in memory", check=fields.at_least(0)
    )
    shuffle_buffer: int = declared(
        10_000, "examples that a stream is shuffled over", check=fields.at_least(1)
    )
    model: str = declared(
        "lenet_300_100",
        "the network: lenet_300_100, resnet18, resnet20, vgg19, …; narrower ones by resnet20_8",
        from_ticket=True,
    )
    initializer: str = declared(
        "glorot_normal",
        "how weights are first drawn",
        choices=("glorot_normal", "glorot_uniform", "kaiming_normal", "kaiming_uniform"),
        from_ticket=True,
    )
    calib: str = declared("none", "the calibration strategy, or module:Class")
    calib_weight: float | None = declared(
        None, "weight of the strategy's own term", check=fields.not_negative, of_strategy=True
    )
    passes: int | None = declared(
        None, "T, stochastic passes of a step", check=fields.at_least(2), of_strategy=True
    )
    dropout_rate: float | None = declared(
        None,
        "rate of the dropout that is put into a catalog model",
        check=fields.fraction,
        of_strategy=True,
    )
    dropout_at: str | None = declared(
        None,
        "where: after each block of layers, or before the classifier only",
        choices=("blocks", "head"),
        of_strategy=True,
        from_ticket=True,
    )
    mixup_a: float | None = declared(
        None, "a of Beta(a, a)", check=fields.positive, of_strategy=True
    )
    prior: tuple[float, ...] | None = declared(
        None,
        "the classes' shares, e.g. 0.5,0.25,0.25; empty: uniform",
        check=fields.prior,
        of_strategy=True,
    )
    nba_bins: int | None = declared(
        None, "bins of confidence", check=fields.at_least(2), of_strategy=True
    )
    nba_width: float | None = declared(
        None, "width of their soft edges", check=fields.positive, of_strategy=True
    )
    optimizer: str = declared("adam", "the optimizer", choices=("adam", "sgd"))
    lr: float = declared(1.2e-3, "learning rate", check=fields.positive)
    momentum: float = declared(
        0.0,
        "momentum",
        check=fields.fraction,
        only_with=("optimizer", lambda v: v == "sgd", "--optimizer=sgd"),
    )
    weight_decay: float = declared(
        0.0, "L2 weight decay, added to every gradient as PyTorch does", check=fields.not_negative
    )
    lr_drops: tuple[int, ...] = declared(
        (), "epochs after which the learning rate drops", check=fields.drops
    )
    lr_drop_factor: float = declared(
        0.1,
        "what a drop multiplies the learning rate by",
        check=fields.rate,
        only_with=("lr_drops", bool, "--lr_drops"),
    )
    epochs: int = declared(10, "epochs a level", check=fields.at_least(1))
    batch_size: int = declared(60, "examples a step", check=fields.at_least(1))
    levels: int = declared(
        10, "prunings; level 0 is dense", check=fields.at_least(0), identity=False
    )
    prune_rate: float = declared(
        0.2, "share of the survivors that a level prunes", check=fields.rate, of_pruning=True
    )
    scope: str = declared(
        "local",
        "rank weights in each tensor, or all together",
        choices=("local", "global"),
        of_pruning=True,
    )
    output_prune_rate: float | None = declared(
        None,
        "the output layer's rate; default: half of prune_rate (global scope leaves that layer whole)",
        check=fields.fraction,
        only_with=("scope", lambda v: v == "local", "--scope=local"),
        of_pruning=True,
    )
    exclude: tuple[str, ...] = declared(
        (), "layers not pruned, by name; * and ? stand for letters", from_ticket=True
    )
    rewind: str = declared(
        "init", "init, step:K, epoch:K, random, none", check=fields.rewind, of_pruning=True
    )
    ticket: str = declared(
        "",
        "start from this ticket, RUN/tickets/level_NN; of RUN: a level from each of its tickets",
        identity=False,
    )
    control: str = declared(
        "none",
        "what a ticket is compared with: its counts with random masks, its masks with weights drawn anew",
        choices=("none", "random_mask", "redrawn_weights"),
        only_with=("ticket", bool, "--ticket"),
    )
    ece_bins: int = declared(15, "bins of the expected calibration error", check=fields.at_least(1))
    mc_eval: int = declared(
        0,
        "average the predictions of so many stochastic passes; 0: dropout off",
        check=fields.mc_eval,
    )
    seed: int = declared(0, "seed of every random draw", check=fields.at_least(0))
    export_logits: str = declared(
        "scaled",
        "what exported files give: logits divided by the temperature, so that confidence fits, or raw ones",
        choices=("raw", "scaled"),
        identity=False,
    )
    plan: str = declared(
        "auto",
        "how a step is run: compiled whole (xla), or as a graph; auto: by model and device",
        choices=("auto", "xla", "graph"),
        identity=False,
    )
    distribute: str = declared(
        "none",
        "train on all devices of this machine (mirrored), or on all workers of TF_CONFIG",
        choices=("none", "mirrored", "multi_worker"),
        identity=False,
    )
    out: str | None = declared(None, "the run directory; default: runs/<run id>", identity=False)

    def __post_init__(self) -> None:
        """Checks every field by itself.

        Raises:
          FieldError: a value is of the wrong kind or outside its range.
        """
        for field in dataclasses.fields(self):
            value = fields.typed(field, _TYPES[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
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
        defaults = registry.strategy(self.calib).hyperparameters
        if self.calib in registry.STRATEGIES:
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
        told, hyperparameters = {}, self.hyperparameters
        for field in dataclasses.fields(self):
            value = hyperparameters.get(field.name, getattr(self, field.name))
            if field.metadata["identity"] and value != field.default and _applies(field, self):
                told[field.name] = list(value) if isinstance(value, tuple) else value
        return told | {k: v for k, v in content.items() if v}

    def run_id(self, **content: str) -> str:
        """A readable name that ends in a hash of `identity`."""
        text = json.dumps(self.identity(**content), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        calib = self.calib.rpartition(":")[2]
        return f"{self.dataset}-{self.model}-{calib}-{digest}"


FIELDS: Mapping[str, "dataclasses.Field[Any]"] = {f.name: f for f in dataclasses.fields(Experiment)}
_TYPES = typing.get_type_hints(Experiment)


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


def check_applies(experiment: Experiment, given: Mapping[str, Any]) -> None:
    """Raises FieldError where a field that was given means nothing beside the others' values."""
    for name, value in given.items():
        if _applies(FIELDS[name], experiment):
            continue
        unmet = _unmet(FIELDS[name], experiment)
        if unmet is None:
            users = [s for s, row in registry.STRATEGIES.items() if name in row.hyperparameters]
            problem = (
                f"is no hyperparameter of calib={experiment.calib}; of {', '.join(users)} it is"
            )
        else:
            other, words = unmet
            problem = (
                f"only means something with {words}; here {other}={getattr(experiment, other)}"
            )
        raise FieldError(name, value, problem)

"""An experiment: everything its result depends on, as one frozen record.

Flags, checks, identity, `experiment.json` and the model card are all derived from its fields. A
recipe and flags set them, see `recipes`. No TensorFlow here.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import operator
import typing
from collections.abc import Mapping
from typing import Any

from lotcal_tf.config import fields, optimizers, registry
from lotcal_tf.config.fields import OnlyWith, declared
from lotcal_tf.errors import FieldError

_data = functools.partial(declared, section="Data")
_noise = functools.partial(declared, section="Label noise")
_network = functools.partial(declared, section="Network")
_calibration = functools.partial(declared, section="Calibration")
_training = functools.partial(declared, section="Training")
_pruning = functools.partial(declared, section="Pruning")
_metrics = functools.partial(declared, section="Metrics")
_run = functools.partial(declared, section="Run", identity=False)


def _of_sources(field: str) -> OnlyWith:
    """The condition of a field that some sources of data list as theirs."""
    owners = [name for name, row in registry.SOURCES.items() if field in row.fields]
    return OnlyWith(
        "source",
        lambda v: field in registry.source(v).fields,
        f"--dataset={' or '.join(owners)}",
    )


_OF_FILES = OnlyWith(
    "source", lambda v: registry.source(v).from_files, "data that is read from files"
)
_OF_LOCAL = OnlyWith("scope", lambda v: v == "local", "--scope=local")
_OF_MOMENTUM = OnlyWith(
    "optimizer", lambda v: v in optimizers.WITH_MOMENTUM, "--optimizer=sgd or rmsprop"
)
_NAMED_SCHEDULE = OnlyWith(
    "schedule", lambda v: v != "custom", "--schedule=step, constant or cosine"
)
_OF_STEPS = OnlyWith("schedule", lambda v: v == "step", "--schedule=step")

CUSTOM_SCHEDULE = (
    "is set where the library is given a Keras schedule as lr; choose one of step, constant, cosine"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One pruning run: data, network, training, pruning. See each field's `help`.

    `settings` holds the hyperparameters of its strategy and criterion by name: the given ones, and
    the defaults of the others. Of a custom strategy or criterion the defaults are not known before
    its class is loaded, see `with_methods`.
    """

    dataset: str = _data(
        "digits", "name of a recipe", check=fields.title, main=True, named_only=True
    )
    source: str = _data(
        "",
        f"name of a TFDS data set, or {', '.join(registry.SOURCES)}; default: that of the recipe, or dataset",
        check=fields.data_name,
        names=registry.summaries(registry.SOURCES),
        named_only=True,
    )
    data_dir: str | None = _data(
        None,
        "directory of TFDS data, of class folders of images, or of a saved Hugging Face data set; file of a table",
        check=fields.path,
        main=True,
        only_with=_OF_FILES,
        identity=False,
        named_only=True,
    )
    validation_size: int | None = _data(
        None,
        "validation examples, drawn from the training data by seed; default: a tenth",
        check=fields.at_least(1),
    )
    train_size: int | None = _data(
        None,
        "training examples to train on, drawn by seed after the validation examples; default: all",
        check=fields.at_least(2),
    )
    test_size: int | None = _data(
        None,
        "test examples, the same for every seed, of data without a test split; default: a fifth",
        check=fields.at_least(1),
        only_with=_of_sources("test_size"),
        named_only=True,
    )
    image_size: tuple[int, ...] = _data(
        (),
        "height and width that images are resized to, or one number for both; default: their own size",
        check=fields.image_size,
        only_with=_of_sources("image_size"),
        named_only=True,
    )
    color_mode: str = _data(
        "auto",
        "one channel or three; auto: one if all images are grey",
        choices=("auto", "grayscale", "rgb"),
        only_with=_of_sources("color_mode"),
        named_only=True,
    )
    label_column: str = _data(
        "label",
        "the column with the classes",
        only_with=_of_sources("label_column"),
        named_only=True,
    )
    half: str = _data(
        "whole",
        "train on the whole training set, or on one of two fixed halves of each class",
        choices=("whole", "a", "b"),
    )
    nu: float = _data(
        0.2,
        "distance of the means of a mixture in each dimension: the larger, the easier",
        check=fields.positive,
        only_with=_of_sources("nu"),
        named_only=True,
    )
    dimensions: int = _data(
        100,
        "dimensions of a mixture; of mixture_xor an even number",
        check=fields.between(1, 10_000),
        only_with=_of_sources("dimensions"),
        named_only=True,
    )
    classes: tuple[int, ...] = _data(
        (),
        "the classes to keep, by number, e.g. 0,1,2,3,4; their numbers then count from 0; default: all",
        check=fields.subset,
    )
    label_noise: float = _noise(
        0.0, "share of training and validation labels that are made noisy", check=fields.fraction
    )
    noise_kind: str = _noise(
        "symmetric",
        "a noisy label becomes any other class, any class at all, or its image in noise_map",
        choices=("symmetric", "uniform", "asymmetric"),
        only_with=OnlyWith("label_noise", lambda v: v > 0, "--label_noise"),
    )
    noise_map: tuple[int, ...] = _noise(
        (),
        "the image of each class, e.g. 1,2,0",
        check=fields.classes,
        only_with=OnlyWith("noise_kind", lambda v: v == "asymmetric", "--noise_kind=asymmetric"),
    )
    augment: str = _data(
        "none",
        "random changes of training images; crop_flip: pad by 4, crop and flip",
        choices=("none", "crop_flip"),
    )
    input_mean: tuple[float, ...] = _data(
        (),
        "mean of the inputs after scaling to [0, 1], one value or one per channel; default: 0, and the mean of "
        "each feature for a table",
        check=fields.all_finite,
        named_only=True,
        from_ticket=True,
    )
    input_std: tuple[float, ...] = _data(
        (),
        "standard deviation of the inputs, as input_mean",
        check=fields.all_positive,
        named_only=True,
        from_ticket=True,
    )
    memory_limit_mb: int = _data(
        2048,
        "larger data is streamed instead of staying in memory, in MiB",
        check=fields.at_least(0),
    )
    shuffle_buffer: int = _data(
        10_000,
        "size of the shuffle buffer of streamed data, in examples",
        check=fields.between(1, 10**9),
    )
    model: str = _network(
        "lenet_300_100",
        "the network: lenet_300_100, resnet18, resnet20, vgg16, vgg19, …; with a width: resnet20_8; "
        "or FILE.keras, a file of Keras 3 or tf_keras",
        check=fields.path,
        names=registry.summaries(registry.MODELS),
        main=True,
        named_only=True,
        from_ticket=True,
    )
    precision: str = _network(
        "float32",
        "Keras dtype policy of the network's layers; weights and loss stay in float32",
        choices=("float32", "mixed_float16", "mixed_bfloat16"),
        named_only=True,
        from_ticket=True,
    )
    initializer: str = _network(
        "glorot_normal",
        "distribution of the initial weights",
        choices=("glorot_normal", "glorot_uniform", "kaiming_normal", "kaiming_uniform"),
        named_only=True,
        from_ticket=True,
    )
    use_bias: bool = _network(
        True, "whether the layers have biases", named_only=True, from_ticket=True
    )
    bias_initializer: str = _network(
        "zeros",
        "initial biases: zeros, or as in PyTorch uniform in ±1/sqrt(number of inputs of a unit)",
        choices=("zeros", "fan_in_uniform"),
        only_with=OnlyWith("use_bias", bool, "--use_bias=true"),
        named_only=True,
        from_ticket=True,
    )
    norm_initializer: str = _network(
        "ones",
        "initial scales of BatchNorm: ones, or uniform in (0, 1)",
        choices=("ones", "uniform"),
        named_only=True,
        from_ticket=True,
    )
    calib: str = _calibration(
        "none",
        f"the calibration strategy: {', '.join(registry.STRATEGIES)}, or module:Class",
        names=registry.summaries(registry.STRATEGIES),
        main=True,
    )
    optimizer: str = _training(
        "adam",
        f"the optimizer: {', '.join(optimizers.OPTIMIZERS)}, or module:Class; in the library an "
        "instance, too",
        check=optimizers.optimizer,
    )
    lr: float = _training(
        1.2e-3,
        "learning rate; in the library a Keras schedule, too",
        check=fields.positive,
        main=True,
        only_with=_NAMED_SCHEDULE,
    )
    momentum: float = _training(0.0, "momentum", check=fields.fraction, only_with=_OF_MOMENTUM)
    nesterov: bool = _training(
        False, "Nesterov momentum, of sgd", only_with=OnlyWith("momentum", bool, "--momentum")
    )
    weight_decay: float = _training(
        0.0,
        "L2 weight decay, added to every gradient as PyTorch does; of adamw (0.004 in Keras) and "
        "lion their own decoupled decay: each step subtracts lr * weight_decay * weight",
        check=fields.not_negative,
    )
    schedule: str = _training(
        "step",
        "learning rate within a level: step (drops at lr_drops), constant, cosine (falls to 0 at "
        "the end of the level); custom: a Keras schedule passed to the library as lr",
        choices=("step", "constant", "cosine", "custom"),
    )
    warmup_epochs: float = _training(
        0.0,
        "epochs in which the learning rate rises linearly to lr; parts of an epoch are allowed",
        check=fields.not_negative,
        only_with=_NAMED_SCHEDULE,
    )
    lr_drops: tuple[int, ...] = _training(
        (),
        "epochs after which the learning rate drops",
        check=fields.drops,
        only_with=_OF_STEPS,
    )
    lr_drop_factor: float = _training(
        0.1,
        "factor of a drop of the learning rate",
        check=fields.rate,
        only_with=OnlyWith("lr_drops", bool, "--lr_drops"),
    )
    class_weight: tuple[float, ...] = _training(
        (),
        "weight of each class in the training loss, e.g. 1,2.5; default: 1",
        check=fields.weights,
    )
    clip_norm: float | None = _training(
        None,
        "scale the gradient down to this norm, over all weights together; default: no clipping",
        check=fields.positive,
    )
    clip_value: float | None = _training(
        None,
        "limit each entry of the gradient to [-clip_value, clip_value]; default: no clipping",
        check=fields.positive,
    )
    ema: float = _training(
        0.0,
        "momentum of a moving average of the weights, e.g. 0.999; measured and stored weights are "
        "the averages, BatchNorm's statistics those of the training; 0: no average",
        check=fields.fraction,
    )
    early_stopping: int = _training(
        0,
        "end a level after this many epochs without a lower validation NLL; its weights are then "
        "those of the epoch with the lowest, as with Keras's EarlyStopping; 0: train all epochs",
        check=fields.at_least(0),
    )
    epochs: int = _training(10, "epochs per level", check=fields.between(1, 10**6), main=True)
    batch_size: int = _training(60, "examples per step", check=fields.at_least(1), main=True)
    drop_remainder: bool = _training(
        True, "drop the last batch of an epoch if it is smaller; each epoch drops other examples"
    )
    levels: int = _pruning(
        10,
        "number of prunings; level 0 is dense",
        check=fields.between(0, 10_000),
        identity=False,
        main=True,
    )
    prune_rate: float = _pruning(
        0.2,
        "share of the surviving weights that a level prunes",
        check=fields.rate,
        of_pruning=True,
        main=True,
    )
    criterion: str = _pruning(
        "magnitude",
        f"which weights survive: {', '.join(registry.CRITERIA)}, or module:Class",
        names=registry.summaries(registry.CRITERIA),
        of_pruning=True,
        main=True,
    )
    scope: str = _pruning(
        "local",
        "rank weights in each tensor, or all together",
        choices=("local", "global"),
        of_pruning=True,
    )
    count: str = _pruning(
        "prunable",
        "what prune_rate is a share of: the surviving prunable weights, or as in OpenLTH all remaining "
        "kernel entries",
        choices=("prunable", "openlth"),
        only_with=OnlyWith("scope", lambda v: v == "global", "--scope=global"),
        of_pruning=True,
    )
    output_prune_rate: float | None = _pruning(
        None,
        "rate of the output layer; default: half of prune_rate",
        check=fields.fraction,
        only_with=_OF_LOCAL,
        of_pruning=True,
    )
    exclude_output: bool = _pruning(False, "do not prune the output layer", of_pruning=True)
    exclude: tuple[str, ...] = _pruning(
        (), "layers that are not pruned, by name; * and ? are wildcards", from_ticket=True
    )
    prune_depthwise: bool = _pruning(
        False, "prune the kernels of depthwise convolutions too", from_ticket=True
    )
    rewind: str = _pruning(
        "init",
        "what survivors restart from: init (the weights the run began with), pretrained (the same, "
        "of a model that came with trained weights), step:K or epoch:K (weights early in level 0), "
        "random (new weights at each level), none (fine-tuning)",
        check=fields.rewind,
        of_pruning=True,
    )
    ticket: str = _run(
        "",
        "start from this ticket, RUN/tickets/level_NN; with RUN: one level from each of its tickets",
        check=fields.path,
        named_only=True,
        main=True,
    )
    control: str = declared(
        "none",
        "control experiment of a ticket: random masks of the same counts, or weights drawn again",
        choices=("none", "random_mask", "redrawn_weights"),
        only_with=OnlyWith("ticket", bool, "--ticket"),
        named_only=True,
    )
    ece_bins: int = _metrics(
        15, "bins of the expected calibration error", check=fields.between(1, 1000)
    )
    mc_eval: int = _metrics(
        0,
        "average the predictions of this many stochastic passes; 0: dropout off",
        check=fields.mc_eval,
    )
    seed: int = declared(0, "seed of every random draw", check=fields.at_least(0), main=True)
    export_logits: str = _run(
        "scaled",
        "whether exported files divide logits by the temperature, so that confidence is calibrated",
        choices=("raw", "scaled"),
    )
    on_unhealthy: str = _run(
        "warn",
        "after a level whose network has an empty layer, predicts one class, or is no better than "
        "chance: warn and continue, or stop",
        choices=("warn", "stop"),
    )
    plan: str = _run(
        "auto",
        "how steps run: compiled by XLA or as a graph; auto: by network and device when the run begins, then the same",
        choices=("auto", "xla", "graph"),
    )
    threads: int | None = _run(
        None,
        "CPU threads of an operation; default: one per CPU when the run begins, then the same number",
        check=fields.threads,
    )
    distribute: str = _run(
        "none",
        "train on all devices of this machine (mirrored), or on all workers of TF_CONFIG",
        choices=("none", "mirrored", "multi_worker"),
    )
    checkpoint_minutes: float = _run(
        5.0,
        "minutes of training that a killed process may lose; checkpoints are written at the end of an "
        "epoch, so one that takes longer can be lost whole; 0: a checkpoint after each epoch",
        check=fields.not_negative,
    )
    out: str | None = _run(
        None,
        "the run directory; default: runs/<run id>. A sweep needs it: the directory of its runs",
        check=fields.path,
        main=True,
    )
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, **given: Any) -> "Experiment":
        """An experiment from fields and hyperparameters, both by name.

        Raises:
          FieldError: see `__post_init__`.
        """
        own = {name: given.pop(name) for name in list(given) if name in FIELDS}
        return cls(**own, settings={**given.pop("settings", {}), **given})

    def __post_init__(self) -> None:
        """Checks every field by itself, and fills in the settings of built-in methods.

        Raises:
          FieldError: a value is of the wrong kind or outside its range, or a setting belongs
            neither to the strategy nor to the criterion.
        """
        for name, field in FIELDS.items():
            value = fields.typed(field, _TYPES[name], getattr(self, name))
            object.__setattr__(self, name, value)
        mean, std = self.input_mean, self.input_std
        if len(mean) != len(std):
            problem = f"has {len(mean)} values, and input_std {len(std)}: give as many of both"
            raise FieldError("input_mean", mean, problem)
        rows = registry.strategy(self.calib), registry.criterion(self.criterion)
        self._settle(*(None if row is None else row.hyperparameters for row in rows))

    def with_methods(self, strategy: type, criterion: type) -> "Experiment":
        """The experiment with the settings of its strategy and criterion, custom ones too.

        Args:
          strategy, criterion: their dataclasses of hyperparameters.

        Raises:
          FieldError: a setting is not valid, or belongs to neither.
        """
        settled = dataclasses.replace(self)
        settled._settle(strategy, criterion)
        return settled

    def _settle(self, strategy: type | None, criterion: type | None) -> None:
        """Checks settings and fills in defaults; None: a custom class that is not loaded yet."""
        left, found = dict(self.settings), dict[str, Any]()
        for kind in (strategy, criterion):
            names = fields.fields_of(kind) if kind is not None else {}
            for name in names:
                if name in FIELDS or name in found:
                    problem = "is the name of another field: rename the hyperparameter"
                    raise FieldError(name, names[name].default, problem)
            own = {name: left.pop(name) for name in names if name in left}
            if kind is not None:
                found |= vars(fields.checked(kind, own))
        if left and strategy is not None and criterion is not None:
            name, value = next(iter(left.items()))
            raise FieldError(name, value, self._unknown_setting(name, found))
        object.__setattr__(self, "settings", found | left)

    def _unknown_setting(self, name: str, known: Mapping[str, Any]) -> str:
        """Why a setting is refused."""
        methods = f"calib={self.calib} and criterion={self.criterion}"
        owners = setting_owners().get(name)
        if owners:
            return f"not a hyperparameter of {methods}, but of {', '.join(owners)}"
        have = f"have {', '.join(known)}" if known else "have no hyperparameters"
        close = difflib.get_close_matches(name, [*FIELDS, *known], n=1)
        hint = f"did you mean {close[0]}?" if close else f"fields are {', '.join(FIELDS)}"
        return f"no such field or hyperparameter; {methods} {have}; {hint}"

    @property
    def notes(self) -> list[str]:
        """Messages for the user about fields of a recipe that have no effect."""
        late = ", ".join(map(str, _late_drops(self)))
        has = f"a level has {self.epochs} epoch(s)"
        return [f"lr_drops: {has}, so drops after epoch {late} have no effect"] if late else []

    def settings_of(self, kind: type) -> dict[str, Any]:
        """The settings that belong to a dataclass of hyperparameters."""
        return {name: self.settings[name] for name in fields.fields_of(kind)}

    @property
    def output_rate(self) -> float:
        """The rate at which the output layer is pruned; 0 where it is not."""
        if self.exclude_output:
            return 0.0
        if self.scope == "global":
            return self.prune_rate
        return self.prune_rate / 2 if self.output_prune_rate is None else self.output_prune_rate

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, as JSON can hold it; `settings` is a dictionary in it."""
        own = {name: fields.as_json(getattr(self, name)) for name in FIELDS}
        return own | {"settings": {k: fields.as_json(v) for k, v in self.settings.items()}}

    def identity(self, **content: str) -> dict[str, Any]:
        """The fields and settings a result depends on.

        Fields that have their default or do not apply are left out, so that ids stay the same when
        a later version adds a field. Settings are always included: another default is another
        experiment.

        Args:
          **content: digests of what the fields only point to: a ticket, data or a model passed as
            objects, the source of a custom class.
        """
        found = {
            name: getattr(self, name)
            for name, field in FIELDS.items()
            if field.metadata["identity"] and getattr(self, name) != field.default
            if unmet_condition(field, self) is None
        }
        found = {
            name: fields.as_json(value) for name, value in (found | dict(self.settings)).items()
        }
        return found | {name: digest for name, digest in content.items() if digest}

    def run_id(self, **content: str) -> str:
        """A readable name that ends in a hash of `identity`."""
        text = json.dumps(self.identity(**content), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        calib = self.calib.rpartition(":")[2]
        return f"{self.dataset}-{self.model}-{calib}-{digest}"


FIELDS: Mapping[str, "dataclasses.Field[Any]"] = {
    f.name: f for f in dataclasses.fields(Experiment) if f.name != "settings"
}
_TYPES = typing.get_type_hints(Experiment)


@functools.cache
def setting_owners() -> dict[str, list[str]]:
    """The built-in methods that have each hyperparameter, as `calib=NAME` or `criterion=NAME`."""
    owners: dict[str, list[str]] = {}
    for field, rows in (("calib", registry.STRATEGIES), ("criterion", registry.CRITERIA)):
        for method, row in rows.items():
            for name in fields.fields_of(row.hyperparameters):
                owners.setdefault(name, []).append(f"{field}={method}")
    return owners


@functools.cache
def setting_fields() -> dict[str, "dataclasses.Field[Any]"]:
    """A field for each hyperparameter of the built-in methods; defaults differ by method."""
    rows = [*registry.STRATEGIES.values(), *registry.CRITERIA.values()]
    return functools.reduce(operator.or_, (fields.fields_of(r.hyperparameters) for r in rows), {})


def unmet_condition(field: "dataclasses.Field[Any]", values: Experiment) -> OnlyWith | None:
    """The condition that keeps a field from having a meaning; None if it has one."""
    condition: OnlyWith | None = field.metadata["only_with"]
    if condition is None:
        return None
    if not condition.holds(getattr(values, condition.field)):
        return condition
    # A field without a meaning gives none to others.
    return unmet_condition(FIELDS[condition.field], values)


def check_together(experiment: Experiment, given: Mapping[str, Any]) -> None:
    """Checks the fields of an experiment against each other.

    Args:
      experiment: the experiment.
      given: the fields that were set explicitly, by flag or keyword; each must have a meaning.

    Raises:
      FieldError: a given field has no meaning beside the others, or two contradict each other.
    """
    for name in given:
        if isinstance(given[name], str) and not given[name] and not _takes_empty(name):
            raise FieldError(name, given[name], "must not be empty; leave it out for the default")
        unmet = unmet_condition(FIELDS[name], experiment) if name in FIELDS else None
        if unmet is not None:
            value = getattr(experiment, unmet.field)
            here = "" if value == "" else f"; here {unmet.field}={value}"
            raise FieldError(name, given[name], f"applies only with {unmet.words}{here}")
    asymmetric = experiment.label_noise and experiment.noise_kind == "asymmetric"
    if asymmetric and not experiment.noise_map:
        problem = "noise_kind=asymmetric needs the image of each class, e.g. 1,2,0"
        raise FieldError("noise_map", experiment.noise_map, problem)
    if experiment.exclude_output and "output_prune_rate" in given:
        problem = "the output layer is not pruned: leave out this field or exclude_output"
        raise FieldError("output_prune_rate", given["output_prune_rate"], problem)
    _check_training(experiment, given)


def _takes_empty(name: str) -> bool:
    """Whether an empty text is a value of a field: an empty list."""
    field = {**setting_fields(), **FIELDS}.get(name)
    return field is None or isinstance(field.default, tuple)


def _check_training(experiment: Experiment, given: Mapping[str, Any]) -> None:
    """Checks the fields of optimizer and schedule against each other.

    Raises:
      FieldError: two of them contradict each other.
    """
    if "schedule" in given and experiment.schedule == "custom":
        raise FieldError("schedule", "custom", CUSTOM_SCHEDULE)
    if experiment.nesterov and experiment.optimizer == "rmsprop":
        raise FieldError("nesterov", True, "optimizer=rmsprop does not have it: choose sgd")
    if experiment.clip_norm is not None and experiment.clip_value is not None:
        problem = f"clip_norm={experiment.clip_norm} clips already: set one of them"
        raise FieldError("clip_value", experiment.clip_value, problem)
    if experiment.warmup_epochs >= experiment.epochs:
        problem = f"a level has {experiment.epochs} epoch(s): the warm-up must be shorter"
        raise FieldError("warmup_epochs", experiment.warmup_epochs, problem)
    if "lr_drops" in given and _late_drops(experiment):
        problem = (
            f"a level has {experiment.epochs} epoch(s): a drop after its last one has no effect"
        )
        raise FieldError("lr_drops", given["lr_drops"], problem)


def _late_drops(experiment: Experiment) -> list[int]:
    """The drops of the learning rate that come after the last epoch, so that they have no effect."""
    by_step = experiment.schedule == "step"
    return [epoch for epoch in experiment.lr_drops if by_step and epoch >= experiment.epochs]


def recorded(record: Mapping[str, Any], **given: Any) -> Experiment:
    """The experiment that `experiment.json` records, with given fields in place of its own.

    Raises:
      FieldError: a value is not valid.
    """
    known = {name: value for name, value in record.items() if name in FIELDS}
    return Experiment(**{**known, "settings": record.get("settings", {}), **given})


def by_section(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What `experiment.json` records, by section: what a result depends on and what applies.

    Args:
      record: the fields by name; empty: nothing is recorded.

    Raises:
      FieldError: a value is not valid.
    """
    found: dict[str, dict[str, Any]] = {section: {} for section in fields.SECTIONS}
    if not record:
        return found
    experiment = recorded(record)
    for name, field in FIELDS.items():
        if field.metadata["identity"] and unmet_condition(field, experiment) is None:
            found[field.metadata["section"]][name] = getattr(experiment, name)
    known = setting_fields()
    for name, value in experiment.settings.items():
        section = known[name].metadata["section"] if name in known else "Calibration"
        found[section][name] = value
    return found

"""The data and the start of an experiment: by name, from tickets, or as objects of the caller."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.data import given, sources
from lotcal_tf.data.splits import Dataset
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.inputs import by_name, specs_of
from lotcal_tf.lottery.ticket import Arrays, Record, Ticket, architecture_of
from lotcal_tf.lottery.transfer import Sources, Transfer, with_dropout
from lotcal_tf.models.build import build_model
from lotcal_tf.models.checks import classes_of
from lotcal_tf.models.given import GivenModel
from lotcal_tf.models.keras_graph import with_free_batch, with_stable_names
from lotcal_tf.models.safe_config import check_config
from lotcal_tf.models.stateless_dropout import Passes
from lotcal_tf.pruning import masking


class Task(Protocol):
    """Data and a start for a pruning run.

    Attributes:
      experiment: the experiment, with the fields that the task determines.
      content: digests of what fields refer to by path, see `Experiment.identity`.
      notes: messages for the user.
    """

    experiment: Experiment
    content: Mapping[str, str]
    notes: Sequence[str]

    def check(self, records: Sequence[Record]) -> None:
        """Raises UsageError for problems that can be found before data is loaded.

        Args:
          records: the rows of the run's finished levels.
        """

    def load(self) -> Dataset:
        """The data."""

    def start(self, dataset: Dataset) -> "keras.Model | Sequence[Ticket]":
        """The model with its initial weights, or the tickets to start from."""


class NamedTask:
    """The built-in network and the data that an experiment names."""

    notes: Sequence[str] = ()
    content: Mapping[str, str] = {}

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.content = {**self.content, **sources.content(experiment)}
        self._dataset: Dataset | None = None

    def check(self, records: Sequence[Record]) -> None:
        """Checks nothing: names are checked with the experiment."""

    def load(self) -> Dataset:
        """The data set, with label noise if the experiment sets it; read once."""
        if self._dataset is None:
            self._dataset = sources.load(self.experiment)
        return self._dataset

    def start(self, dataset: Dataset) -> "keras.Model | Sequence[Ticket]":
        """The network, with initial weights that the experiment's seed determines."""
        experiment, settings = self.experiment, self.experiment.settings
        mean, std = dataset.statistics if dataset.standardised else ((), ())
        return build_model(
            experiment.model,
            dataset.train.shape,
            dataset.classes,
            seed=experiment.seed,
            initializer=experiment.initializer,
            use_bias=experiment.use_bias,
            bias_initializer=experiment.bias_initializer,
            norm_initializer=experiment.norm_initializer,
            input_range=dataset.input_range or 1.0,
            input_mean=experiment.input_mean or mean,
            input_std=experiment.input_std or std,
            dropout_rate=settings.get("dropout_rate", 0.0),
            dropout_at=settings.get("dropout_at", "blocks"),
            precision=experiment.precision,
        )


class GivenModelTask(NamedTask):
    """The caller's model, as an object or in a `.keras` file, on the data that an experiment names.

    The identity depends on the architecture, which `model` names, and on the weights, of which
    `content` has a digest; not on the path of a file.

    Attributes:
      given: the caller's model; `start` returns it with stable names.

    Args:
      experiment: the experiment.
      model: the model; None: the file that `experiment.model` names.

    Raises:
      UsageError: the file cannot be read, see `models.given.GivenModel`.
    """

    def __init__(self, experiment: Experiment, model: GivenModel | None = None) -> None:
        self._given = GivenModel.of(experiment.model) if model is None else model
        self.notes = self._given.notes
        self.given = self._given.model
        experiment, self._model = _identified(experiment, self.given)
        self.content = {"initial_weights": _digest_of(masking.values(self._model))}
        super().__init__(experiment)

    def start(self, dataset: Dataset) -> "keras.Model":
        """The model; the twin of a Keras 3 model is first compared with it."""
        self._given.check(_examples(dataset, self._model))
        return self._model


class TicketTask(NamedTask):
    """One ticket, or all tickets of a run, on named data.

    Raises:
      UsageError: there is no such ticket, or one is damaged.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.sources = Sources(experiment.ticket)
        self.sources.check_levels(experiment.levels)
        self.content, self.notes = self.sources.content, self.sources.notes
        every_level = self.sources.every_level
        brought: dict[str, Any] = {
            name: field.default
            for name, field in FIELDS.items()
            if field.metadata["from_ticket"] or (every_level and field.metadata["of_pruning"])
        }
        brought["model"] = json.loads(self.sources.first.architecture)["config"]["name"]
        super().__init__(dataclasses.replace(experiment, **brought))

    def check(self, records: Sequence[Record]) -> None:
        """Compares the tickets with those of finished levels, and checks that dropout is present if needed.

        Raises:
          FieldError: a ticket has changed, or passes are requested of a network without dropout.
        """
        self.sources.check_same(records)
        settings, stochastic = self.experiment.settings, "passes" in self.experiment.settings
        if not (stochastic or self.experiment.mc_eval):
            return
        network = with_dropout(self.sources.first, settings.get("dropout_rate", 0.0)).network()
        try:
            Passes(network, 2)
        except UsageError as error:
            name = "calib" if stochastic else "mc_eval"
            problem = (
                "needs dropout, which the ticket's network does not have: choose a strategy that is not "
                "stochastic and leave mc_eval 0, or a ticket found with a stochastic strategy"
            )
            raise FieldError(name, getattr(self.experiment, name), problem) from error

    def start(self, dataset: Dataset) -> Transfer:
        """The tickets, prepared for the data."""
        return Transfer(self.sources, self.experiment, dataset)


class GivenTask(GivenModelTask):
    """The caller's model and data, both passed as objects.

    Args:
      experiment: the experiment.
      model: the model.
      train, test, validation: the data, see `data.given.dataset`.

    Raises:
      UsageError: the data is invalid.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: GivenModel,
        train: Any,
        test: Any = None,
        validation: Any = None,
    ) -> None:
        super().__init__(experiment, model)
        dataset = given.dataset(
            train,
            test,
            validation,
            self.experiment,
            classes=classes_of(self._model),
            takes=specs_of(self._model),
        )
        # The range that values of given arrays can have is not known.
        dataset = dataclasses.replace(dataset, input_range=None)
        self.experiment = dataclasses.replace(self.experiment, dataset="own", source=dataset.digest)
        self._dataset = sources.arranged(dataset, self.experiment)


def _examples(dataset: Dataset, model: "keras.Model") -> list[NDArray]:
    """Inputs of a few training examples, in the order of the model's inputs."""
    inputs, *_ = next(dataset.train.in_order(min(8, dataset.train.count)))
    return list(by_name(inputs, specs_of(model)).values())


def _identified(experiment: Experiment, model: "keras.Model") -> tuple[Experiment, "keras.Model"]:
    """The experiment with the name and architecture of a model, and the model as tickets store it.

    That is a copy with stable names, for batches of any size.

    Raises:
      UsageError: a layer cannot be copied, or needs a fixed batch size.
    """
    # Before layers are copied, whose own errors do not name what is not registered.
    check_config(json.loads(architecture_of(model)))
    named = with_stable_names(with_free_batch(model))
    architecture = json.dumps(_without_seeds(json.loads(architecture_of(named))))
    digest = hashlib.sha256(architecture.encode()).hexdigest()[:10]
    exclude = _renamed(experiment.exclude, model, named)
    name = f"{named.name}-{digest}"
    return dataclasses.replace(experiment, exclude=exclude, model=name), named


def _without_seeds(config: Any) -> Any:
    """A configuration without the seeds of its initialisers, so that all seeds have one architecture."""
    if isinstance(config, Mapping):
        return {name: _without_seeds(value) for name, value in config.items() if name != "seed"}
    return [_without_seeds(value) for value in config] if isinstance(config, list) else config


def _digest_of(weights: Arrays) -> str:
    digest = hashlib.sha256()
    for value in weights.values():
        digest.update(value.tobytes())
    return digest.hexdigest()[:10]


def _renamed(exclude: Sequence[str], model: "keras.Model", copy: "keras.Model") -> tuple[str, ...]:
    """Names or paths of layers of a model, as in its copy with stable names.

    Patterns stay unchanged.
    """
    places = [[path for path, _ in masking.leaf_layers(m)] for m in (model, copy)]
    new = dict(zip(*places, strict=True))
    found: dict[str, None] = {}
    for name in exclude:
        own = [path for path in new if name in (path, path.rpartition("/")[2])]
        found |= dict.fromkeys(new[p] if new[p] != p else name for p in own) or {name: None}
    return tuple(found)

"""Model and data that a caller of the library passes to a sweep as objects."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lotcal_tf.compat import keras
from lotcal_tf.config import arguments, registry
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.errors import FieldError, LotcalError, UsageError
from lotcal_tf.lottery.run import checked_start
from lotcal_tf.lottery.task import GivenModelTask, GivenTask, Task
from lotcal_tf.models.checks import classes_of
from lotcal_tf.models.given import GivenModel


@dataclasses.dataclass(frozen=True)
class GivenObjects:
    """Makes the tasks of a sweep's runs from objects, in each worker.

    Attributes:
      model: a function without arguments that returns a new Keras model, or the path of a `.keras` file.
      data: `train`, `test` and `validation`, as for `find_tickets`; or functions that return these.
        Empty: the data that the experiment names.
      custom_objects: classes and functions of the model that are not Keras's, by name.
    """

    model: Callable[[], Any] | str
    data: Mapping[str, Any]
    custom_objects: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, model: Any, data: Mapping[str, Any], custom_objects: Any, config: Any
    ) -> "GivenObjects | None":
        """The objects among the arguments of `run_sweep`; None if there are none.

        Raises:
          UsageError: they do not fit together, or cannot be given to a sweep.
        """
        model = str(model) if isinstance(model, os.PathLike) else model
        given = {name: part for name, part in data.items() if part is not None}
        known = arguments.custom_objects_of(custom_objects)
        if not (given or known) and (model is None or isinstance(model, str)):
            return None
        if not isinstance(model, str) and not hasattr(model, "__qualname__"):
            raise UsageError(
                "model must be a function without arguments that returns a new Keras model, so that each "
                "seed has its own initial weights; or the path of a .keras file"
            )
        if isinstance(model, str) and not registry.is_model_file(model):
            raise FieldError("model", model, "beside data, pass a function or a .keras file")
        if given and ("train" not in given or config is not None):
            raise UsageError("data needs train=(inputs, labels), and takes no config beside it")
        return cls(model, given, known)

    def __call__(self, experiment: Experiment) -> Task:
        """The task of a run. The initial weights of its model depend on its seed only."""
        keras.utils.set_random_seed(experiment.seed % 2**32)
        return self._task(experiment)

    def check(self, experiment: Experiment) -> None:
        """Checks model and data in this process.

        Raises:
          UsageError: a function raises an error, or model and data are invalid.
        """
        checked_start(self._task(experiment))

    def _task(self, experiment: Experiment) -> Task:
        model = GivenModel.of(_made("model", self.model), self.custom_objects)
        classes_of(model.model)
        if not self.data:
            return GivenModelTask(experiment, model=model)
        data = {name: _made(name, part) for name, part in self.data.items()}
        return GivenTask(experiment, model=model, **data)

    def content(self) -> dict[str, str]:
        """Digests of the objects, for the names of directories; a run compares its data itself."""
        digest = hashlib.sha256()
        for name, part in sorted(self.data.items()):
            digest.update(name.encode() + _digest(name, part))
        return {"own_model": _name(self.model), "own_data": digest.hexdigest()}


def _made(name: str, given: Any) -> Any:
    """What a function returns; other arguments as they are.

    Raises:
      UsageError: the function raises an error.
    """
    if not callable(given):
        return given
    try:
        return given()
    except LotcalError:
        raise
    except Exception as error:
        raise UsageError(
            f"{name}: the function {_name(given)} must return it, and raised {type(error).__name__}: {error}"
        ) from error


def _name(given: Any) -> str:
    """The name of a function, or a path."""
    return given if isinstance(given, str) else f"{given.__module__}:{given.__qualname__}"


def _digest(name: str, data: Any) -> bytes:
    """A digest of arrays, or of the name of a function.

    Raises:
      FieldError: the data cannot be sent to another process.
    """
    if callable(data):
        if not hasattr(data, "__qualname__"):
            problem = "has no name for the sweep's directories: write a function with def"
            raise FieldError(name, type(data).__name__, problem)
        return _name(data).encode()
    try:
        parts = [np.ascontiguousarray(part) for part in data]
    except (TypeError, ValueError) as error:
        problem = (
            "must be (inputs, labels) arrays, or a function that returns what find_tickets takes"
        )
        raise FieldError(name, type(data).__name__, problem) from error
    if any(part.dtype.hasobject for part in parts):
        raise FieldError(name, type(data).__name__, "arrays of Python objects cannot be used")
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype.str}{part.shape}".encode() + part.tobytes())
    return digest.digest()

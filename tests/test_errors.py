import inspect

import pytest

from lotcal_tf import errors
from lotcal_tf.errors import FieldError, LotcalError, TrainingDiverged, UsageError, first_line

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", ALL)
def test_one_base_catches_every_error(kind):
    assert issubclass(kind, LotcalError)
    # A user's bare `except KeyError` or `except OSError` must not swallow ours.
    assert not issubclass(kind, LookupError | OSError)


def test_wrong_requests_are_value_errors_and_failed_runs_are_not():
    requests = {kind.__name__ for kind in ALL if issubclass(kind, UsageError)}
    assert requests == {"UsageError", "FieldError", "NewerFormat", "RunInUse"}
    assert {kind.__name__ for kind in ALL if issubclass(kind, ValueError)} == requests
    assert issubclass(TrainingDiverged, ArithmeticError)


def test_field_error_names_field_and_value():
    error = FieldError("epochs", -3, "must be at least 1")
    assert str(error) == "epochs=-3: must be at least 1"
    assert (error.field, error.value) == ("epochs", -3)


def test_training_diverged_names_the_place():
    error = TrainingDiverged(level=2, epoch=7, step=311)
    assert (error.level, error.epoch, error.step) == (2, 7, 311)
    line = str(error)
    for part in ("not finite", "level 2,", "epoch 7,", "step 311:", "finished levels are kept"):
        assert part in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError(" a\nb"), "a"),
        (NotImplementedError(), "NotImplementedError"),
        (OSError("\n"), "OSError"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error, line):
    assert first_line(error) == line

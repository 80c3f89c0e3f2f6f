"""Hyperparameters of the built-in strategies and criteria, where `--help` can read them.

Each is a small dataclass; a custom strategy or criterion defines its own, see docs/extending.md.
"""

import dataclasses

from lotcal_tf.config import fields
from lotcal_tf.config.fields import hyperparameter
from lotcal_tf.errors import FieldError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoHyperparameters:
    """No hyperparameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vwcc:
    """Hyperparameters of the strategy `vwcc`; a custom stochastic strategy can use them too."""

    passes: int = hyperparameter(5, "T, stochastic passes per step", check=fields.between(2, 1000))
    dropout_rate: float = hyperparameter(
        0.1,
        "rate of the dropout that is added to a built-in network",
        check=fields.rate,
        named_only=True,
    )
    dropout_at: str = hyperparameter(
        "blocks",
        "where dropout is added: after each block of layers, or before the classifier only",
        choices=("blocks", "head"),
        named_only=True,
        from_ticket=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
    """Hyperparameters of the strategy `mixup`."""

    mixup_a: float = hyperparameter(0.2, "a of Beta(a, a)", check=fields.positive)


def _weight(default: float) -> float:
    weight: float = hyperparameter(
        default, "weight of the calibration term", check=fields.not_negative
    )
    return weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mda:
    """Hyperparameters of the strategy `mda`."""

    calib_weight: float = _weight(0.1)
    prior: tuple[float, ...] = hyperparameter(
        (),
        "the class prior, e.g. 0.5,0.25,0.25; empty: uniform",
        check=fields.prior,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lwcc:
    """Hyperparameters of the strategy `lwcc`."""

    calib_weight: float = _weight(0.3)
    lwcc_form: str = hyperparameter(
        "additive",
        "CE + w β KL, or the convex (1 - w β) CE + w β KL with a weight w of at most 1",
        choices=("additive", "convex"),
    )

    def __post_init__(self) -> None:
        if self.lwcc_form == "convex" and self.calib_weight > 1:
            problem = "must be at most 1 with lwcc_form=convex"
            raise FieldError("calib_weight", self.calib_weight, problem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LwccSi(Lwcc, Vwcc):
    """Hyperparameters of the strategy `lwcc_si`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nba:
    """Hyperparameters of the strategy `nba`."""

    calib_weight: float = _weight(0.3)
    nba_bins: int = hyperparameter(10, "bins of confidence", check=fields.between(2, 1000))
    nba_width: float = hyperparameter(0.02, "width of the bins' soft edges", check=fields.positive)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slimming:
    """Hyperparameters of the strategy `slimming`."""

    slimming_strength: float = hyperparameter(
        4.0,
        "weight of the cost of the channels in use",
        check=fields.not_negative,
    )
    slimming_decay: float = hyperparameter(
        0.1,
        "weight decay of the kernels of unused channels",
        check=fields.not_negative,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradient:
    """Hyperparameters of the criterion `gradient`."""

    gradient_of: str = hyperparameter(
        "loss",
        "what |gradient × weight| is taken of: cross-entropy on training data, calibration error or "
        "NLL on validation data",
        section="Pruning",
        choices=("loss", "calibration", "validation_nll"),
        of_pruning=True,
    )

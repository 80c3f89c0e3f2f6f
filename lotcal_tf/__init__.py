"""Lottery tickets one can trust: sparse, calibrated, verified.

The library's door; what stands behind it is imported when it is first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_DOOR = {
    "find_tickets": "lotcal_tf.api",
    "load_ticket": "lotcal_tf.api",
    "export_ticket": "lotcal_tf.api",
    "measure_model": "lotcal_tf.measuring",
    "compact": "lotcal_tf.pruning.compaction",
    "Masked": "lotcal_tf.pruning.masked",
    "StatelessDropout": "lotcal_tf.models.stateless_dropout",
    "Strategy": "lotcal_tf.calibration.strategy",
    "draw_seed": "lotcal_tf.seeds",
    "step_seed": "lotcal_tf.seeds",
}
_MODULES = {
    "losses": "lotcal_tf.calibration.losses",
    "metrics": "lotcal_tf.metrics",
}

__all__ = ["__version__", *_DOOR, *_MODULES]


def __getattr__(name: str) -> Any:
    """Imports a public name the first time it is used."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _DOOR:
        return getattr(importlib.import_module(_DOOR[name]), name)
    raise AttributeError(
        f"module 'lotcal_tf' has no attribute {name!r}; it has {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return sorted(__all__)

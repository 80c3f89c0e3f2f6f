"""Sparse, calibrated networks: lottery tickets found, measured and exported.

Public names are imported when they are first used, so that `import lotcal_tf` is fast.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

# Where each public name is defined; a name without an attribute is a module.
_PUBLIC = {
    "find_tickets": "lotcal_tf.api:find_tickets",
    "load_ticket": "lotcal_tf.api:load_ticket",
    "export_ticket": "lotcal_tf.api:export_ticket",
    "from_hf": "lotcal_tf.data.hugging_face:from_hf",
    "measure_model": "lotcal_tf.api:measure_model",
    "measure_run": "lotcal_tf.api:measure_run",
    "from_keras3": "lotcal_tf.models.keras3:from_keras3",
    "run_sweep": "lotcal_tf.api:run_sweep",
    "compact": "lotcal_tf.pruning.compaction:compact",
    "Criterion": "lotcal_tf.pruning.criteria:Criterion",
    "Masked": "lotcal_tf.pruning.masked:Masked",
    "StatelessDropout": "lotcal_tf.models.stateless_dropout:StatelessDropout",
    "Strategy": "lotcal_tf.calibration.strategy:Strategy",
    "Tolerance": "lotcal_tf.deploy.parity:Tolerance",
    "draw_seed": "lotcal_tf.seeds:draw_seed",
    "hyperparameter": "lotcal_tf.config.fields:hyperparameter",
    "losses": "lotcal_tf.calibration.losses",
    "metrics": "lotcal_tf.metrics",
    "step_seed": "lotcal_tf.seeds:step_seed",
    "write_report": "lotcal_tf.analysis.report:write_report",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Imports a public name the first time it is used."""
    if name not in _PUBLIC:
        known = ", ".join(__all__)
        raise AttributeError(f"module 'lotcal_tf' has no attribute {name!r}; it has {known}")
    module, _, attribute = _PUBLIC[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted(__all__)

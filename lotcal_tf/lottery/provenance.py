"""The content of `experiment.json`: the fields, their realised values, and the software versions."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf import __version__
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset
from lotcal_tf.lottery.search import Search
from lotcal_tf.pruning.masked import is_kernel
from lotcal_tf.training import threads

_PACKAGES = (
    "tensorflow",
    "tf-keras",
    "tensorflow-model-optimization",
    "tensorflow-datasets",
    "ai-edge-litert",
    "numpy",
)


def describe(
    experiment: Experiment,
    content: Mapping[str, str],
    dataset: Dataset,
    search: Search,
    transfer: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of an experiment.

    Args:
      experiment: its fields.
      content: digests of the objects that the fields refer to, see `Experiment.identity`.
      dataset, search: their realised values are recorded.
      transfer: for a run that starts from tickets: their origin, and what was changed in them.
    """
    return {
        "run_id": experiment.run_id(**content),
        "experiment": experiment.as_dict(),
        "identity": experiment.identity(**content),
        "content": dict(content),
        **({"transfer": dict(transfer)} if transfer else {}),
        "realised": {
            "examples": {name: split.count for name, split in dataset.named_splits().items()},
            **({"wrong_labels": dict(dataset.wrong_labels)} if dataset.wrong_labels else {}),
            "input_shape": _as_lists(dataset.train.shape),
            "classes": dataset.classes,
            **({"class_names": list(dataset.class_names)} if dataset.class_names else {}),
            "steps_per_epoch": search.trainer.steps_per_epoch,
            "parameters": sum(int(value.size) for value in search.initial.values()),
            "kernels": sum(int(w.size) for n, w in search.initial.items() if is_kernel(n, w)),
            "prunable": sum(int(mask.size) for mask in search.initial_masks.values()),
            "remaining_at_start": sum(int(np.sum(m)) for m in search.initial_masks.values()),
            "plan": search.trainer.plan,
            "threads": threads.in_effect(),
            "replicas": search.trainer.distribution.replicas,
        },
        "software": {
            "lotcal_tf": __version__,
            "git": revision(),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def _as_lists(shape: Any) -> Any:
    """The shape of an example as JSON; of several inputs, by their names."""
    if isinstance(shape, dict):
        return {name: list(one) for name, one in shape.items()}
    return list(shape)


def revision() -> str | None:
    """The checkout's commit, with `+changes` if it was edited; None for an installed copy."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        call = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+changes"]
        return subprocess.run(
            call, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

"""Makes run directories from the tables in `docs/results/data`, so that `report` can compare them again.

    python tools/restore_runs.py docs/results/data/mnist --dataset=mnist --out=runs/mnist
    python -m lotcal_tf.report runs/mnist -o mnist.html

The name of a table says what differs between runs: `calib_none-seed_0.csv` is `--calib=none --seed=0`. The folder
`conditions` has the table on corrupted and unseen data of the same name.
Predictions are not kept, so the report has no reliability diagrams and no intervals from single examples. Under label
noise the data is loaded (`--data_dir`), and the noise drawn again: verdicts need the share of wrong labels.
"""

import argparse
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.config.experiment import FIELDS, Experiment, setting_fields
from lotcal_tf.config.recipes import resolve
from lotcal_tf.config.sealed import seal
from lotcal_tf.data.sources import load


def restore(table: Path, flags: Mapping[str, Any], out: Path) -> Path:
    """Writes `experiment.json` and `metrics.csv` of a run; returns its directory."""
    differs = dict(_named(part) for part in table.stem.split("-"))
    levels = len(table.read_text().splitlines()) - 2  # a header, and level 0
    experiment = resolve({**flags, **differs, "levels": levels})
    realised = _realised(experiment)
    directory = out / f"{table.stem}-{experiment.run_id().rpartition('-')[2]}"
    directory.mkdir(parents=True)
    record = {
        "run_id": experiment.run_id(),
        "experiment": experiment.as_dict(),
        "realised": realised,
    }
    (directory / "experiment.json").write_bytes(seal(record))
    shutil.copy(table, directory / "metrics.csv")
    conditions = table.parent / "conditions" / table.name
    if conditions.exists():
        shutil.copy(conditions, directory / "conditions.csv")
    return directory


def _realised(experiment: Experiment) -> dict[str, Any]:
    """What a report reads of the data of a run; without label noise it needs no true number of examples."""
    if not experiment.label_noise:
        return {"examples": {"val": experiment.validation_size or 1}}
    dataset = load(experiment)
    return {
        "examples": {name: split.count for name, split in dataset.named_splits().items()},
        "classes": dataset.classes,
        "wrong_labels": dict(dataset.wrong_labels),
    }


def _named(part: str) -> tuple[str, str]:
    """The field or hyperparameter and the value of a part of a table's name."""
    known = [name for name in {**FIELDS, **setting_fields()} if part.startswith(f"{name}_")]
    if not known:
        raise SystemExit(f"{part}: a part of a table's name must be NAME_VALUE")
    name = max(known, key=len)
    return name, part.removeprefix(f"{name}_")


def main() -> None:
    """Restores the runs of a directory of tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", type=Path, help="directory of NAME_VALUE-NAME_VALUE.csv")
    parser.add_argument("--out", type=Path, required=True, help="new directory for the runs")
    arguments, others = parser.parse_known_args()
    for flag in others:
        if not re.fullmatch("--[^=]+=.*", flag):
            parser.error(f"{flag}: write the flags that all runs share as --NAME=VALUE")
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in others)
    for table in sorted(arguments.tables.glob("*.csv")):
        print(restore(table, flags, arguments.out))


if __name__ == "__main__":
    main()

"""Computes the tables of docs/results/transfer.md: tickets of one data set, trained on another.

    python tools/transfer.py --source=cifar10a --target=cifar10b --strategies=none,vwcc,lwcc_si \\
        --seeds=3 --out=runs/transfer --model=resnet20_8 --levels=6 --epochs=20 --data_dir=DIR

For each strategy and seed, a run on the source finds tickets, and a transfer trains every level of them
on the target with the strategy `--calib` (`same`: the strategy that found the tickets). The tickets of
the first strategy are also compared with the controls and trained with `--other_optimizer`. All other
flags are passed to the train command; flags for pruning, and those that a ticket determines, to the
search only. Each run is one process on one core. Finished runs are not trained again, so an
interrupted call can be continued.
"""

import argparse
import dataclasses
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from train_commands import TrainCommand, cell, read, run_all

from lotcal_tf.config.experiment import FIELDS, setting_fields

METRICS = ("accuracy", "ece", "nll")
CONTROLS = ("random_mask", "redrawn_weights")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One column of the tables.

    Attributes:
      column: its header.
      strategy: the strategy that found the tickets.
      flags: flags of the training on the target.
    """

    column: str
    strategy: str
    flags: tuple[str, ...]

    def name(self, seed: int) -> str:
        """The name of the run with a seed."""
        return "-".join(["to", *self.column.replace(",", "").split(), f"seed_{seed}"])


def variants(strategies: Sequence[str], calib: str, other_optimizer: str) -> list[Variant]:
    """The columns: one per strategy; for the first one also the controls and the other optimizer."""
    first = strategies[0]
    trained = {name: f"--calib={name if calib == 'same' else calib}" for name in strategies}
    found = [Variant(name, name, (trained[name],)) for name in strategies]
    found += [
        Variant(f"{first}, {control}", first, (trained[first], f"--control={control}"))
        for control in CONTROLS
    ]
    if other_optimizer:
        flags = (trained[first], *shlex.split(other_optimizer))
        found.append(Variant(f"{first}, other optimizer", first, flags))
    return found


def for_transfer(flags: Sequence[str]) -> list[str]:
    """The flags of the search that also apply to a transfer, where each level has a given ticket.

    Raises:
      SystemExit: a text is not a `--flag=value` of the train command.
    """
    kept = []
    known = {**setting_fields(), **FIELDS}
    for flag in flags:
        name, given, _ = flag.removeprefix("--").partition("=")
        if not given or not (name in known or name in ("config", "set")):
            raise SystemExit(
                f"{flag}: write --flag=value, a flag of this tool or of lotcal_tf.train"
            )
        metadata = known[name].metadata if name in known else {}
        if not (metadata.get("from_ticket") or metadata.get("of_pruning")):
            kept.append(flag)
    return kept


def overridden(flags: Sequence[str], by: Sequence[str]) -> list[str]:
    """`flags` followed by `by`, each flag with its last value only."""
    return list({flag.partition("=")[0]: flag for flag in [*flags, *by]}.values())


def searches(
    strategies: Sequence[str], seeds: int, source: str, flags: Sequence[str]
) -> dict[tuple[str, int], TrainCommand]:
    """The train commands that find tickets, by strategy and seed."""
    return {
        (name, seed): TrainCommand(
            f"find-{name}-seed_{seed}",
            [f"--dataset={source}", f"--calib={name}", f"--seed={seed}", *flags],
        )
        for seed in range(seeds)
        for name in strategies
    }


def transfers(
    columns: Sequence[Variant], seeds: int, target: str, flags: Sequence[str], out: Path
) -> dict[tuple[str, int], TrainCommand]:
    """The train commands that train tickets on the target, by column and seed."""
    return {
        (variant.column, seed): TrainCommand(
            variant.name(seed),
            overridden(
                [f"--dataset={target}", f"--seed={seed}", *for_transfer(flags)],
                [*variant.flags, f"--ticket={out / f'find-{variant.strategy}-seed_{seed}'}"],
            ),
        )
        for seed in range(seeds)
        for variant in columns
    }


def tables(runs: Mapping[tuple[str, int], Path]) -> str:
    """Test metrics by level and column, mean ± standard deviation over seeds, as Markdown tables."""
    rows = {key: read(run) for key, run in runs.items()}
    columns = list(dict.fromkeys(column for column, _ in rows))
    levels = range(min(map(len, rows.values())))
    parts = []
    for metric in METRICS:
        lines = [f"| {metric}: kept | {' | '.join(columns)} |", "|---:|" + "---:|" * len(columns)]
        for level in levels:
            kept = statistics.mean(float(own[level]["density"]) for own in rows.values())
            cells = [
                cell(
                    metric,
                    [
                        float(own[level][f"test_{metric}"])
                        for (c, _), own in rows.items()
                        if c == column
                    ],
                )
                for column in columns
            ]
            lines.append(f"| {100 * kept:.1f} % | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    """Runs searches and transfers, and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="cifar10a")
    parser.add_argument("--target", default="cifar10b")
    parser.add_argument("--strategies", default="none", help="strategies, separated by commas")
    parser.add_argument(
        "--calib",
        default="none",
        help="strategy on the target; same: the strategy that found the tickets",
    )
    parser.add_argument(
        "--other_optimizer",
        default="--optimizer=adam --lr=0.0012",
        help="flags of the last column; empty: no such column",
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given, flags = parser.parse_known_args()
    strategies = given.strategies.split(",")
    columns = variants(strategies, given.calib, given.other_optimizer)
    moved = transfers(columns, given.seeds, given.target, flags, given.out)
    run_all(list(searches(strategies, given.seeds, given.source, flags).values()), given.out)
    runs = run_all(list(moved.values()), given.out)
    print(tables(dict(zip(moved, runs, strict=True))))


if __name__ == "__main__":
    main()

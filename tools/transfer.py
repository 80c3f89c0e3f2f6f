"""Makes the tables of docs/results/transfer.md: tickets of one dataset trained on another.

    python tools/transfer.py --source=cifar10a --target=cifar10b --strategies=none,vwcc,lwcc_si \\
        --seeds=3 --out=runs/transfer --model=resnet20_8 --levels=6 --epochs=20 --data_dir=DIR

For each strategy and seed tickets are found on the source, then every level of them trains on the
target, by `--calib` (`same`: by the strategy that found it). Those of the first strategy are also
compared with the controls, and moved to `--other_optimizer`. Every flag this tool does not know
goes to the train command; what a ticket brings, or says how to prune, to the search only. A chain is one
process on one core; what is finished is not run again, so an interrupted call continues.
"""

import argparse
import dataclasses
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from chains import Chain, cell, read, run_all

from lotcal_tf.config.experiment import FIELDS, setting_fields

FIGURES = ("accuracy", "ece", "nll")
CONTROLS = ("random_mask", "redrawn_weights")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One column of the tables: whose tickets, and how they are trained on the target."""

    column: str
    strategy: str
    flags: tuple[str, ...]

    def name(self, seed: int) -> str:
        """What its run of a seed is called."""
        return "-".join(["to", *self.column.replace(",", "").split(), f"seed_{seed}"])


def variants(strategies: Sequence[str], calib: str, other_optimizer: str) -> list[Variant]:
    """The columns: a transfer a strategy; of the first one the controls and the other optimizer."""
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
    """The flags of the search that also mean something where every level has its ticket.

    Raises:
      SystemExit: something is no `--flag=value` of the train command.
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
    """`flags` and then `by`, each flag once: its last value."""
    return list({flag.partition("=")[0]: flag for flag in [*flags, *by]}.values())


def searches(
    strategies: Sequence[str], seeds: int, source: str, flags: Sequence[str]
) -> dict[tuple[str, int], Chain]:
    """The chains that find tickets, by strategy and seed."""
    return {
        (name, seed): Chain(
            f"find-{name}-seed_{seed}",
            [f"--dataset={source}", f"--calib={name}", f"--seed={seed}", *flags],
        )
        for seed in range(seeds)
        for name in strategies
    }


def transfers(
    columns: Sequence[Variant], seeds: int, target: str, flags: Sequence[str], out: Path
) -> dict[tuple[str, int], Chain]:
    """The chains that train the tickets on the target, by column and seed."""
    return {
        (variant.column, seed): Chain(
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
    """Test figures by level and column, mean ± standard deviation over seeds, as Markdown."""
    rows = {key: read(run) for key, run in runs.items()}
    columns = list(dict.fromkeys(column for column, _ in rows))
    levels = range(min(map(len, rows.values())))
    parts = []
    for figure in FIGURES:
        lines = [f"| {figure}: kept | {' | '.join(columns)} |", "|---:|" + "---:|" * len(columns)]
        for level in levels:
            kept = statistics.mean(float(own[level]["density"]) for own in rows.values())
            cells = [
                cell(
                    figure,
                    [
                        float(own[level][f"test_{figure}"])
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
    """Runs the chains and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="cifar10a")
    parser.add_argument("--target", default="cifar10b")
    parser.add_argument("--strategies", default="none", help="separated by commas")
    parser.add_argument("--calib", default="none", help="on the target; same: what found it")
    parser.add_argument(
        "--other_optimizer",
        default="--optimizer=adam --lr=0.0012",
        help="flags of the last column; empty: none",
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

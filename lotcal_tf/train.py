"""Finds lottery tickets: runs one experiment, stores a ticket per level, and exports the selected ticket.

Recipes set most of the fields below. A flag overrides the recipe, and a default applies only if neither sets the
field. experiment.json in the run directory has the values of a run; beside it are metrics.csv, history.csv, tickets/,
a TensorBoard log and export/. The same command continues an interrupted run; more --levels extend a finished one.
"""

import shlex

from lotcal_tf.config import custom, flags
from lotcal_tf.config.arguments import directory_of
from lotcal_tf.config.export_record import EXPORT
from lotcal_tf.config.recipes import check_own_choice, recipe_names, resolve
from lotcal_tf.config.run_data import data_path
from lotcal_tf.config.run_directory import check_ticket
from lotcal_tf.errors import LotcalError, UsageError
from lotcal_tf.training.distributed import cluster

FLAGS = (
    flags.CUSTOM_OBJECTS,
    flags.Flag(
        "takeover",
        "continue a run whose process on another machine is dead, although it was alive less than "
        "five minutes ago",
        switch=True,
    ),
)
COMMAND = flags.Command("train", f"{__doc__ or ''}\nRecipes: {', '.join(recipe_names())}.", FLAGS)
# The formats that the selected ticket is exported to; the `export` command has more.
FORMATS = ("saved_model", "float32")


def main(request: flags.Request) -> None:
    """Runs the experiment, prints its levels and exports the selected ticket.

    Raises:
      LotcalError: with a message of one line.
    """
    experiment = resolve(request.given, request.config)
    check_own_choice(experiment, request.given)
    custom.check_custom_objects(request.own["custom_objects"])
    data_path(experiment)
    cluster.of(experiment.distribute)
    if experiment.out:
        directory_of("out", experiment.out)
    if experiment.ticket:
        check_ticket(experiment.ticket)
    # Imported late: TensorFlow takes seconds, and usage errors should not wait.
    flags.start_tensorflow()
    from lotcal_tf.api import export_ticket
    from lotcal_tf.compat import keras
    from lotcal_tf.deploy.export import check_target
    from lotcal_tf.lottery.run import run_experiment

    custom_objects = custom.load_custom_objects(request.own["custom_objects"])
    with keras.utils.custom_object_scope(custom_objects):
        run = run_experiment(
            experiment,
            takeover=request.own["takeover"],
            check=lambda directory: check_target(directory / EXPORT),
        )
    if not run.chief:
        print(f"{run.directory}: this worker is done; the chief writes and exports")
        return
    if run.found == len(run.records):
        print(f"{run.directory} is finished: {run.found} levels; more --levels extend it")
    print(run.table())
    selected = run.selected
    print(
        f"selected: level {selected.level}, {100 * selected.density:.1f} % of the prunable weights"
    )
    place = shlex.quote(str(run.directory))
    command = f"python -m lotcal_tf.export --run={place} --formats="
    scaled = experiment.export_logits == "scaled"
    try:
        exported = export_ticket(
            run,
            formats=FORMATS,
            scaled=scaled,
            seconds=0,
            reuse=True,
            custom_objects=custom_objects,
        )
    except LotcalError as error:
        kind = UsageError if isinstance(error, UsageError) else LotcalError
        raise kind(
            f"the run is finished, but not exported: {error}; to export it otherwise: {command}keras,saved_model"
        ) from error
    print(f"exported, and verified against the ticket on {exported.examples:,} examples:")
    for path in exported.files.values():
        print(f"  {path}")
    print(f"more formats, and their speed: {command}{','.join([*FORMATS, 'int8'])}")
    print(f"TensorBoard: tensorboard --logdir {place}")


def run(argv: list[str] | None = None) -> None:
    """Runs the command and exits with its exit code."""
    flags.run(COMMAND, main, argv, interrupted="run the same command again to continue")


if __name__ == "__main__":
    run()

"""The search: trains, measures and stores a ticket, prunes and rewinds it, level by level."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from lotcal_tf import metrics
from lotcal_tf.calibration.post_hoc import chosen_temperature
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset
from lotcal_tf.errors import FieldError, TrainingDiverged, UsageError
from lotcal_tf.lottery import health
from lotcal_tf.lottery.checkpoints import Checkpoint
from lotcal_tf.lottery.pruner import Pruner
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.ticket import Arrays, Record, Ticket, architecture_of, wrap_for_training
from lotcal_tf.metrics import conditional
from lotcal_tf.models.initial import redraw
from lotcal_tf.pruning import masking, selection
from lotcal_tf.pruning.criteria import Criterion
from lotcal_tf.pruning.masked import is_kernel
from lotcal_tf.pruning.rewind import Rewind, masked_start
from lotcal_tf.training.callbacks import (
    check_callbacks,
    check_resumable,
    restore,
    resume_within_level,
    states,
)
from lotcal_tf.training.distributed.distribution import ONE_DEVICE, Distribution
from lotcal_tf.training.given_optimizer import GivenOptimizer
from lotcal_tf.training.time_estimate import estimate_time
from lotcal_tf.training.trainer import Epoch, Progress, Trainer

Predictions = Mapping[str, tuple[np.ndarray, np.ndarray]]
# The least time between two copies of the training state, in seconds: Ctrl-C loses at most this time and
# the epoch in progress. A copy can take as long as several short epochs, so not each of them makes one.
STATE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Start:
    """Masks and weights at the beginning of a level.

    Attributes:
      masks: True where a weight is kept.
      weights: the weights, including pruned ones.
      protected: the tensors that were pruned less, so that one weight remains.
      source: columns of `metrics.csv` that name the ticket the level starts from.
    """

    masks: selection.Masks
    weights: Arrays
    protected: tuple[str, ...] = ()
    source: Record = dataclasses.field(default_factory=dict)


class Observer:
    """Watches a search: a progress bar, a TensorBoard log. Each method does nothing unless it is overridden."""

    def on_start(
        self, total_steps: int, done: Sequence[Record], left: Sequence[int], epochs: int
    ) -> None:
        """Called at the beginning.

        Args:
          total_steps: the training steps that remain.
          done: the rows of all finished levels.
          left: the levels that are not finished; they can be before or between finished ones.
          epochs: how many epochs of the first of these are done.
        """

    def on_time_estimate(self, seconds: float) -> None:
        """Called before the first step, if a time estimate was requested.

        Args:
          seconds: the estimated time of the search.
        """

    def on_progress(self, progress: Progress) -> None:
        """Called after some steps, and at the end of each epoch."""

    def on_level(self, ticket: Ticket, predictions: Predictions) -> None:
        """Called when a level is stored.

        Args:
          ticket: the ticket of the level.
          predictions: labels and logits of each split.
        """

    def on_end(self) -> None:
        """Called at the end, also after an error."""


class Search:
    """One search: the levels of a run, each pruned from the level before.

    Args:
      experiment: the settings.
      start: the plain model whose weights level 0 starts from; or tickets of one model, from which
        the first levels start, one each. Every later level is pruned from the one before.
      dataset: the data for training and measuring.
      strategy: the strategy class.
      criterion: the pruning criterion's class.
      store: a started run directory; its finished levels are not trained again.
      observers: are notified of each event.
      distribution: the devices that share each step.
      estimate_time: whether to measure the time of some steps first, for the observers'
        `on_time_estimate`. Results do not depend on it. It must be the same in all processes.
      callbacks: Keras callbacks. Each level is one training run for them, see `Trainer.train`.
      optimizer: the optimizer or schedule, if the caller passed one as an object.

    Attributes:
      resumed: the checkpoint from which the first level goes on; None: it begins.
      notes: lines for the user about checkpoints that cannot be used.

    Raises:
      UsageError: model, data and experiment do not fit together, or a callback cannot be used.
    """

    def __init__(
        self,
        experiment: Experiment,
        start: "keras.Model | Sequence[Ticket]",
        dataset: Dataset,
        strategy: type[Strategy],
        criterion: type[Criterion],
        store: RunStore,
        observers: Sequence[Observer] = (),
        distribution: Distribution = ONE_DEVICE,
        estimate_time: bool = False,
        callbacks: Sequence["keras.callbacks.Callback"] = (),
        optimizer: GivenOptimizer | None = None,
    ) -> None:
        check_callbacks(callbacks)
        if finished := store.finished():
            check_resumable(callbacks, store.header(finished - 1).get("callbacks", ()), finished)
        self.experiment, self.dataset, self.store = experiment, dataset, store
        self.observers, self.callbacks = observers, callbacks
        self.estimate_time = estimate_time
        self.tickets = start if isinstance(start, Sequence) else ()
        if isinstance(start, Sequence):
            first = start[0]
            self.network = first.network()
            self.initial, self.initial_masks = first.rewind, first.masks
            self.architecture = first.architecture
        else:
            whole = (masking.output_layer(start),) if experiment.exclude_output else ()
            self.network = wrap_for_training(
                start, experiment.exclude, whole, experiment.prune_depthwise
            )
            self.initial = masking.values(start)
            self.initial_masks = {
                name: np.ones(mask.shape, bool)
                for name, mask in masking.mask_variables(self.network).items()
            }
            self.architecture = architecture_of(start)
        if not self.initial_masks:
            raise UsageError(
                "nothing is left to prune: exclude and exclude_output leave every layer whole"
            )
        self.trainer = Trainer(experiment, strategy, self.network, dataset, distribution, optimizer)
        # Gradients are of the network without dropout, so what they weight is, too.
        predict = self.trainer.predict_without_dropout
        self.pruner = Pruner(experiment, criterion, self.network, dataset, predict)
        self.rewind = self._parse_rewind()
        self._check_levels()
        self.resumed, self.notes = self._usable_checkpoint()
        self._waiting: Checkpoint | None = None  # not written yet
        self.stored_at = time.monotonic()  # when the training was last stored
        self._taken = -math.inf  # when its state was last copied

    def _usable_checkpoint(self) -> tuple[Checkpoint | None, Sequence[str]]:
        """The checkpoint to go on from, and lines about those that cannot be used."""
        missing = self.store.missing(self.experiment.levels)
        found, notes = self.store.checkpoint(missing[0]) if missing else (None, ())
        if found is None or not resume_within_level(self.callbacks, found.state.callbacks):
            return None, notes
        if not self.trainer.accepts(found.state):
            return None, [
                *notes,
                f"level {found.level} begins again: its checkpoint has other variables",
            ]
        return found, notes

    def _parse_rewind(self) -> Rewind:
        """The field `rewind`, checked against the length of level 0.

        Raises:
          FieldError: level 0 ends before the step to rewind to, or may end before it.
        """
        experiment, trainer = self.experiment, self.trainer
        rewind = Rewind.parse(experiment.rewind, trainer.steps_per_epoch)
        if rewind.steps >= trainer.total_steps:
            problem = f"a level has {trainer.total_steps} steps: rewind to an earlier one"
            raise FieldError("rewind", experiment.rewind, problem)
        soonest = (experiment.early_stopping + 1) * trainer.steps_per_epoch
        if experiment.early_stopping and rewind.steps > soonest:
            problem = (
                f"early_stopping={experiment.early_stopping} may end level 0 at step {soonest}"
            )
            raise FieldError("rewind", experiment.rewind, f"{problem}: rewind to an earlier one")
        return rewind

    def _check_levels(self) -> None:
        """Raises FieldError if more levels are requested than the numbers of weights allow."""
        given = max(len(self.tickets), 1) - 1
        pruned = self.experiment.levels - given
        if pruned <= 0:
            return
        masks = self.tickets[given].masks if self.tickets else self.initial_masks
        self.pruner.check_criterion(masks, self.initial)
        self.pruner.check_count(masks, self.initial)
        possible = self.pruner.possible_levels(masks, self.initial, pruned)
        if possible < pruned:
            problem = (
                f"at most {given + possible}: after that, too few of the {selection.count(masks):,} prunable "
                f"weights are left to prune more at prune_rate={self.experiment.prune_rate:g}"
            )
            raise FieldError("levels", self.experiment.levels, problem)

    def run(self) -> None:
        """Trains all unfinished levels, and stores each before the next begins.

        Raises:
          TrainingDiverged: a loss was not finite. Finished levels are kept.
          UsageError: nothing is left to prune.
          Unhealthy: a level has a problem, and `on_unhealthy` is `stop`. The level is stored.
        """
        levels = self.store.missing(self.experiment.levels)
        before: Ticket | None = None
        for observer in self.observers:
            epochs = self.resumed.state.epochs if self.resumed else 0
            observer.on_start(self._steps(levels), self.store.stored_records(), levels, epochs)
        try:
            self._report_time_estimate(levels)
            for level in levels:
                if level and (before is None or before.level != level - 1):
                    before = self.store.read(level - 1)
                    restore(self.callbacks, before.callbacks)
                before = self._level(level, before)
                health.check(self.experiment.on_unhealthy, [before.record])
        except KeyboardInterrupt:
            self._write_checkpoint()
            raise
        except TrainingDiverged as error:
            self.store.note_failure(str(error))
            raise
        finally:
            for observer in self.observers:
                observer.on_end()

    def _report_time_estimate(self, levels: Sequence[int]) -> None:
        seconds = self.predicted_seconds() if self.estimate_time and levels else None
        if seconds is not None:
            for observer in self.observers:
                observer.on_time_estimate(seconds)

    def predicted_seconds(self) -> float | None:
        """Predicts the time of all unfinished levels, by training for about a second and undoing it.

        Compilation and the loading of the data are not part of it.

        Returns:
          Seconds; None if no estimate is possible, see `estimate_time`.
        """
        levels = self.store.missing(self.experiment.levels)
        found = estimate_time(self.trainer, self._measure)
        if found is None:
            return None
        return sum(found.level(self.trainer, self._steps_done(level)) for level in levels)

    def _steps(self, levels: Sequence[int]) -> int:
        return sum(self.trainer.total_steps - self._steps_done(level) for level in levels)

    def _steps_done(self, level: int) -> int:
        """The step of the schedule at which the training of a level begins here."""
        if self.resumed is not None and level == self.resumed.level:
            return self.resumed.state.epochs * self.trainer.steps_per_epoch
        return self._first_step(level)

    def _first_step(self, level: int) -> int:
        """The first step of a level in the schedule; with late rewinding, it is not 0."""
        return self.rewind.steps if level >= max(1, len(self.tickets)) else 0

    def _level(self, level: int, before: Ticket | None) -> Ticket:
        begun = time.perf_counter()
        start = self._start(level, before)
        masks = start.masks
        masking.assign(self.network, masked_start(start.weights, masks))
        masking.assign_masks(self.network, masks)
        epochs, late_weights = self._train(level)
        kept = self._kept(epochs)
        predictions = {
            name: self.trainer.predict(split)
            for name, split in self.dataset.measured_splits.items()
        }
        trained = masked_start(masking.values(self.network), masks)
        record = {
            "level": level,
            **_size(masks, trained),
            "epochs": epochs[-1].epoch + 1,
            "seconds": round(time.perf_counter() - begun, 3),
            **self._with_temperatures(self._measure(predictions)),
            "train_loss": kept.train_loss,
            **({"kept_epoch": kept.epoch} if self.experiment.early_stopping else {}),
            "ece_bins": self.experiment.ece_bins,
            "protected": " ".join(start.protected),
            "health": " ".join(health.problems(masks, trained, *predictions["val"])),
            **start.source,
        }
        ticket = Ticket(
            level,
            self.architecture,
            masks,
            rewind=start.weights if late_weights is None else late_weights,
            trained=trained,
            record=record,
            history=[epoch.row for epoch in epochs],
            input_range=self.dataset.input_range,
            class_names=self.dataset.class_names,
            predictions={
                f"{split}/{kind}": values
                for split in ("val", "test")
                if split in predictions
                for kind, values in zip(("labels", "logits"), predictions[split], strict=True)
            },
            callbacks=states(self.callbacks),
        )
        self.store.save(ticket)
        self._waiting, self.stored_at = None, time.monotonic()
        for observer in self.observers:
            observer.on_level(ticket, predictions)
        return ticket

    def _kept(self, epochs: Sequence[Epoch]) -> Epoch:
        """The epoch whose weights a level ends with."""
        if not self.experiment.early_stopping:
            return epochs[-1]
        return min(epochs, key=lambda epoch: epoch.val_loss)

    def _train(self, level: int) -> tuple[list[Epoch], Arrays | None]:
        """Trains a level.

        Returns:
          Its epochs and, at level 0 of late rewinding, the weights to rewind to.

        Raises:
          FieldError: a callback stopped level 0 before the step to rewind to.
        """
        rewind_step = self.rewind.steps if level == 0 else 0
        resumed = self._take_resumed(level)
        epochs = list(resumed.epochs) if resumed else []
        weights = resumed.late_weights if resumed else None
        for epoch in epochs:
            self.store.append_epoch(epoch.row)
        begun = time.monotonic()  # of the epoch
        for progress in self.trainer.train(
            level,
            first_step=self._first_step(level),
            pause_at=(rewind_step,),
            callbacks=self.callbacks,
            state=resumed.state if resumed else None,
        ):
            if progress.step == rewind_step and weights is None:
                self.trainer.fetch()
                weights = masking.values(self.network)
            if progress.epoch is not None:
                epochs.append(progress.epoch)
                self.store.append_epoch(progress.epoch.row)
            if progress.take_state is not None:
                now = time.monotonic()
                writes = self._must_write(now, epoch_seconds=now - begun)
                if writes or now - self._taken >= STATE_SECONDS:
                    state, self._taken = progress.take_state(), now
                    self._waiting = Checkpoint(level, tuple(epochs), state, weights)
                if writes:
                    self._write_checkpoint()
                begun = time.monotonic()
            for observer in self.observers:
                observer.on_progress(progress)
        if rewind_step and weights is None:
            problem = f"a callback stopped level 0 at step {progress.step}, before that step"
            raise FieldError("rewind", self.experiment.rewind, problem)
        return epochs, weights

    def _take_resumed(self, level: int) -> Checkpoint | None:
        """The checkpoint from which a level goes on; it is needed once."""
        found = self.resumed if self.resumed and self.resumed.level == level else None
        self.resumed = None
        return found

    def _must_write(self, now: float, epoch_seconds: float) -> bool:
        """Whether a kill in the next epoch could lose more than `checkpoint_minutes`."""
        return now - self.stored_at + epoch_seconds >= 60 * self.experiment.checkpoint_minutes

    def _write_checkpoint(self) -> None:
        if self._waiting is not None:
            self.store.save_checkpoint(self._waiting)
            self._waiting, self.stored_at = None, time.monotonic()

    def _start(self, level: int, before: Ticket | None) -> Start:
        """The start of a level: a given ticket, or else the pruned and rewound level before."""
        if level < len(self.tickets):
            ticket = self.tickets[level]
            return Start(ticket.masks, ticket.rewind, source=ticket.source)
        if before is None:
            return Start(self.initial_masks, self.initial)
        pruned = self.pruner.prune(before)
        return Start(pruned.masks, self._rewound(level, before), pruned.protected)

    def _rewound(self, level: int, before: Ticket) -> Arrays:
        """The weights to rewind to, including pruned ones."""
        if self.rewind.kind == "none":
            return before.trained
        if self.rewind.kind == "random":
            plain = masking.strip(self.network)
            drawn = masking.values(redraw(plain, self.experiment.seed, "reinitialise", level))
            return drawn | {name: before.rewind[name] for name in masking.frozen_weights(plain)}
        return before.rewind

    def _measure(self, predictions: Predictions) -> Record:
        """Metrics of all splits, before and after temperature scaling, fitted on validation data."""
        bins = self.experiment.ece_bins
        temperature = chosen_temperature(*predictions["val"])
        figures: Record = {"temperature": temperature}
        for split, (labels, logits) in predictions.items():
            measured = metrics.measure(labels, logits, bins=bins)
            figures[f"{split}_loss"] = measured["nll"]
            figures |= {f"{split}_{name}": value for name, value in measured.items()}
            scaled = logits / temperature
            figures[f"{split}_nll_scaled"] = metrics.nll(labels, scaled)
            figures[f"{split}_ece_scaled"] = metrics.ece(labels, scaled, bins=bins)
        return figures | self._measure_by_truth(predictions)

    def _with_temperatures(self, figures: Record) -> Record:
        """Metrics with the temperature of the network without dropout, since exported files have none.

        Metrics of averages over stochastic passes are scaled by `mc_temperature`, that of the averages.
        """
        if not self.experiment.mc_eval:
            return figures
        plain = self.trainer.predict_without_dropout(self.dataset.validation)
        averaged = figures["temperature"]
        return figures | {"temperature": chosen_temperature(*plain), "mc_temperature": averaged}

    def _measure_by_truth(self, predictions: Predictions) -> Record:
        """Metrics of test predictions against noisy labels and against the true conditionals."""
        figures: Record = {}
        if "test" not in predictions:  # Only the time of the other metrics is measured.
            return figures
        if self.dataset.noisy_test_labels is not None:
            noisy = self.dataset.noisy_test_labels
            measured = metrics.measure(noisy, predictions["test"][1], bins=self.experiment.ece_bins)
            figures |= {f"test_noisy_{name}": value for name, value in measured.items()}
        if self.dataset.truth is not None:
            measured = conditional.measure(self.dataset.truth, predictions["test"][1])
            figures |= {f"test_{name}": value for name, value in measured.items()}
        return figures


def _size(masks: Mapping[str, np.ndarray], trained: Arrays) -> Record:
    remaining = selection.count(masks)
    prunable = sum(mask.size for mask in masks.values())
    kernels = sum(int(np.count_nonzero(w)) for name, w in trained.items() if is_kernel(name, w))
    return {
        "density": remaining / prunable,
        "remaining": remaining,
        "prunable": prunable,
        "weights": kernels,
    }

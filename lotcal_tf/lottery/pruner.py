"""Prunes a trained level by the scores of a criterion, with the experiment's scope and rates."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.config.custom import calling, is_own
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset, Split
from lotcal_tf.errors import FieldError
from lotcal_tf.lottery.gradients import Gradients
from lotcal_tf.lottery.ticket import Arrays, Ticket
from lotcal_tf.pruning import masking, selection
from lotcal_tf.pruning.criteria import Criterion, State
from lotcal_tf.pruning.masked import is_kernel
from lotcal_tf.pruning.rewind import masked_start


class Pruner:
    """Finds the masks of the next level.

    Args:
      experiment: its scope, rates and seed are used.
      criterion: the pruning criterion's class.
      network: a wrapped network. It is set to the level that is pruned when a criterion uses it.
      dataset: the data for gradients.
      predict: returns labels and logits of a split for the current weights of `network`.
    """

    def __init__(
        self,
        experiment: Experiment,
        criterion: type[Criterion],
        network: "keras.Model",
        dataset: Dataset,
        predict: Callable[[Split], tuple[NDArray, NDArray]],
    ) -> None:
        self.experiment, self.network = experiment, network
        self._gradients = Gradients(network, dataset, predict, experiment.ece_bins)
        self.criterion = criterion(**experiment.settings_of(criterion.Hyperparameters))
        self.output = masking.output_layer(network)

    def prune(self, before: Ticket) -> selection.Pruned:
        """The masks of the level after `before`.

        Raises:
          UsageError: too few weights are left, or the criterion fails or its scores cannot be ranked.
        """
        # In the order of the model, which decides between equal scores.
        masks = {name: before.masks[name] for name in masking.mask_variables(self.network)}
        ranked = self._ranked(masks)
        fixed = [name for name in masks if name not in ranked]
        amount = self._amount(selection.survivors(ranked), self._fixed(masks, before.trained))
        pruned = selection.prune(self._scores(before, fixed), ranked, amount, self.criterion.rounds)
        return dataclasses.replace(pruned, masks=masks | pruned.masks)

    def check_criterion(self, masks: selection.Masks, weights: Arrays) -> None:
        """Scores initial weights by a custom criterion, so that a mistake in it costs no training.

        Whether scores are finite is not checked: weights have not changed yet, so that their changes
        are 0.

        Args:
          masks, weights: those that level 0 starts from, by path.

        Raises:
          FieldError: `scores` raises an error, or does not return an array of each weight's shape.
        """
        if not is_own(type(self.criterion)):
            return
        self._scored(self._state(0, weights, weights, masks, self._ranked(masks), 0))

    def possible_levels(self, masks: selection.Masks, weights: Arrays, most: int) -> int:
        """How many levels can be pruned from masks on, at most `most`; counts do not depend on scores.

        Args:
          masks: the masks of the first level.
          weights: by path, of which only the shapes are used.
          most: where to stop counting.
        """
        survivors, fixed = selection.survivors(self._ranked(masks)), self._fixed(masks, weights)
        return selection.possible_rounds(survivors, lambda left: self._amount(left, fixed), most)

    def check_count(self, masks: selection.Masks, weights: Arrays) -> None:
        """Checks that the tensors that are pruned have the weights that `count` demands.

        Raises:
          FieldError: a level would prune more weights than these tensors can lose.
        """
        survivors = selection.survivors(self._ranked(masks))
        amount = self._amount(survivors, self._fixed(masks, weights))
        most = sum(max(number - 1, 0) for number in survivors.values())
        if self.experiment.count == "openlth" and isinstance(amount, int) and amount > most:
            problem = (
                f"a level would prune {amount:,} weights, a share of all kernels, and the layers that are pruned "
                f"can lose {most:,}: choose count=prunable, or exclude fewer layers"
            )
            raise FieldError("count", self.experiment.count, problem)

    def _fixed(self, masks: selection.Masks, weights: Arrays) -> int:
        """The number of remaining kernel entries in tensors that are not pruned.

        Args:
          masks: of all tensors that have one.
          weights: by path, of which only the shapes are used.
        """
        ranked = self._ranked(masks)
        return sum(
            int(masks[name].sum()) if name in masks else value.size
            for name, value in weights.items()
            if is_kernel(name, value) and name not in ranked
        )

    def _ranked(self, masks: selection.Masks) -> selection.Masks:
        """The masks of the tensors that are pruned.

        The output layer of a given ticket may have masks although this experiment does not prune it.
        """
        excluded = self.experiment.exclude_output
        return {n: mask for n, mask in masks.items() if not (excluded and self._is_output(n))}

    def _is_output(self, path: str) -> bool:
        return path.rpartition("/")[0] == self.output

    def _amount(self, survivors: Mapping[str, int], fixed: int) -> int | dict[str, int]:
        """The number of weights to prune: in all tensors together, or in each.

        Args:
          survivors: the number of survivors in each tensor that is pruned.
          fixed: see `_fixed`.
        """
        rate, output_rate = self.experiment.prune_rate, self.experiment.output_rate
        if self.experiment.scope == "local":
            rates = {name: output_rate if self._is_output(name) else rate for name in survivors}
            return selection.local_counts(survivors, rates)
        if self.experiment.count == "openlth":
            return selection.openlth_count(survivors, rate, fixed)
        return selection.global_count(survivors, rate)

    def _scores(
        self, before: Ticket, fixed: Sequence[str]
    ) -> Callable[[selection.Masks], selection.Scores]:
        """The criterion's scores of the level `before`, as a function of a round's masks."""
        rounds = itertools.count()

        def scores(masks: selection.Masks) -> selection.Scores:
            whole = masks | {name: before.masks[name] for name in fixed}
            level, trained, rewind = before.level, before.trained, before.rewind
            found = self._scored(self._state(level, trained, rewind, whole, masks, next(rounds)))
            self._check_finite(found, masks)
            return found

        return scores

    def _state(
        self,
        level: int,
        trained: Arrays,
        rewind: Arrays,
        whole: selection.Masks,
        masks: selection.Masks,
        number: int,
    ) -> State:
        """What a criterion needs to know in a round.

        Args:
          level, trained, rewind: number and weights of the level that is pruned.
          whole: the masks of all tensors that have one.
          masks: those of the tensors that are pruned.
          number: number of the round.
        """

        def network() -> "keras.Model":
            masking.assign(self.network, masked_start(trained, whole))
            masking.assign_masks(self.network, whole)
            return self.network

        def gradient(of: str) -> "dict[str, NDArray]":
            network()
            return self._gradients(of)

        return State(
            weights=masked_start(trained, whole),
            masks=masks,
            rewind=rewind,
            network=network,
            gradient=gradient,
            seed=self.experiment.seed,
            level=level,
            round=number,
        )

    def _scored(self, state: State) -> selection.Scores:
        """The criterion's scores; raises FieldError if they are not usable, or custom code fails."""
        name = self.experiment.criterion
        with calling(type(self.criterion), "criterion", name, "scores"):
            found = self.criterion.scores(state)
        for path, mask in state.masks.items():
            known = isinstance(found, Mapping) and path in found
            if not known or np.shape(found[path]) != mask.shape:
                problem = f"its scores must be a dictionary with an array of shape {mask.shape} for {path!r}"
                raise FieldError("criterion", name, problem)
        return {path: np.asarray(found[path]) for path in state.masks}

    def _check_finite(self, scores: selection.Scores, masks: selection.Masks) -> None:
        """Raises FieldError if a survivor's score is not finite, so that it cannot be ranked."""
        for path, mask in masks.items():
            if not np.isfinite(scores[path][mask]).all():
                problem = f"its scores of {path!r} must be finite numbers"
                raise FieldError("criterion", self.experiment.criterion, problem)

"""Whether a trial of a search goes on: its scores, epoch by epoch, told to the study's pruner."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd

from foldvote.config.recipe import Recipe
from foldvote.training.validation import history_column
from foldvote.tuning.study import SearchSpec

# Offset between the reported scores of one fold and the next. Pruners look at the best value so far: as the offset is
# larger than any score, this is always a value of the present fold and not of an earlier, perhaps easier one.
_APART = 100.0


class TrialPruner:
    """Reports the scores of one trial to the study's pruner, and asks it whether to continue.

    Trials may differ in their number of epochs. So a fold has n reports, one after each 1/n of the trial's epochs,
    where n is the smallest number of epochs in the search: trials are compared at equal shares of their schedules. The
    reported value is the mean of the final scores of the finished folds and the present score of this fold. Where the
    score is not defined, as an AUC in a fold of one class, nothing is reported, and no later mean counts the fold.

    Args:
        asked: the Optuna trial.
        search: the search.
    """

    def __init__(self, asked: optuna.Trial, search: SearchSpec) -> None:
        self.asked, self.search, self.pruned = asked, search, False
        self.result: dict[str, Any] = {"folds": {}, "epochs": 0, "seconds": 0.0, "device": ""}
        self._column = history_column(search.tune.score)
        self._before: list[float] = []
        self._reported = 0

    def report(self, place: int, recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> str:
        """Report the new epochs of a fold.

        Args:
            place: position of the fold among those of the search, from 0.
            recipe: recipe of the trial.
            history: one row per finished epoch of this fold.

        Returns:
            The reason if the trial is pruned, otherwise an empty string.
        """
        steps, compared = self.search.epochs, False
        for epoch, row in enumerate(history, start=1):
            step = place * steps + epoch * steps // recipe.epochs
            if step > self._reported:
                self._reported = step
                if math.isfinite(row[self._column]):
                    running = float(np.mean([*self._before, row[self._column]]))
                    self.asked.report(running + self.search.sign * place * _APART, step)
                    compared = True
        last = self._reported == len(self.search.folds) * steps
        self.pruned = compared and not last and self.asked.should_prune()
        return "pruned, as others did better by then" if self.pruned else ""

    def close(self, place: int, recipe: Recipe, history: pd.DataFrame, device: str) -> None:
        """Record the end of a fold: it is trained, or the trial was pruned in it.

        Args:
            place: position of the fold among those of the search, from 0.
            recipe: recipe of the trial.
            history: one row per epoch of this fold.
            device: name of the hardware.
        """
        if not self.pruned:
            # Not yet reported if a state saved after the last epoch was resumed.
            self.report(place, recipe, history.to_dict("records"))
            self._before += [score for score in history[self._column].iloc[-1:] if math.isfinite(score)]
        self.result["epochs"] += len(history)
        self.result["seconds"] += float(history["seconds"].sum())
        self.result["device"] = device

    def note(self, fold: int, score: float) -> None:
        """Record the score of a single fold; NaN: it is not defined there."""
        self.result["folds"][str(fold)] = score if math.isfinite(score) else None

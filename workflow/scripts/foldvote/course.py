"""How a trial is doing, epoch by epoch and fold by fold: what is reported to the study, and when a trial ends early."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd

from foldvote.recipes import Recipe
from foldvote.study import Search

_COLUMN = {"log_loss": "val_loss"}  # of the history, where it is not `val_` and the score's name
# Of the score of one fold and that of the next: more than any score, so that the best score so far, which pruners look
# at, is always one of the fold that is trained and not of an easier one before it.
_APART = 100.0


class Course:
    """The course of one trial, in the eyes of the study's pruner.

    After each 1/n of its epochs in a fold, n the fewest epochs that a trial may have, a trial is compared with others
    by the mean of the folds before, after their last epoch, and of this one now. So trials of many epochs and of few
    meet at equal shares of their own schedules.
    """

    def __init__(self, asked: optuna.Trial, search: Search) -> None:
        self.asked, self.search, self.pruned = asked, search, False
        self.result: dict[str, Any] = {"folds": {}, "epochs": 0, "seconds": 0.0, "device": ""}
        self._column = _COLUMN.get(search.tune.score, f"val_{search.tune.score}")
        self._before: list[float] = []
        self._reported = 0

    def judged(self, place: int, recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> str:
        """Report what is new in the history of the fold at a place; says why the trial ends, or nothing."""
        steps, known = self.search.epochs, self._reported
        for epoch, row in enumerate(history, start=1):
            step = place * steps + epoch * steps // recipe.epochs
            if step > self._reported:
                running = float(np.mean([*self._before, row[self._column]]))
                self.asked.report(running + self.search.sign * place * _APART, step)
                self._reported = step
        last = self._reported == len(self.search.folds) * steps
        self.pruned = known < self._reported and not last and self.asked.should_prune()
        return "pruned, as others did better by then" if self.pruned else ""

    def close(self, place: int, recipe: Recipe, history: pd.DataFrame, device: str) -> None:
        """A fold is trained, or the trial is pruned in it."""
        if not self.pruned:
            self.judged(place, recipe, history.to_dict("records"))  # of a state that was saved after its last epoch
            self._before.append(float(history[self._column].iloc[-1]))
        self.result["epochs"] += len(history)
        self.result["seconds"] += float(history["seconds"].sum())
        self.result["device"] = device

    def note(self, fold: int, score: float) -> None:
        """The score of a fold by itself."""
        self.result["folds"][str(fold)] = score

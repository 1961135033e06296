"""The form of an ensemble method: how it is fitted on out-of-fold probabilities, and applied to any others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import MOST_FITTED, Candidates

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
Params = dict[str, Any]
Metric = Literal["log_loss", "macro_f1"]


class Need(Enum):
    """What a method needs; without it, it fails or gives the same probabilities as the mean."""

    SEVERAL_MODELS = "two or more models"
    SEVERAL_CANDIDATES = "two or more candidates"
    FACTORS = "classes made up of factors"
    METADATA = "metadata of the images"


@dataclass(frozen=True)
class FitContext:
    """What a fit may use beside probabilities and labels.

    Attributes:
        label_space: the classes.
        seed: the run's seed.
        metric: the score that greedy and best_model improve.
        folds: the fold of each image, int (images,), for a choice by cross-validation within the fit; None: no folds.
    """

    label_space: LabelSpace
    seed: int
    metric: Metric = "log_loss"
    folds: Labels | None = None


@dataclass(frozen=True)
class EnsembleMethod:
    """A way to combine the candidates' probabilities.

    Attributes:
        name: as in `vote.kinds` of the configuration.
        fit: called with candidates (sorted by name), true codes int64 (images,) and the context. Returns a JSON-able
            dict, in a key that no other kind of parameters uses.
        apply: called with candidates (sorted by name), what `fit` returned, and the classes. Returns float64 (images,
            classes) whose rows sum to 1. Each image is computed on its own, because images come in pieces.
        needs: what there must be for the method to be compared.
        is_fitted: whether `fit` looks at labels or probabilities; if not, no cross-validation is needed to score it.
        fits_certainty: whether what it fits depends on how certain single members are. The mean of all members is less
            certain, so that such a fit needs a reserve.
        most_images: `fit` gets at most so many images, a draw of whole groups.
    """

    name: str
    fit: Callable[[Candidates, Labels, FitContext], Params]
    apply: Callable[[Candidates, Mapping[str, Any], LabelSpace], Floats]
    needs: frozenset[Need] = frozenset()
    is_fitted: bool = True
    fits_certainty: bool = False
    most_images: int = MOST_FITTED

"""The candidates of an ensemble: every model in each of its test-time views, averaged over the folds.

Models that learn some factors only (factor models) are multiplied to one more model of whole classes,
the factor product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.model_predictions import Learnt, ModelPredictions
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import weighted_mean
from foldvote.runtime.seeding import generator

Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
PRODUCT_SIGN = "*"  # no model's name may hold it
MOST_FITTED = 50_000  # images that methods are fitted on and compared by: a thousand numbers need no more


@dataclass(frozen=True)
class Candidates:
    """Probabilities of several candidates for the same images.

    Attributes:
        names: unique names of the candidates, such as `lite0/identity`.
        models: the model of each candidate; the candidates of one model are its views.
        probabilities: float32 or float64 (candidates, images, classes); rows sum to 1.
        metadata: of the same images, as `data.metadata.read_metadata` gives it; None: there is none.

    Raises:
        ValueError: if the three do not fit each other.
    """

    names: tuple[str, ...]
    models: tuple[str, ...]
    probabilities: Floats
    metadata: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        shape, count = self.probabilities.shape, len(self.names)
        if len(shape) != 3 or shape[0] != count or len(self.models) != count or not count:
            raise ValueError(f"{count} names and {len(self.models)} models do not fit probabilities of shape {shape}")
        if len(set(self.names)) != count:
            raise ValueError(f"candidates {self.names} are not unique")

    @property
    def images(self) -> int:
        """Number of images."""
        return self.probabilities.shape[1]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.probabilities.shape[2]

    def named(self, names: Sequence[str]) -> "Candidates":
        """The candidates of these names, in this order.

        Raises:
            UserError: if one is missing.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise UserError(
                f"vote: no predictions of {', '.join(missing)}; run your command again with one configuration"
            )
        if tuple(names) == self.names:
            return self
        positions = [self.names.index(name) for name in names]
        models = tuple(self.models[at] for at in positions)
        return Candidates(tuple(names), models, self.probabilities[positions], self.metadata)

    def ordered(self) -> "Candidates":
        """The same candidates sorted by name, so that nothing depends on the order in which they were given."""
        return self.named(sorted(self.names))

    def rows(self, chosen: Codes | slice) -> "Candidates":
        """The same candidates for some of the images."""
        metadata = None if self.metadata is None else self.metadata.iloc[chosen]
        return Candidates(self.names, self.models, self.probabilities[:, chosen], metadata)


def equal_shares(candidates: Candidates) -> dict[str, float]:
    """Weights of the candidates: the same for every model, and for every view within a model; their sum is 1."""
    models = sorted(set(candidates.models))
    return {
        name: 1 / (len(models) * candidates.models.count(model))
        for name, model in sorted(zip(candidates.names, candidates.models, strict=True))
    }


def mixture_of(candidates: Candidates, weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """The weighted mean of the named candidates, in whatever order; float64 (images, classes)."""
    used = {name: weight for name, weight in sorted(weights.items()) if weight > 0}
    return weighted_mean(candidates.named(list(used)).probabilities, used.values())


def model_mean(candidates: Candidates, model: str) -> Floats:
    """The mean of one model over its views: float64 (images, classes)."""
    return weighted_mean(candidates.probabilities[[at for at, of in enumerate(candidates.models) if of == model]])


def model_means(candidates: Candidates) -> tuple[list[str], Floats]:
    """The mean of each model over its views.

    Returns:
        The models in sorted order, and float64 (models, images, classes). That takes twice the memory of the
        candidates, so call it for a part of many images.
    """
    models = sorted(set(candidates.models))
    return models, np.stack([model_mean(candidates, model) for model in models])


def model_probabilities(candidates: Candidates) -> Floats:
    """The mean of each model over its views, models in sorted order, in the candidates' own precision.

    Without a copy where every model has one view. Shape (models, images, classes).
    """
    models = sorted(set(candidates.models))
    if list(candidates.models) == models:
        return candidates.probabilities
    means = np.empty((len(models), candidates.images, candidates.classes), candidates.probabilities.dtype)
    for mean, model in zip(means, models, strict=True):
        mean[:] = model_mean(candidates, model)
    return means


def subsample(images: int, groups: Codes | None, seed: int, most: int = MOST_FITTED) -> npt.NDArray[np.int64]:
    """The images that a method is fitted on: all of them, or a fixed draw of at most `most`.

    Whole groups are drawn where they are given, so that the draw does not depend on the order of the images. Without
    groups, or where the first group drawn has more than `most` images, single images are drawn by their positions.

    Args:
        images: number of images.
        groups: the code of each image's group, shape (images,); None: there are no groups.
        seed: the run's seed.
        most: the limit.

    Returns:
        Positions in rising order, int64.
    """
    if images <= most:
        return np.arange(images)
    draws = generator(seed, "vote", "subsample")
    if groups is not None:
        _, code, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
        order = draws.permutation(len(sizes))
        drawn = order[np.cumsum(sizes[order]) <= most]
        if len(drawn):
            return np.flatnonzero(np.isin(code, drawn))
    return np.sort(draws.choice(images, most, replace=False))


def candidates_of(predictions: ModelPredictions, label_space: LabelSpace) -> Candidates:
    """The candidates: every model of whole classes and the factor product, in every view, named `model/view`.

    They are sorted by name. Without factor models these are the predictions' means, without a copy.
    """
    model_views = predictions.model_views
    if not partial_models(predictions.learnt):
        names = tuple(map("/".join, model_views))
        models = tuple(model for model, _ in model_views)
        return Candidates(names, models, predictions.means, predictions.metadata)
    by_name: dict[str, Floats] = {}
    for view in sorted({view for _, view in model_views}):
        by_model = {
            model: mean
            for (model, its_view), mean in zip(model_views, predictions.means, strict=True)
            if its_view == view
        }
        learnt = {model: predictions.learnt[model] for model in by_model}
        whole = multiply_factor_models(by_model, learnt, label_space)
        by_name |= {f"{model}/{view}": probabilities for model, probabilities in whole.items()}
    names = tuple(sorted(by_name))
    stacked = np.stack([by_name.pop(name).astype(np.float32, copy=False) for name in names])
    return Candidates(names, tuple(name.rpartition("/")[0] for name in names), stacked, predictions.metadata)


def partial_models(learnt: Learnt) -> list[str]:
    """Names of the factor models, which learn some factors only, sorted."""
    return sorted(model for model, factors in learnt.items() if factors)


def product_name(learnt: Learnt) -> str:
    """The name of the factor product: `age*gender*mask`."""
    return PRODUCT_SIGN.join(partial_models(learnt))


def own_classes(
    probabilities: Floats, factors: Sequence[str] | None, label_space: LabelSpace
) -> tuple[LabelSpace, Floats]:
    """The classes that a factor model knows, and its probabilities of them.

    Args:
        probabilities: of the task's classes, shape (images, classes).
        factors: those that the model learns; None: all of them.
        label_space: the task's classes.

    Returns:
        The model's classes, and float64 (images, its classes): sums over the task's classes of the same levels. Where
        all factors are learnt, both as they were given.
    """
    if not factors:
        return label_space, probabilities
    own_space, code_of = label_space.restricted(factors)
    return own_space, np.asarray(probabilities, np.float64) @ np.eye(len(own_space.classes))[code_of]


def multiply_factor_models(
    by_model: Mapping[str, Floats], learnt: Learnt, label_space: LabelSpace
) -> dict[str, Floats]:
    """Replace the factor models by their product.

    Models of the same factors are averaged first. The product takes the sets of factors as independent given the image,
    as a factored head does.

    Args:
        by_model: probabilities of the task's classes of each model, shape (images, classes).
        learnt: the factors of each model; None where it learns all.
        label_space: the task's classes.

    Returns:
        Probabilities by model, sorted by name; the product is named by `product_name`.

    Raises:
        UserError: if the factor models do not cover every factor exactly once.
    """
    partial = partial_models(learnt)
    whole = {model: by_model[model] for model in by_model if model not in partial}
    if partial:
        sets: dict[frozenset[str], list[str]] = {}
        for model in partial:
            sets.setdefault(frozenset(learnt[model] or ()), []).append(model)
        covered = [name for factors in sets for name in factors]
        if sorted(covered) != sorted(label_space.factors):
            raise UserError(
                f"models {', '.join(partial)} learn {', '.join(sorted(covered))} and the classes are made of "
                f"{', '.join(label_space.factors)}; run your command again with one configuration"
            )
        product = np.ones((len(next(iter(by_model.values()))), len(label_space.classes)))
        for factors, models in sets.items():
            own_space, code_of = label_space.restricted(sorted(factors))
            mean = weighted_mean(
                np.stack([own_classes(by_model[model], sorted(factors), label_space)[1] for model in models])
            )
            assert mean.shape[1] == len(own_space.classes)
            product *= mean[:, code_of]
        whole[product_name(learnt)] = product / product.sum(axis=1, keepdims=True)
    return dict(sorted(whole.items()))

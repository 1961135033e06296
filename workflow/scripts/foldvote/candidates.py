"""Candidates of a vote: what each model says of every image in each of its views, looked up by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldvote.errors import Refusal
from foldvote.seeds import generator
from foldvote.vote import vote

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]
MOST_FITTED = 50_000  # images that votes are fitted on and compared by: a thousand numbers need no more


@dataclass(frozen=True)
class Candidates:
    """Probabilities of several candidates for the same images.

    Attributes:
        names: one a candidate, unique, such as `lite0/identity`.
        models: the model of each candidate; the candidates of one model are its views.
        probabilities: float32 or float64 (candidates, images, classes); rows sum to 1.

    Raises:
        ValueError: if the three do not fit each other.
    """

    names: tuple[str, ...]
    models: tuple[str, ...]
    probabilities: npt.NDArray[np.floating]

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
            Refusal: if one is missing.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise Refusal(f"vote: no predictions of {', '.join(missing)}; run `snakemake` again with one configuration")
        if tuple(names) == self.names:
            return self
        place = [self.names.index(name) for name in names]
        return Candidates(tuple(names), tuple(self.models[at] for at in place), self.probabilities[place])

    def ordered(self) -> "Candidates":
        """The same candidates sorted by name, so that nothing depends on the order in which they were given."""
        return self.named(sorted(self.names))

    def rows(self, chosen: Codes | slice) -> "Candidates":
        """The same candidates for some of the images."""
        return Candidates(self.names, self.models, self.probabilities[:, chosen])


def equal_shares(candidates: Candidates) -> dict[str, float]:
    """Weights of the candidates: the same for every model, and for every view within a model; their sum is 1."""
    models = sorted(set(candidates.models))
    return {
        name: 1 / (len(models) * candidates.models.count(model))
        for name, model in sorted(zip(candidates.names, candidates.models, strict=True))
    }


def weighted_mean(candidates: Candidates, weights: Mapping[str, float]) -> Floats:
    """The weighted mean of the named candidates, whatever their order; float64 (images, classes)."""
    used = {name: weight for name, weight in sorted(weights.items()) if weight > 0}
    return vote(candidates.named(list(used)).probabilities, used.values())


def model_mean(candidates: Candidates, model: str) -> Floats:
    """The mean of one model over its views: float64 (images, classes)."""
    return vote(candidates.probabilities[[at for at, of in enumerate(candidates.models) if of == model]])


def model_means(candidates: Candidates) -> tuple[list[str], Floats]:
    """The mean of each model over its views.

    Returns:
        The models in sorted order, and float64 (models, images, classes): twice the room of all candidates, so only
        for a part of many images.
    """
    models = sorted(set(candidates.models))
    return models, np.stack([model_mean(candidates, model) for model in models])


def opinions(candidates: Candidates) -> npt.NDArray[np.floating]:
    """`model_means` of all images in the candidates' own precision; without a copy where every model has one view."""
    models = sorted(set(candidates.models))
    if list(candidates.models) == models:
        return candidates.probabilities
    means = np.empty((len(models), candidates.images, candidates.classes), candidates.probabilities.dtype)
    for own, model in zip(means, models, strict=True):
        own[:] = model_mean(candidates, model)
    return means


def subsample(images: int, groups: Codes | None, seed: int, most: int = MOST_FITTED) -> npt.NDArray[np.int64]:
    """The images that a vote is fitted on: all of them, or a fixed draw of at most `most`.

    Whole groups are drawn where they are given, so that the draw does not depend on the order of the images. Without
    groups, or where one alone has more than `most` images, single images are drawn by their places.

    Args:
        images: number of images.
        groups: a code an image, shape (images,); None: there are no groups.
        seed: the run's seed.
        most: the limit.

    Returns:
        Places in rising order, int64.
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

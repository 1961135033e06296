"""Candidates of a vote: what each model says of every image in each of its views.

Members' files are read one at a time and averaged over the folds, so that memory holds the models' means and a few
members at most. Models that learn some factors only are multiplied to one more candidate of whole classes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import weighted_mean
from foldvote.inference.prediction_files import Predictions, read_predictions
from foldvote.io.ids import positions_in
from foldvote.runtime.seeding import generator

Floats = npt.NDArray[np.floating]
Learnt = Mapping[str, Sequence[str] | None]
PRODUCT_SIGN = "*"  # no model's name may hold it


def partial_models(learnt: Learnt) -> list[str]:
    """Names of the models that learn some factors only, sorted."""
    return sorted(model for model, factors in learnt.items() if factors)


def product_name(learnt: Learnt) -> str:
    """What the product of the models of some factors is called: `age*gender*mask`."""
    return PRODUCT_SIGN.join(partial_models(learnt))


def own_classes(probabilities: Floats, factors: Sequence[str] | None, scheme: LabelSpace) -> tuple[LabelSpace, Floats]:
    """The classes that a model of some factors knows, and its probabilities of them: float64 (images, own classes)."""
    if not factors:
        return scheme, probabilities
    own, code_of = scheme.restricted(factors)
    return own, np.asarray(probabilities, np.float64) @ np.eye(len(own.classes))[code_of]


def multiply_factor_models(by_model: Mapping[str, Floats], learnt: Learnt, scheme: LabelSpace) -> dict[str, Floats]:
    """The voices that models make up.

    Models of the same factors are averaged; the product over the sets of factors takes these as independent given the
    image, as a factored head does.

    Args:
        by_model: probabilities of the task's classes of each model, shape (images, classes).
        learnt: the factors of each model; None learns all of them.
        scheme: the task's classes.

    Returns:
        Probabilities by voice, sorted by name; the product is called as `product_name` says.

    Raises:
        UserError: if the models of some factors do not make up whole classes.
    """
    partial = partial_models(learnt)
    spoken = {model: by_model[model] for model in by_model if model not in partial}
    if partial:
        sets: dict[frozenset[str], list[str]] = {}
        for model in partial:
            sets.setdefault(frozenset(learnt[model] or ()), []).append(model)
        named = [name for factors in sets for name in factors]
        if sorted(named) != sorted(scheme.factors):
            raise UserError(
                f"models {', '.join(partial)} learn {', '.join(sorted(named))} and the classes are made of "
                f"{', '.join(scheme.factors)}; run `snakemake` again with one configuration"
            )
        product = np.ones((len(next(iter(by_model.values()))), len(scheme.classes)))
        for factors, models in sets.items():
            own, code_of = scheme.restricted(sorted(factors))
            mean = weighted_mean(
                np.stack([own_classes(by_model[model], sorted(factors), scheme)[1] for model in models])
            )
            assert mean.shape[1] == len(own.classes)
            product *= mean[:, code_of]
        spoken[product_name(learnt)] = product / product.sum(axis=1, keepdims=True)
    return dict(sorted(spoken.items()))


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
            UserError: if one is missing.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise UserError(
                f"vote: no predictions of {', '.join(missing)}; run `snakemake` again with one configuration"
            )
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


def mixture_of(candidates: Candidates, weights: Mapping[str, float]) -> Floats:
    """The weighted mean of the named candidates, whatever their order; float64 (images, classes)."""
    used = {name: weight for name, weight in sorted(weights.items()) if weight > 0}
    return weighted_mean(candidates.named(list(used)).probabilities, used.values())


def model_mean(candidates: Candidates, model: str) -> Floats:
    """The mean of one model over its views: float64 (images, classes)."""
    return weighted_mean(candidates.probabilities[[at for at, of in enumerate(candidates.models) if of == model]])


def model_means(candidates: Candidates) -> tuple[list[str], Floats]:
    """The mean of each model over its views.

    Returns:
        The models in sorted order, and float64 (models, images, classes): twice the room of all candidates, so only
        for a part of many images.
    """
    models = sorted(set(candidates.models))
    return models, np.stack([model_mean(candidates, model) for model in models])


def model_probabilities(candidates: Candidates) -> npt.NDArray[np.floating]:
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


_AHEAD = 2  # files that are read while another is worked on


@dataclass(frozen=True)
class ModelPredictions:
    """What the models say of some images.

    Attributes:
        ids: the images.
        voiced: (model, view) of each row of `means`, in the order of `model/view`: a model's views stand together.
        means: float32 (models' views, images, classes): the mean of each over the model's folds or repeats.
        learnt: the factors of each model; None learns all.
    """

    ids: pa.Array
    voiced: tuple[tuple[str, str], ...]
    means: npt.NDArray[np.float32]
    learnt: Learnt

    @property
    def models(self) -> list[str]:
        """Names of the models, sorted."""
        return sorted(self.learnt)

    def of(self, model: str) -> npt.NDArray[np.float32]:
        """A model's means, a view each: float32 (views, images, classes); no copy."""
        return self.means[_rows_of(model, self.voiced)]

    def mean_of(self, model: str) -> npt.NDArray[np.float64]:
        """A model's mean over its views: float64 (images, classes)."""
        return weighted_mean(self.of(model))


def average_over_folds(
    records: Mapping[Path, dict[str, Any]],
    ids: pa.Array | None,
    classes: Sequence[str],
    seen: Callable[[Predictions], list[str]],
) -> tuple[ModelPredictions, list[str]]:
    """Read predictions and average them a model and view.

    Args:
        records: sound records by path, as `prediction_files.sound_records` gives them.
        ids: the images wanted; None takes those of the first file.
        classes: class names in the order of their codes.
        seen: told of each member; the faults that it finds keep the member out.

    Returns:
        The means, and the faults as lines.
    """
    faults: list[str] = []
    learnt = {record["model"]: record.get("factors") for record in records.values()}
    views = {record["model"]: record["views"] for record in reversed(records.values())}
    voiced = tuple(sorted(((model, view) for model in views for view in views[model]), key="/".join))
    means: npt.NDArray[np.float32] = np.zeros((len(voiced), 0, len(classes)), np.float32)
    times: dict[str, npt.NDArray[np.float32]] = {}
    for member in _read_ahead(records, classes):
        if isinstance(member, UserError):
            faults += member.faults
            continue
        wrong = seen(member)
        faults += wrong
        if wrong or tuple(sorted(views[member.model])) != member.views:  # which its record has told
            continue
        ids = member.ids if ids is None else ids
        if not times:
            means = np.zeros((len(voiced), len(ids), len(classes)), np.float32)
        place = positions_in(member.ids, ids)
        for total, own in zip(means[_rows_of(member.model, voiced)], member.probabilities, strict=True):
            total[place] += own
        times.setdefault(member.model, np.zeros(len(ids), np.float32))[place] += 1
    for model, count in times.items():
        means[_rows_of(model, voiced)] /= np.maximum(count, 1)[:, None]
    pa.default_memory_pool().release_unused()  # else Arrow keeps what the largest tables took
    return ModelPredictions(pa.array([], pa.string()) if ids is None else ids, voiced, means, learnt), faults


def _read_ahead(records: Mapping[Path, dict[str, Any]], classes: Sequence[str]) -> Iterator[Predictions | UserError]:
    """Each file's predictions, or why they are refused; the next two are read while one is worked on."""

    def read(path: Path) -> Predictions | UserError:
        try:
            return read_predictions(path, records[path], classes)
        except UserError as refusal:
            return refusal

    with ThreadPoolExecutor(_AHEAD) as reader:
        coming: deque[Future[Predictions | UserError]] = deque()
        for path in records:
            coming.append(reader.submit(read, path))
            if len(coming) > _AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def candidates_of(gathered: ModelPredictions, scheme: LabelSpace) -> Candidates:
    """The candidates of a vote: every voice in every view, called `voice/view`, sorted by name.

    Where no model learns some factors only, these are the means as they were gathered, without a copy.
    """
    if not partial_models(gathered.learnt):
        names = tuple(map("/".join, gathered.voiced))
        return Candidates(names, tuple(model for model, _ in gathered.voiced), gathered.means)
    spoken: dict[str, npt.NDArray[np.floating]] = {}
    for view in sorted({view for _, view in gathered.voiced}):
        said = {
            model: mean
            for (model, of_view), mean in zip(gathered.voiced, gathered.means, strict=True)
            if of_view == view
        }
        own = multiply_factor_models(said, {model: gathered.learnt[model] for model in said}, scheme)
        spoken |= {f"{voice}/{view}": probabilities for voice, probabilities in own.items()}
    names = tuple(sorted(spoken))
    stacked = np.stack([spoken.pop(name).astype(np.float32, copy=False) for name in names])
    return Candidates(names, tuple(name.rpartition("/")[0] for name in names), stacked)


def _rows_of(model: str, voiced: Sequence[tuple[str, str]]) -> slice:
    models = [of for of, _ in voiced]
    return slice(models.index(model), models.index(model) + models.count(model))

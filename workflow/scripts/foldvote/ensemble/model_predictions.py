"""What each model predicts, averaged over the folds.

Members' files are read one at a time, so that memory holds the models' means and a few members at most.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.data.metadata import read_metadata
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import weighted_mean
from foldvote.inference.prediction_files import Predictions, read_predictions
from foldvote.io.ids import PositionsIn
from foldvote.io.paths import MemberKey

Learnt = Mapping[str, Sequence[str] | None]
_AHEAD = 1  # files that are read while another is worked on: each takes memory


@dataclass(frozen=True)
class ModelPredictions:
    """The models' probabilities for some images, averaged over folds (test images) or repeats (training images).

    Attributes:
        ids: the images.
        model_views: (model, view) of each row of `means`, sorted as `model/view`: the views of a model are neighbours.
        means: float32 (model views, images, classes).
        learnt: the factors of each model; None where it learns all.
        metadata: of the images, as `data.metadata.read_metadata` gives it; None: there is none.
    """

    ids: pa.Array
    model_views: tuple[tuple[str, str], ...]
    means: npt.NDArray[np.float32]
    learnt: Learnt
    metadata: pd.DataFrame | None = None

    def with_metadata(self, manifest: Path) -> "ModelPredictions":
        """The same with all metadata of the images, from the manifest of their split.

        Raises:
            UserError: if the manifest lacks an image.
        """
        return replace(self, metadata=read_metadata(manifest, self.ids.to_pylist()))

    @property
    def models(self) -> list[str]:
        """Names of the models, sorted."""
        return sorted(self.learnt)

    def of(self, model: str) -> npt.NDArray[np.float32]:
        """A model's means by view: float32 (views, images, classes); no copy."""
        return self.means[_rows_of(model, self.model_views)]

    def mean_of(self, model: str) -> npt.NDArray[np.float64]:
        """A model's mean over its views: float64 (images, classes)."""
        return weighted_mean(self.of(model))


def average_over_folds(
    records: Mapping[Path, dict[str, Any]],
    ids: pa.Array | None,
    classes: Sequence[str],
    check: Callable[[Predictions], list[str]],
) -> tuple[ModelPredictions, list[str]]:
    """Read predictions and average them for each model and view.

    Args:
        records: sound records by path, as `prediction_files.sound_records` gives them.
        ids: the images wanted; None takes those of the first file.
        classes: class names in the order of their codes.
        check: called with each member; the faults that it returns keep the member out.

    Returns:
        The means, and the faults as lines.
    """
    faults: list[str] = []
    learnt = {record["model"]: record.get("factors") for record in records.values()}
    views = {record["model"]: record["views"] for record in reversed(list(records.values()))}
    model_views = tuple(sorted(((model, view) for model in views for view in views[model]), key="/".join))
    means: npt.NDArray[np.float32] = np.zeros((len(model_views), 0, len(classes)), np.float32)
    counts: dict[str, npt.NDArray[np.float32]] = {}  # by model, the members that have each image
    places = PositionsIn(pa.array([], pa.string()) if ids is None else ids)
    # Fold by fold, because the members of a fold predict the same images.
    by_fold = dict(sorted(records.items(), key=lambda item: (item[1]["fold"], item[1]["model"])))
    for member in _read_ahead(by_fold, classes):
        if isinstance(member, UserError):
            faults += member.faults
            continue
        wrong = check(member)
        faults += wrong
        if wrong or tuple(sorted(views[member.model])) != member.views:  # a fault that `sound_records` has found
            continue
        if ids is None:
            ids, places = member.ids, PositionsIn(member.ids)
        if not counts:
            means = np.zeros((len(model_views), len(ids), len(classes)), np.float32)
        positions = slice(None) if member.ids.equals(ids) else places.of(member.ids)
        for total, probabilities in zip(means[_rows_of(member.model, model_views)], member.probabilities, strict=True):
            total[positions] += probabilities
        counts.setdefault(member.model, np.zeros(len(ids), np.float32))[positions] += 1
    for model, count in counts.items():
        means[_rows_of(model, model_views)] /= np.maximum(count, 1)[:, None]
    pa.default_memory_pool().release_unused()  # else Arrow keeps what the largest tables took
    return ModelPredictions(pa.array([], pa.string()) if ids is None else ids, model_views, means, learnt), faults


def _read_ahead(records: Mapping[Path, dict[str, Any]], classes: Sequence[str]) -> Iterator[Predictions | UserError]:
    """Each file's predictions, or the error that reading it raised; the next one is read while one is worked on."""

    def read(path: Path) -> Predictions | UserError:
        try:
            return read_predictions(path, records[path], classes)
        except UserError as error:
            return error

    with ThreadPoolExecutor(_AHEAD) as reader:
        coming: deque[Future[Predictions | UserError]] = deque()
        for path in records:
            coming.append(reader.submit(read, path))
            if len(coming) > _AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _rows_of(model: str, model_views: Sequence[tuple[str, str]]) -> slice:
    models = [name for name, _ in model_views]
    return slice(models.index(model), models.index(model) + models.count(model))


def one_per_fold(
    sampled: Mapping[MemberKey, npt.NDArray[np.float32]], predictions: ModelPredictions, ids: pa.Array
) -> list[ModelPredictions]:
    """The predictions of each fold's members alone, for a sample of the images.

    Args:
        sampled: by (model, fold) float32 (views, images, classes), views sorted.
        predictions: the means of the same models over the folds.
        ids: the images of the sample.

    Returns:
        One for each fold that every model has, in order.
    """
    folds = sorted(fold for model, fold in sampled if model == predictions.models[0])
    whole = [fold for fold in folds if all((model, fold) in sampled for model in predictions.models)]
    ordered = list(dict.fromkeys(model for model, _ in predictions.model_views))
    return [
        ModelPredictions(
            ids,
            predictions.model_views,
            np.concatenate([sampled[model, fold] for model in ordered]),
            predictions.learnt,
        )
        for fold in whole
    ]

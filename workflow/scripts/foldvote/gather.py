"""All members' predictions, read one file at a time: the mean of each model and view, and the candidates of a vote.

Memory holds the models' means and four members at most, however many members there are.
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

from foldvote.candidates import Candidates
from foldvote.errors import Refusal
from foldvote.labels import Scheme
from foldvote.predictions import Predictions, places, read_one
from foldvote.voices import Learnt, partial_models, voices
from foldvote.vote import vote

_AHEAD = 2  # files that are read while another is worked on


@dataclass(frozen=True)
class Gathered:
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
        return vote(self.of(model))


def gather(
    records: Mapping[Path, dict[str, Any]],
    ids: pa.Array | None,
    classes: Sequence[str],
    seen: Callable[[Predictions], list[str]],
) -> tuple[Gathered, list[str]]:
    """Read predictions and average them a model and view.

    Args:
        records: sound records by path, as `predictions.sound_records` gives them.
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
        if isinstance(member, Refusal):
            faults += member.faults
            continue
        wrong = seen(member)
        faults += wrong
        if wrong or tuple(sorted(views[member.model])) != member.views:  # which its record has told
            continue
        ids = member.ids if ids is None else ids
        if not times:
            means = np.zeros((len(voiced), len(ids), len(classes)), np.float32)
        place = places(member.ids, ids)
        for total, own in zip(means[_rows_of(member.model, voiced)], member.probabilities, strict=True):
            total[place] += own
        times.setdefault(member.model, np.zeros(len(ids), np.float32))[place] += 1
    for model, count in times.items():
        means[_rows_of(model, voiced)] /= np.maximum(count, 1)[:, None]
    pa.default_memory_pool().release_unused()  # else Arrow keeps what the largest tables took
    return Gathered(pa.array([], pa.string()) if ids is None else ids, voiced, means, learnt), faults


def _read_ahead(records: Mapping[Path, dict[str, Any]], classes: Sequence[str]) -> Iterator[Predictions | Refusal]:
    """Each file's predictions, or why they are refused; the next two are read while one is worked on."""

    def read(path: Path) -> Predictions | Refusal:
        try:
            return read_one(path, records[path], classes)
        except Refusal as refusal:
            return refusal

    with ThreadPoolExecutor(_AHEAD) as reader:
        coming: deque[Future[Predictions | Refusal]] = deque()
        for path in records:
            coming.append(reader.submit(read, path))
            if len(coming) > _AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def candidates_of(gathered: Gathered, scheme: Scheme) -> Candidates:
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
        own = voices(said, {model: gathered.learnt[model] for model in said}, scheme)
        spoken |= {f"{voice}/{view}": probabilities for voice, probabilities in own.items()}
    names = tuple(sorted(spoken))
    stacked = np.stack([spoken.pop(name).astype(np.float32, copy=False) for name in names])
    return Candidates(names, tuple(name.rpartition("/")[0] for name in names), stacked)


def _rows_of(model: str, voiced: Sequence[tuple[str, str]]) -> slice:
    models = [of for of, _ in voiced]
    return slice(models.index(model), models.index(model) + models.count(model))

"""All members' predictions, read one file at a time: the mean of each model and view, and the candidates of a vote.

Memory holds the models' means and one member, however many members there are.
"""

from collections.abc import Callable, Mapping, Sequence
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
from foldvote.voices import Learnt, voices
from foldvote.vote import vote


@dataclass(frozen=True)
class Gathered:
    """What the models say of some images.

    Attributes:
        ids: the images.
        views: names of the views of each model, sorted.
        by_model: float32 (views, images, classes) of each model: the mean over its folds or repeats.
        learnt: the factors of each model; None learns all.
    """

    ids: pa.Array
    views: dict[str, tuple[str, ...]]
    by_model: dict[str, npt.NDArray[np.float32]]
    learnt: Learnt

    def mean_of(self, model: str) -> npt.NDArray[np.float64]:
        """A model's mean over its views: float64 (images, classes)."""
        return vote(self.by_model[model])


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
    sums: dict[str, npt.NDArray[np.float32]] = {}
    times: dict[str, npt.NDArray[np.float32]] = {}
    views: dict[str, tuple[str, ...]] = {}
    for path, record in records.items():
        try:
            member = read_one(path, record, classes)
        except Refusal as refusal:
            faults += refusal.faults
            continue
        wrong = seen(member)
        faults += wrong
        if wrong or views.get(member.model, member.views) != member.views:  # which its record has told
            continue
        ids = member.ids if ids is None else ids
        place = places(member.ids, ids)
        if member.model not in sums:
            views[member.model] = member.views
            sums[member.model] = np.zeros((len(member.views), len(ids), len(classes)), np.float32)
            times[member.model] = np.zeros(len(ids), np.float32)
        for total, own in zip(sums[member.model], member.probabilities, strict=True):
            total[place] += own
        times[member.model][place] += 1
    for model, total in sums.items():
        total /= np.maximum(times[model], 1)[:, None]
    learnt = {record["model"]: record.get("factors") for record in records.values()}
    return Gathered(pa.array([], pa.string()) if ids is None else ids, views, sums, learnt), faults


def candidates_of(gathered: Gathered, scheme: Scheme) -> Candidates:
    """The candidates of a vote: every voice in every view, called `voice/view`, sorted by name."""
    spoken: dict[str, npt.NDArray[np.floating]] = {}
    for view in sorted({view for own in gathered.views.values() for view in own}):
        said = {
            model: gathered.by_model[model][own.index(view)] for model, own in gathered.views.items() if view in own
        }
        own = voices(said, {model: gathered.learnt[model] for model in said}, scheme)
        spoken |= {f"{voice}/{view}": probabilities for voice, probabilities in own.items()}
    names = sorted(spoken)
    stacked = np.stack([spoken.pop(name).astype(np.float32, copy=False) for name in names])
    return Candidates(tuple(names), tuple(name.rpartition("/")[0] for name in names), stacked)

"""What single members predict of labelled images, and what a prediction of theirs costs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import PRODUCT_SIGN, Candidates, candidates_of, subsample
from foldvote.ensemble.inputs import EnsembleInputs, evaluation_rows, validated_images
from foldvote.ensemble.model_predictions import Learnt, ModelPredictions
from foldvote.ensemble.selection import EvaluationRows
from foldvote.ensemble.timings import read_timings
from foldvote.errors import UserError, raise_all
from foldvote.inference.prediction_files import labelled_faults, read_predictions, sound_records
from foldvote.io.files import read_json
from foldvote.io.ids import positions_in
from foldvote.io.paths import MemberKey, member_of
from foldvote.splits.folds import read_folds
from foldvote.splits.reserve import reserve_rows

_MOST_IMAGES = 20_000  # behind the scores of subsets
_MOST_VALUES = 1 << 28  # probabilities held at once: 1 GiB

Part = Literal["reserve", "oof"]


@dataclass(frozen=True)
class SingleMembers:
    """What single members predict of images with known labels that they have not learnt from.

    Attributes:
        part: `reserve`, whose images all members predict; or `oof`, where an image has one member per repeat and model.
        rows: the images' labels, folds and groups.
        ids: the images.
        model_views: (model, view) of each row, sorted as `model/view`.
        probabilities: float32 (members, model views, images, classes): by fold on the reserve, else by repeat.
        learnt: the factors of each model; None where it learns all.
        views: names of the views in the order of the configuration, `identity` first.
        records: provenance of the predictions by (model, fold).
        label_space: the classes.
    """

    part: Part
    rows: EvaluationRows
    ids: pa.Array
    model_views: tuple[tuple[str, str], ...]
    probabilities: npt.NDArray[np.float32]
    learnt: Learnt
    views: tuple[str, ...]
    records: Mapping[MemberKey, dict[str, Any]]
    label_space: LabelSpace

    @property
    def members(self) -> int:
        """How many members of a model predict an image."""
        return len(self.probabilities)

    def mean_of(self, members: Sequence[int]) -> Candidates:
        """The candidates as means over some of the members of each model."""
        means = self.probabilities[list(members)].mean(axis=0, dtype=np.float64)
        # float64, so that the mean of equal members is no other one
        return candidates_of(ModelPredictions(self.ids, self.model_views, means, self.learnt), self.label_space)


@dataclass(frozen=True)
class Prices:
    """What one member of each model costs, as a mean over its folds.

    Attributes:
        milliseconds: for one image in one view, by model.
        megabytes: of its weights, by model.
    """

    milliseconds: Mapping[str, float]
    megabytes: Mapping[str, float]

    def of(self, models: Sequence[str], views: int, members: int) -> tuple[float, float]:
        """Milliseconds per image and megabytes of some models; a product of factor models costs what these do."""
        single = [part for model in models for part in model.split(PRODUCT_SIGN)]
        milliseconds = sum(self.milliseconds[model] for model in single) * views * members
        return milliseconds, sum(self.megabytes[model] for model in single) * members


def read_single_members(
    inputs: EnsembleInputs, expected: Mapping[str, int], label_space: LabelSpace, seed: int
) -> SingleMembers:
    """Read the predictions of the reserve or, where there is none, those out of fold; of many images a fixed draw.

    Args:
        inputs: the files.
        expected: number of folds of each model.
        label_space: the classes.
        seed: the run's seed.

    Raises:
        UserError: if predictions are missing, surplus, or do not fit each other or the split; all at once.
    """
    folds, split_sha256 = read_folds(inputs.folds, inputs.certificate)
    part: Part = "reserve" if inputs.reserve else "oof"
    paths = inputs.reserve if inputs.reserve else inputs.oof
    records, faults = sound_records(paths, part, expected, label_space.classes, split_sha256)
    raise_all(faults)
    kept_out = reserve_rows(folds)
    table = kept_out.reset_index(drop=True) if inputs.reserve else validated_images(folds)
    repeat_of = dict(zip(folds["fold"], folds["repeat"], strict=True))
    member_at = {
        record["fold"]: record["fold"] if inputs.reserve else repeat_of[record["fold"]] for record in records.values()
    }
    members = max(member_at.values()) + 1
    model_views = tuple(
        sorted({(one["model"], view) for one in records.values() for view in one["views"]}, key="/".join)
    )
    values = members * len(model_views) * len(label_space.classes)
    groups = evaluation_rows(table).groups
    drawn = subsample(len(table), groups, seed, max(1, min(_MOST_IMAGES, _MOST_VALUES // values)))
    rows = evaluation_rows(table).rows(drawn)
    ids = pa.array(table["image_id"].to_numpy()[drawn], pa.string())
    probabilities = np.zeros((members, len(model_views), len(ids), len(label_space.classes)), np.float32)
    for path, record in records.items():
        try:
            member = read_predictions(path, record, label_space.classes)
        except UserError as error:
            faults += error.faults
            continue
        own = kept_out if inputs.reserve else folds[folds["fold"] == member.fold]
        wrong = labelled_faults(member, own, "the reserve" if inputs.reserve else f"fold {member.fold}")
        faults += wrong
        if not wrong:
            positions = positions_in(ids, member.ids)
            there = np.flatnonzero(positions >= 0)
            for view, predicted in zip(member.views, member.probabilities, strict=True):
                row = model_views.index((member.model, view))
                probabilities[member_at[member.fold], row, there] = predicted[positions[there]]
    raise_all(faults)
    learnt = {record["model"]: record.get("factors") for record in records.values()}
    by_key = {(record["model"], record["fold"]): record for record in records.values()}
    views = _ordered_views(list(records.values()))
    return SingleMembers(part, rows, ids, model_views, probabilities, learnt, views, by_key, label_space)


def read_prices(timings: Sequence[Path], weights: Sequence[Path], views: int) -> Prices:
    """What a prediction costs: the measured seconds of all predictions, shared equally by images and views.

    Args:
        timings: `<results>/timings/<stage>/model=<m>/fold=<k>.json` of predictions, not of trainings.
        weights: `<results>/train/model=<m>/fold=<k>/model.safetensors`; only their sizes are read.
        views: number of views of each image.

    Raises:
        UserError: if a timing is missing or its numbers make no sense.
    """
    read_timings(timings)
    seconds: dict[str, float] = defaultdict(float)
    images: dict[str, float] = defaultdict(float)
    sizes: dict[str, list[float]] = defaultdict(list)
    faults = []
    for path in sorted(timings):
        content, (model, _) = read_json(path), member_of(path)
        number = content.get("images")
        if isinstance(number, bool) or not isinstance(number, int | float) or number < 1:
            faults.append(f"{path}: images is {number!r}, not a number from 1 up; delete the file and run again")
            continue
        seconds[model] += content["seconds"]
        images[model] += number
    raise_all(faults)
    for path in weights:
        sizes[member_of(path)[0]].append(Path(path).stat().st_size / 1e6)
    return Prices(
        {model: 1000 * seconds[model] / (images[model] * views) for model in sorted(seconds)},
        {model: sum(own) / len(own) for model, own in sorted(sizes.items())},
    )


def _ordered_views(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The views that all members have, `identity` first, then as in the configuration."""
    views = [view for view in records[0]["views"] if all(view in record["views"] for record in records)]
    return tuple(sorted(views, key=lambda view: view != "identity"))

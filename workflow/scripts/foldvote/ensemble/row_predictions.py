"""The rows of a finished run's leaderboard (votes and models) as predictions of images that they were not fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from foldvote.config.ensemble import OF_METADATA, Submission, split_end
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import MOST_FITTED, Candidates, candidates_of, model_mean, subsample
from foldvote.ensemble.ensemble_method import Metric
from foldvote.ensemble.group_parts import outer_folds
from foldvote.ensemble.inputs import EnsembleData, EnsembleInputs, read_ensemble_data
from foldvote.ensemble.methods import simplest_first
from foldvote.ensemble.reserve import predict_reserve
from foldvote.ensemble.selection import EvaluationRows, NestedPredictions, is_safe, nested_cv
from foldvote.errors import UserError
from foldvote.io.files import read_json

Base = Literal["reserve", "oof"]


@dataclass(frozen=True)
class RowPredictions:
    """The rows of one run.

    Attributes:
        name: the results folder.
        label_space: the classes.
        base: `reserve`: predictions by the mean of all members; `oof`: out-of-fold predictions of single members.
        table: one row per image: image_id, profile, label, group (of the split).
        rows: the predictions of these images, by `vote <kind>` and `model <name>`.
        like_test: whether as many members are behind each prediction as behind that of a test image.
        submitted: the vote that is used.
        metric: the main metric.
        left_out: rows that are not predicted, and why.
    """

    name: str
    label_space: LabelSpace
    base: Base
    table: pd.DataFrame
    rows: dict[str, NestedPredictions]
    like_test: bool
    submitted: str
    metric: str
    left_out: dict[str, str]


def read_rows(folder: Path, fit_by: Metric = "log_loss", seed: int = 0, use_reserve: bool = True) -> RowPredictions:
    """Predict the images of the reserve by each row, or where there is none the training images, nested.

    Over 50,000 images, whole groups are drawn, as in the comparison of the votes. Where images are predicted by single
    members and submissions are means of several, votes are left out whose gain on single members may not carry over
    (selection.is_safe), unless they are submitted.

    Args:
        folder: the results folder.
        fit_by: the score that greedy and best_model improve.
        seed: the run's seed.
        use_reserve: False: the training images also where there is a reserve.

    Raises:
        UserError: if the folder holds no finished run, or its files do not belong together.
    """
    votes, metrics = folder / "ensemble/votes.json", folder / "ensemble/metrics.json"
    for path in (votes, metrics):
        if not path.is_file():
            raise UserError(f"{folder}: holds no finished run (no {path}); run it to its end, or name another folder")
    fitted, found = read_json(votes), read_json(metrics)
    data = _read(folder, found, any(split_end(kind)[0] in OF_METADATA for kind in fitted))
    base: Base = "oof"
    if use_reserve and data.reserve is not None:
        base, candidates = "reserve", candidates_of(data.reserve.predictions, data.label_space)
        table, rows = data.reserve.table, data.reserve.rows
    else:
        candidates, table, rows = candidates_of(data.oof, data.label_space), data.table, data.rows
        drawn = subsample(candidates.images, rows.groups, seed, MOST_FITTED)
        if len(drawn) < candidates.images:
            candidates, table, rows = candidates.rows(drawn), table.iloc[drawn], rows.rows(drawn)
    behind, members = max(len(data.by_repeat), 1), max(map(len, found["oof"]["members"].values()), default=1)
    like_test = base == "reserve" or behind == members
    left_out = _left_out(fitted, candidates.names, None if like_test else found["chosen"])
    known = {kind: fitted[kind] for kind in simplest_first(fitted) if kind not in left_out}
    if base == "reserve":
        _, predicted = predict_reserve(candidates, rows, known, data.label_space, seed)
    else:
        predicted = _nested(known, candidates, rows, data.label_space, fit_by, seed)
    named = {f"vote {kind}": own for kind, own in predicted.items()}
    for model in sorted(set(candidates.models)):
        probabilities = np.asarray(model_mean(candidates, model), np.float64)
        named[f"model {model}"] = NestedPredictions(probabilities, probabilities.argmax(axis=1))
    return RowPredictions(
        str(folder),
        data.label_space,
        base,
        table[["image_id", "profile", "label", "group"]].reset_index(drop=True),
        named,
        like_test,
        found["chosen"],
        found.get("metric", "macro_f1"),
        {f"vote {kind}": why for kind, why in left_out.items()},
    )


def _left_out(fitted: Mapping[str, Any], at_hand: Sequence[str], submitted: str | None) -> dict[str, str]:
    """The methods that cannot be scored, and why; None for `submitted`: predictions are like those of test images."""
    found = {}
    for kind in simplest_first(fitted):
        if set(fitted[kind]["candidates"]) - {*at_hand}:
            found[kind] = "votes with predictions from elsewhere"
        elif submitted not in (None, kind) and not is_safe(kind):
            found[kind] = "fits what single members may not share with their mean"
    return found


def _read(folder: Path, metrics: Mapping[str, Any], metadata: bool) -> EnsembleData:
    """The predictions of the members that the scores are of, with the metadata of their images if a vote needs it."""
    members = [(model, fold) for model, by_fold in metrics["oof"]["members"].items() for fold in by_fold]
    expected = {model: len(by_fold) for model, by_fold in metrics["oof"]["members"].items()}
    stages = ["oof", *(["reserve"] if "reserve" in metrics else [])]
    paths = {
        stage: [folder / stage / f"model={model}" / f"fold={fold}" / "predictions.parquet" for model, fold in members]
        for stage in stages
    }
    inputs = EnsembleInputs(
        oof=paths["oof"],
        test=(),
        folds=folder / "folds/folds.parquet",
        certificate=folder / "folds/certificate.json",
        classes=folder / "data/classes.json",
        reserve=paths.get("reserve", ()),
        metadata=[folder / "data/manifest/split=train/manifest.parquet"] if metadata else (),
    )
    return read_ensemble_data(inputs, expected, Submission(), draws=1, seed=0)


def _nested(
    kinds: Mapping[str, Any],
    candidates: Candidates,
    rows: EvaluationRows,
    label_space: LabelSpace,
    fit_by: Metric,
    seed: int,
) -> dict[str, NestedPredictions]:
    folds = outer_folds(rows.folds, rows.groups, seed)
    return {
        kind: nested_cv(kind, candidates, rows.labels, folds, label_space, seed, groups=rows.groups, metric=fit_by)
        for kind in kinds
    }

"""All that a vote is made from, read and checked against each other before anything is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.config.data import NumericFactor
from foldvote.config.ensemble import Submission
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.candidates import ModelPredictions, average_over_folds
from foldvote.ensemble.leaderboard import read_timings, score_with_intervals
from foldvote.ensemble.selection import EvaluationRows
from foldvote.errors import UserError, raise_all
from foldvote.inference.prediction_files import (
    Predictions,
    fold_count_faults,
    oof_faults,
    sound_records,
    test_set_faults,
)
from foldvote.io.ids import positions_in
from foldvote.io.paths import MemberKey, member_of
from foldvote.splits.folds import read_folds
from foldvote.submission.answers import read_answers


@dataclass(frozen=True)
class EnsembleInputs:
    """What the ensemble is made from.

    Attributes:
        oof: `<results>/oof/model=<m>/fold=<k>/predictions.parquet` of every member.
        test: the same of the test images; empty when there are none.
        folds: the split, folds.FOLDS.
        certificate: its certificate.
        classes: `data/classes.json`.
        timings: `<results>/timings/<stage>/model=<m>/fold=<k>.json`.
        weights: `<results>/train/model=<m>/fold=<k>/model.safetensors`; only their sizes are read.
        manifest: of the training images, for slices; None leaves out what it alone knows.
        answers: CSV with the true answers of the test images; only scored, never learnt from.
        numeric: the factor with a number behind it, where there is one, for slices.
    """

    oof: Sequence[Path]
    test: Sequence[Path]
    folds: Path
    certificate: Path
    classes: Path
    timings: Sequence[Path] = ()
    weights: Sequence[Path] = ()
    manifest: Path | None = None
    answers: Path | None = None
    numeric: NumericFactor | None = None


@dataclass(frozen=True)
class EnsembleData:
    """What was read, and is sound.

    Attributes:
        scheme: the classes.
        digest: of the split.
        rows: a row a validated train image: image_id, profile, label, fold (of its first repeat), stratum.
        images: the same as arrays.
        oof: the models' out-of-fold means of these images.
        test: the models' means of the test images; None without a test set.
        truth: codes of the test images where the answers are known.
        members: scores of each member on the persons of its own fold, by model and fold.
        weights_sha256: of each member's weights, by model and fold.
        costs: seconds of each stage and megabytes of weights, by (model, fold).
    """

    scheme: LabelSpace
    digest: str
    rows: pd.DataFrame
    images: EvaluationRows
    oof: ModelPredictions
    test: ModelPredictions | None
    truth: npt.NDArray[np.int64] | None
    members: dict[str, dict[str, Any]]
    weights_sha256: dict[str, dict[str, str]]
    costs: dict[MemberKey, dict[str, float]] = field(default_factory=dict)


def read_ensemble_data(
    inputs: EnsembleInputs, expected: Mapping[str, int], submission: Submission, draws: int, seed: int
) -> EnsembleData:
    """Read everything and check it.

    Args:
        inputs: what is read.
        expected: number of folds of each model.
        submission: for the columns of the answers.
        draws: of the intervals of members.
        seed: the run's seed.

    Raises:
        UserError: if predictions are missing, surplus, or do not fit each other, the split or the answers; all at once.
    """
    scheme = read_label_space(inputs.classes)
    folds, digest = read_folds(inputs.folds, inputs.certificate)
    records, faults = sound_records(inputs.oof, "oof", expected, scheme.classes, digest)
    faults += fold_count_faults(folds, expected)
    rows, by_fold = _validated(folds), dict(list(folds.groupby("fold")))
    images = _images_of(rows)
    members: dict[str, dict[str, Any]] = {}

    def seen(member: Predictions) -> list[str]:
        own = by_fold.get(member.fold, folds.iloc[:0])
        wrong = oof_faults(member, own)
        if not wrong:
            order = positions_in(pa.array(own["image_id"], pa.string()), member.ids)
            factors, said = member.record.get("factors"), member.mean[order]
            members.setdefault(member.model, {})[str(member.fold)] = score_with_intervals(
                _images_of(own), said, scheme, factors, draws, seed
            )
        return wrong

    oof, more = average_over_folds(records, pa.array(rows["image_id"], pa.string()), scheme.classes, seen)
    faults += more
    by_key = {(record["model"], record["fold"]): record for record in records.values()}
    test, more = _read_test(inputs, expected if inputs.test else {}, scheme, digest, by_key)
    faults += more
    truth, costs = None, {}
    try:
        costs = read_timings(inputs.timings)
        if inputs.answers is not None and test is not None and not faults:
            form = submission.model_dump(exclude={"sample"})
            ids = test.ids.to_pylist()
            truth = read_answers(inputs.answers, ids, "the test set", scheme.classes, **form)
    except UserError as refusal:
        faults += refusal.faults
    raise_all(faults)
    for path in inputs.weights:
        costs.setdefault(member_of(path), {})["megabytes"] = Path(path).stat().st_size / 1e6
    digests: dict[str, dict[str, str]] = {}
    for (model, fold), record in by_key.items():
        digests.setdefault(model, {})[str(fold)] = record["weights_sha256"]
    return EnsembleData(scheme, digest, rows, images, oof, test, truth, members, digests, costs)


def _read_test(
    inputs: EnsembleInputs,
    expected: Mapping[str, int],
    scheme: LabelSpace,
    digest: str,
    oof_records: Mapping[MemberKey, dict[str, Any]],
) -> tuple[ModelPredictions | None, list[str]]:
    if not inputs.test:
        return None, []
    records, faults = sound_records(inputs.test, "test", expected, scheme.classes, digest)
    first: list[Predictions] = []

    def seen(member: Predictions) -> list[str]:
        if not first:
            first.append(member)
        return test_set_faults(member, first[0], oof_records)

    test, more = average_over_folds(records, None, scheme.classes, seen)
    return test, faults + more


def _validated(folds: pd.DataFrame) -> pd.DataFrame:
    """A row an image that some fold validates, with the fold of its first repeat."""
    rows = folds[folds["fold"] >= 0].sort_values("repeat", kind="stable").drop_duplicates("image_id")
    return rows[["image_id", "profile", "label", "fold", "stratum"]].reset_index(drop=True)


def _images_of(rows: pd.DataFrame) -> EvaluationRows:
    persons, _ = pd.factorize(rows["profile"])
    return EvaluationRows(rows["label"].to_numpy(np.int64), rows["fold"].to_numpy(np.int64), persons)

"""The ensemble's input files, read and checked against each other before anything is computed."""

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
    """The files that the ensemble is made from.

    Attributes:
        oof: `<results>/oof/model=<m>/fold=<k>/predictions.parquet` of every member.
        test: the same of the test images; empty when there are none.
        folds: the split, folds.FOLDS.
        certificate: its certificate.
        classes: `data/classes.json`.
        timings: `<results>/timings/<stage>/model=<m>/fold=<k>.json`.
        weights: `<results>/train/model=<m>/fold=<k>/model.safetensors`; only their sizes are read.
        manifest: of the training images, for slices; None leaves out the slices that need it.
        answers: CSV with the true answers of the test images; only scored, never learnt from; None: not known.
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
    """The content of the input files, checked.

    Attributes:
        label_space: the classes.
        split_sha256: digest of the split.
        table: one row per validated train image: image_id, profile, label, fold (of its first repeat), stratum.
        rows: the same as arrays.
        oof: the models' out-of-fold means of these images.
        test: the models' means of the test images; None without a test set.
        truth: codes of the test images, int64 (images,), where the answers are known.
        member_scores: of each member on the images of its own fold, by model and fold.
        weights_sha256: of each member's weights, by model and fold.
        costs: seconds of each stage and megabytes of weights, by (model, fold).
    """

    label_space: LabelSpace
    split_sha256: str
    table: pd.DataFrame
    rows: EvaluationRows
    oof: ModelPredictions
    test: ModelPredictions | None
    truth: npt.NDArray[np.int64] | None
    member_scores: dict[str, dict[str, Any]]
    weights_sha256: dict[str, dict[str, str]]
    costs: dict[MemberKey, dict[str, float]] = field(default_factory=dict)


def read_ensemble_data(
    inputs: EnsembleInputs, expected: Mapping[str, int], submission: Submission, draws: int, seed: int
) -> EnsembleData:
    """Read everything and check it.

    Args:
        inputs: the files.
        expected: number of folds of each model.
        submission: for the columns of the answers.
        draws: number of bootstrap draws behind the members' intervals.
        seed: the run's seed.

    Raises:
        UserError: if predictions are missing, surplus, or do not fit each other, the split or the answers; all at once.
    """
    label_space = read_label_space(inputs.classes)
    folds, split_sha256 = read_folds(inputs.folds, inputs.certificate)
    records, faults = sound_records(inputs.oof, "oof", expected, label_space.classes, split_sha256)
    faults += fold_count_faults(folds, expected)
    table, by_fold = _validated_images(folds), dict(list(folds.groupby("fold")))
    member_scores: dict[str, dict[str, Any]] = {}

    def check_and_score(member: Predictions) -> list[str]:
        fold_rows = by_fold.get(member.fold, folds.iloc[:0])
        wrong = oof_faults(member, fold_rows)
        if not wrong:
            order = positions_in(pa.array(fold_rows["image_id"], pa.string()), member.ids)
            factors, probabilities = member.record.get("factors"), member.mean[order]
            member_scores.setdefault(member.model, {})[str(member.fold)] = score_with_intervals(
                _evaluation_rows(fold_rows), probabilities, label_space, factors, draws, seed
            )
        return wrong

    ids = pa.array(table["image_id"], pa.string())
    oof, more_faults = average_over_folds(records, ids, label_space.classes, check_and_score)
    faults += more_faults
    by_key = {(record["model"], record["fold"]): record for record in records.values()}
    test, truth, costs = None, None, {}
    if inputs.test:
        test, more_faults = read_test_predictions(inputs.test, expected, label_space, split_sha256, by_key)
        faults += more_faults
    try:
        costs = read_timings(inputs.timings)
        if inputs.answers is not None and test is not None and not faults:
            form = submission.model_dump(exclude={"sample"})
            test_ids = test.ids.to_pylist()
            truth = read_answers(inputs.answers, test_ids, "the test set", label_space.classes, **form)
    except UserError as error:
        faults += error.faults
    raise_all(faults)
    for path in inputs.weights:
        costs.setdefault(member_of(path), {})["megabytes"] = Path(path).stat().st_size / 1e6
    weights_sha256: dict[str, dict[str, str]] = {}
    for (model, fold), record in by_key.items():
        weights_sha256.setdefault(model, {})[str(fold)] = record["weights_sha256"]
    rows = _evaluation_rows(table)
    return EnsembleData(label_space, split_sha256, table, rows, oof, test, truth, member_scores, weights_sha256, costs)


def read_test_predictions(
    paths: Sequence[Path],
    expected: Mapping[str, int],
    label_space: LabelSpace,
    split_sha256: str,
    oof_records: Mapping[MemberKey, dict[str, Any]],
) -> tuple[ModelPredictions, list[str]]:
    """Read the test predictions of all members and average them over the folds.

    Args:
        paths: predictions files.
        expected: number of folds of each model.
        label_space: the classes.
        split_sha256: digest of the split.
        oof_records: provenance of the members' out-of-fold predictions, with whose weights these must agree.

    Returns:
        The means of the images of the first member, in its order; and the faults as lines.
    """
    records, faults = sound_records(paths, "test", expected, label_space.classes, split_sha256)
    first: list[Predictions] = []

    def check(member: Predictions) -> list[str]:
        if not first:
            first.append(member)
        return test_set_faults(member, first[0], oof_records)

    test, more_faults = average_over_folds(records, None, label_space.classes, check)
    return test, faults + more_faults


def _validated_images(folds: pd.DataFrame) -> pd.DataFrame:
    """One row per image that some fold validates, with the fold of its first repeat."""
    rows = folds[folds["fold"] >= 0].sort_values("repeat", kind="stable").drop_duplicates("image_id")
    return rows[["image_id", "profile", "label", "fold", "stratum"]].reset_index(drop=True)


def _evaluation_rows(table: pd.DataFrame) -> EvaluationRows:
    groups, _ = pd.factorize(table["profile"])
    return EvaluationRows(table["label"].to_numpy(np.int64), table["fold"].to_numpy(np.int64), groups)

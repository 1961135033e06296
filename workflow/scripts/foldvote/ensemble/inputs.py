"""The ensemble's input files, read and checked against each other before anything is computed."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.config.ensemble import Submission
from foldvote.config.layout_facts import NumericFactor
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.candidates import subsample
from foldvote.ensemble.guests import Guest, GuestFiles, Wanted, read_guests, with_guests
from foldvote.ensemble.model_predictions import ModelPredictions, average_over_folds, one_per_fold
from foldvote.ensemble.row_scores import score_with_intervals
from foldvote.ensemble.selection import EvaluationRows
from foldvote.ensemble.timings import read_timings
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.metric_registry import Metric
from foldvote.inference.prediction_files import (
    Predictions,
    fold_count_faults,
    labelled_faults,
    sound_records,
    test_set_faults,
    weights_faults,
)
from foldvote.io.ids import positions_in
from foldvote.io.paths import MemberKey, member_of
from foldvote.splits.folds import read_folds
from foldvote.splits.reserve import reserve_rows
from foldvote.submission.answers import read_answers

NOT_WRITTEN = ["group", "stratum"]  # columns of the tables here that tables of votes have not
MOST_SAMPLED = 10_000  # test images on which members are compared with their mean
_TABLE = ["image_id", "profile", "label", "fold", *NOT_WRITTEN]


@dataclass(frozen=True)
class EnsembleInputs:
    """The files that the ensemble is made from.

    Attributes:
        oof: `<results>/oof/model=<m>/fold=<k>/predictions.parquet` of every member.
        reserve: the same of the reserve; empty when there is none.
        test: the same of the test images; empty when there are none.
        folds: the split, folds.FOLDS.
        certificate: its certificate.
        classes: `data/classes.json`.
        timings: `<results>/timings/<stage>/model=<m>/fold=<k>.json`.
        weights: `<results>/train/model=<m>/fold=<k>/model.safetensors`; only their sizes are read.
        manifest: of the training images, for slices; None leaves out the slices that need it.
        answers: CSV with the true answers of the test images; only scored, never learnt from; None: not known.
        numeric: the factor with a number behind it, where there is one, for slices.
        guests: the tables of predictions from elsewhere, by name.
        metadata: the manifest of the training images, and that of the test images if there are any, where the data
            names metadata.
        without_metadata: predictions as `oof`, of the models that see metadata, made as if it were missing.
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
    reserve: Sequence[Path] = ()
    numeric: NumericFactor | None = None
    guests: Mapping[str, GuestFiles] = field(default_factory=dict)
    metadata: Sequence[Path] = ()
    without_metadata: Sequence[Path] = ()


@dataclass(frozen=True)
class Reserve:
    """The reserve: images of the training set that no member has learnt from.

    Attributes:
        table: one row per image: image_id, profile, label, fold, group, stratum.
        rows: the same as arrays.
        predictions: the models' means over all folds, as for test images.
    """

    table: pd.DataFrame
    rows: EvaluationRows
    predictions: ModelPredictions


@dataclass(frozen=True)
class EnsembleData:
    """The content of the input files, checked.

    Attributes:
        label_space: the classes.
        split_sha256: digest of the split.
        table: one row per validated train image: image_id, profile, label, fold (of its first repeat), group,
            stratum.
        rows: the same as arrays.
        by_repeat: the models' out-of-fold predictions of these images by each repeat; empty with a single one.
        oof: their mean over the repeats.
        test: the models' means of the test images; None without a test set.
        single: for a sample of the test images, what the members of each fold predict alone.
        truth: codes of the test images, int64 (images,), where the answers are known.
        reserve: the reserve; None where there is none.
        member_scores: of each member on the images of its own fold, by model and fold.
        weights_sha256: of each member's weights, by model and fold.
        costs: seconds of each stage and megabytes of weights, by (model, fold).
        guests: predictions from elsewhere, which are among those of the models above.
        hidden: the out-of-fold predictions of models that see metadata, made as if it were missing; None without such
            models.
    """

    label_space: LabelSpace
    split_sha256: str
    table: pd.DataFrame
    rows: EvaluationRows
    by_repeat: Sequence[ModelPredictions]
    oof: ModelPredictions
    test: ModelPredictions | None
    single: Sequence[ModelPredictions]
    truth: npt.NDArray[np.int64] | None
    reserve: Reserve | None
    member_scores: dict[str, dict[str, Any]]
    weights_sha256: dict[str, dict[str, str]]
    costs: dict[MemberKey, dict[str, float]] = field(default_factory=dict)
    guests: Mapping[str, Guest] = field(default_factory=dict)
    hidden: ModelPredictions | None = None


def read_ensemble_data(
    inputs: EnsembleInputs,
    expected: Mapping[str, int],
    submission: Submission,
    draws: int,
    seed: int,
    metrics: Sequence[Metric] = (),
) -> EnsembleData:
    """Read everything and check it.

    Args:
        inputs: the files.
        expected: number of folds of each model.
        submission: for the columns of the answers.
        draws: number of bootstrap draws behind the members' intervals.
        seed: the run's seed.
        metrics: what members are scored by beside bootstrap.METRICS.

    Raises:
        UserError: if predictions are missing, surplus, or do not fit each other, the split or the answers; all at once.
    """
    label_space = read_label_space(inputs.classes)
    folds, split_sha256 = read_folds(inputs.folds, inputs.certificate)
    records, faults = sound_records(inputs.oof, "oof", expected, label_space.classes, split_sha256)
    faults += fold_count_faults(folds, expected)
    table, by_fold = validated_images(folds), dict(list(folds.groupby("fold")))
    member_scores: dict[str, dict[str, Any]] = {}

    def check_and_score(member: Predictions) -> list[str]:
        fold_rows = by_fold.get(member.fold, folds.iloc[:0])
        wrong = labelled_faults(member, fold_rows, f"fold {member.fold}")
        if not wrong:
            order = positions_in(pa.array(fold_rows["image_id"], pa.string()), member.ids)
            factors, probabilities = member.record.get("factors"), member.mean[order]
            member_scores.setdefault(member.model, {})[str(member.fold)] = score_with_intervals(
                evaluation_rows(fold_rows), probabilities, label_space, factors, draws, seed, metrics
            )
        return wrong

    ids = pa.array(table["image_id"], pa.string())
    oof, more_faults = average_over_folds(records, ids, label_space.classes, check_and_score)
    faults += more_faults
    by_repeat = [] if faults else _read_repeats(records, folds, ids, label_space)
    by_key = {(record["model"], record["fold"]): record for record in records.values()}
    test, truth, reserve, costs = None, None, None, {}
    single: Sequence[ModelPredictions] = ()
    if inputs.test:
        test, single, more_faults = read_test_predictions(inputs.test, expected, label_space, split_sha256, by_key)
        faults += more_faults
    if inputs.reserve:
        reserve, more_faults = _read_reserve(inputs.reserve, expected, label_space, (folds, split_sha256), by_key)
        faults += more_faults
    hidden = None
    if inputs.without_metadata:
        hidden, more_faults = _read_hidden(inputs.without_metadata, ids, folds, label_space, split_sha256, by_key)
        faults += more_faults
    try:
        costs = read_timings(inputs.timings)
        if inputs.answers is not None and test is not None and not faults:
            test_ids = test.ids.to_pylist()
            truth = read_answers(inputs.answers, test_ids, "the test set", label_space.classes, **submission.columns)
    except UserError as error:
        faults += error.faults
    raise_all(faults)
    for path in inputs.weights:
        costs.setdefault(member_of(path), {})["megabytes"] = Path(path).stat().st_size / 1e6
    weights_sha256: dict[str, dict[str, str]] = {}
    for (model, fold), record in by_key.items():
        weights_sha256.setdefault(model, {})[str(fold)] = record["weights_sha256"]
    rows = evaluation_rows(table)
    data = EnsembleData(
        *(
            label_space,
            split_sha256,
            table,
            rows,
            by_repeat,
            oof,
            test,
            single,
            truth,
            reserve,
            member_scores,
            weights_sha256,
        ),
        costs=costs,
        hidden=hidden,
    )
    data = _with_guests(data, inputs.guests, folds, submission.id_column) if inputs.guests else data
    return _with_metadata(data, *inputs.metadata) if inputs.metadata else data


def _with_guests(
    data: EnsembleData, guests: Mapping[str, GuestFiles], folds: pd.DataFrame, id_column: str
) -> EnsembleData:
    """The same data with the guests among the models."""
    test = None if data.test is None else data.test.ids.to_pylist()
    reserve = None if data.reserve is None else data.reserve.table["image_id"].tolist()
    classes = data.label_space.classes
    found = read_guests(guests, Wanted(classes, folds, data.table["image_id"].tolist(), test, reserve, id_column))
    oof = {name: guest.oof for name, guest in found.items()}
    joined = replace(data, guests=found, oof=with_guests(data.oof, oof))
    joined = replace(joined, by_repeat=[with_guests(own, oof) for own in data.by_repeat])
    if data.test is not None:
        of_test = {name: guest.test for name, guest in found.items() if guest.test is not None}
        single = [
            with_guests(own, {name: one[positions_in(own.ids, data.test.ids)] for name, one in of_test.items()})
            for own in data.single
        ]
        joined = replace(joined, test=with_guests(data.test, of_test), single=single)
    if data.reserve is not None:
        kept_out = {name: guest.reserve for name, guest in found.items() if guest.reserve is not None}
        predictions = with_guests(data.reserve.predictions, kept_out)
        joined = replace(joined, reserve=replace(data.reserve, predictions=predictions))
    return joined


def _with_metadata(data: EnsembleData, train: Path, test: Path | None = None) -> EnsembleData:
    """The same data with the metadata of all images, from the manifests of both splits."""
    reserve = data.reserve
    if reserve is not None:
        reserve = replace(reserve, predictions=reserve.predictions.with_metadata(train))
    of_test, single = data.test, data.single
    if of_test is not None and test is not None:
        of_test = of_test.with_metadata(test)
        sampled = single[0].with_metadata(test).metadata if single else None
        single = [replace(own, metadata=sampled) for own in single]  # all of one sample of the images
    oof = data.oof.with_metadata(train)
    by_repeat = [replace(own, metadata=oof.metadata) for own in data.by_repeat]
    return replace(data, oof=oof, by_repeat=by_repeat, test=of_test, single=single, reserve=reserve)


def _read_repeats(
    records: Mapping[Path, dict[str, Any]], folds: pd.DataFrame, ids: pa.Array, label_space: LabelSpace
) -> list[ModelPredictions]:
    """The out-of-fold predictions of each repeat, in the order of `ids`; empty with a single repeat."""
    repeat_of = dict(zip(folds["fold"], folds["repeat"], strict=True))
    repeats = sorted({repeat for fold, repeat in repeat_of.items() if fold >= 0})
    if len(repeats) < 2:
        return []
    own = [{path: record for path, record in records.items() if repeat_of[record["fold"]] == one} for one in repeats]
    return [average_over_folds(some, ids, label_space.classes, _no_faults)[0] for some in own]


def _no_faults(_member: Predictions) -> list[str]:
    return []


def read_test_predictions(
    paths: Sequence[Path],
    expected: Mapping[str, int],
    label_space: LabelSpace,
    split_sha256: str,
    oof_records: Mapping[MemberKey, dict[str, Any]],
    members: Collection[MemberKey] | None = None,
) -> tuple[ModelPredictions, list[ModelPredictions], list[str]]:
    """Read the test predictions of all members, or of some, and average them over the folds.

    Args:
        paths: predictions files.
        expected: number of folds of each model.
        label_space: the classes.
        split_sha256: digest of the split.
        oof_records: provenance of the members' out-of-fold predictions, with whose weights these must agree.
        members: those that are read; None: all.

    Returns:
        The means of the images of the first member, in its order; for at most 10,000 of the images, what the members
        of each fold predict alone; and the faults as lines.
    """
    records, faults = sound_records(paths, "test", expected, label_space.classes, split_sha256)
    if members is not None:
        records = {path: own for path, own in records.items() if (own["model"], own["fold"]) in members}
    first: list[Predictions] = []
    sampled: dict[MemberKey, npt.NDArray[np.float32]] = {}
    drawn, ids = np.arange(0), pa.array([], pa.string())

    def check(member: Predictions) -> list[str]:
        nonlocal drawn, ids
        if not first:
            first.append(replace(member, probabilities=np.zeros((0, 0, 0), np.float32)))
            drawn = subsample(len(member.ids), None, 0, MOST_SAMPLED)
            ids = member.ids.take(pa.array(drawn))
        wrong = test_set_faults(member, first[0]) + weights_faults(member, oof_records)
        if not wrong:
            rows = drawn if member.ids.equals(first[0].ids) else positions_in(ids, member.ids)
            sampled[member.model, member.fold] = member.probabilities[:, rows]
        return wrong

    test, more_faults = average_over_folds(records, None, label_space.classes, check)
    faults += more_faults
    return test, [] if faults else one_per_fold(sampled, test, ids), faults


def _read_reserve(
    paths: Sequence[Path],
    expected: Mapping[str, int],
    label_space: LabelSpace,
    split: tuple[pd.DataFrame, str],
    oof_records: Mapping[MemberKey, dict[str, Any]],
) -> tuple[Reserve, list[str]]:
    """Read the predictions of the reserve by all members; the faults as lines."""
    folds, split_sha256 = split
    table = reserve_rows(folds)[_TABLE].reset_index(drop=True)
    records, faults = sound_records(paths, "reserve", expected, label_space.classes, split_sha256)

    def check(member: Predictions) -> list[str]:
        return labelled_faults(member, table, "the reserve") + weights_faults(member, oof_records)

    ids = pa.array(table["image_id"], pa.string())
    predictions, more_faults = average_over_folds(records, ids, label_space.classes, check)
    return Reserve(table, evaluation_rows(table), predictions), faults + more_faults


def _read_hidden(
    paths: Sequence[Path],
    ids: pa.Array,
    folds: pd.DataFrame,
    label_space: LabelSpace,
    split_sha256: str,
    oof_records: Mapping[MemberKey, dict[str, Any]],
) -> tuple[ModelPredictions, list[str]]:
    """Read out-of-fold predictions that were made without metadata, in the order of `ids`; the faults as lines."""
    expected = Counter(member_of(path)[0] for path in paths)
    records, faults = sound_records(paths, "without_metadata", expected, label_space.classes, split_sha256)

    def check(member: Predictions) -> list[str]:
        own = folds[folds["fold"] == member.fold]
        return labelled_faults(member, own, f"fold {member.fold}") + weights_faults(member, oof_records)

    predictions, more_faults = average_over_folds(records, ids, label_space.classes, check)
    return predictions, faults + more_faults


def validated_images(folds: pd.DataFrame) -> pd.DataFrame:
    """One row per image that some fold validates, with the fold of its first repeat."""
    rows = folds[folds["fold"] >= 0].sort_values("repeat", kind="stable").drop_duplicates("image_id")
    return rows[_TABLE].reset_index(drop=True)


def evaluation_rows(table: pd.DataFrame) -> EvaluationRows:
    """Labels, folds and groups of a table with the columns label, fold and group (of the split, after merging)."""
    groups, _ = pd.factorize(table["group"])
    return EvaluationRows(table["label"].to_numpy(np.int64), table["fold"].to_numpy(np.int64), groups)

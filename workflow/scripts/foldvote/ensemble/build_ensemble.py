"""The ensemble: members' predictions become one per image, by the method that out-of-fold scores favour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.ensemble import Submission, Vote
from foldvote.config.layout_facts import NumericFactor
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import (
    PRODUCT_SIGN,
    Candidates,
    candidates_of,
    model_mean,
    model_probabilities,
    own_classes,
)
from foldvote.ensemble.group_parts import outer_folds
from foldvote.ensemble.guest_checks import examine_guests
from foldvote.ensemble.inputs import NOT_WRITTEN, EnsembleData, EnsembleInputs, read_ensemble_data
from foldvote.ensemble.leaderboard import DEFAULT, make_leaderboard
from foldvote.ensemble.members_curve import members_curve
from foldvote.ensemble.methods import apply_method, choose_classes
from foldvote.ensemble.reserve import ReserveScores, count_looks, score_on_reserve
from foldvote.ensemble.row_scores import (
    answer_scores,
    calibration_scores,
    known_value,
    method_scores,
    model_scores,
    result_scores,
    score_with_intervals,
)
from foldvote.ensemble.scaling import Calibration, Scaling, apply_scaling, fit_scaling, scaling_of_mean
from foldvote.ensemble.selection import (
    EvaluationRows,
    MethodComparison,
    MethodResult,
    NestedPredictions,
    compare_methods,
)
from foldvote.evaluation.calibration import calibrate_nested, fit_temperature
from foldvote.evaluation.group_consistency import consistency
from foldvote.evaluation.label_issues import LABEL_ISSUES, label_issues
from foldvote.evaluation.metric_registry import Answers, Metric, find_metric
from foldvote.evaluation.metrics import score
from foldvote.evaluation.slices import slice_scores
from foldvote.evaluation.vote_table import votes_frame, votes_schema
from foldvote.io.csv_files import write_csv
from foldvote.io.files import write_json
from foldvote.io.ids import positions_in
from foldvote.io.parquet import read_table, write_table

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]
_OF_MANIFEST = ["image_id", "format", "width", "height"]


@dataclass(frozen=True)
class EnsembleFiles:
    """The files that the ensemble writes.

    Attributes:
        oof: ensemble/oof.parquet, one row per validated train image in the order of the split, predicted by a method
            that was fitted on other groups; `fold` is that of the first repeat.
        test: ensemble/test.parquet, one row per test image in the order of the first member's predictions; None when
            there is no test set.
        reserve: ensemble/reserve.parquet, one row per image of the reserve as the submitted vote predicts it; None
            where there is no reserve.
        metrics: ensemble/metrics.json.
        weights: ensemble/weights.json: the method that is used, what it has fitted, and its calibration.
        votes: ensemble/votes.json: what every method has fitted.
        slices: ensemble/slices.csv.
        reliability: ensemble/reliability.csv.
        issues: ensemble/label_issues.parquet.
        leaderboard: leaderboard.csv.
    """

    oof: Path
    test: Path | None
    metrics: Path
    weights: Path
    votes: Path
    slices: Path
    reliability: Path
    issues: Path
    leaderboard: Path
    reserve: Path | None = None


def make_ensemble(
    inputs: EnsembleInputs,
    files: EnsembleFiles,
    expected: Mapping[str, int],
    settings: Vote,
    submission: Submission,
    seed: int,
    metrics: Sequence[Metric] = (find_metric(DEFAULT),),
    plan: Mapping[str, str] | None = None,
) -> None:
    """Check all predictions, compare the ensemble methods, score and write; on any fault nothing is written.

    A model's probabilities are the mean over its folds (of a test image) or repeats (of a train image); each model, or
    the product of the factor models, in each view is a candidate (foldvote.ensemble.candidates).

    Args:
        inputs: the files that are read.
        files: the files that are written.
        expected: number of folds of each model.
        settings: the `vote` section.
        submission: for the columns of the answers.
        seed: the run's seed.
        metrics: the main metric, and others that the settings name.
        plan: by model, also those that are left out, what the plan of a run with `runtime.max_hours` leaves of it.

    Raises:
        UserError: if predictions are missing, surplus, or do not fit each other, the split or the answers; or if a
            metric fails.
    """
    data = read_ensemble_data(inputs, expected, submission, settings.draws, seed, metrics)
    label_space, rows, table = data.label_space, data.rows, data.table
    candidates = candidates_of(data.oof, label_space)
    chosen = _choose(data, candidates, settings, metrics, seed)

    found: dict[str, Any] = {"images": len(table), "classes": list(label_space.classes), "chosen": chosen.kind}
    found |= {"metric": metrics[0].name, "plan": plan}
    test_ids, test_votes = None, None
    if data.test is not None:
        test_ids, found["test_images"] = data.test.ids, len(data.test.ids)
        test_votes, found["test"] = _predict_test(data, chosen, metrics)
        if not data.guests:
            data = replace(data, test=None, single=())  # the largest arrays, which only guests' checks still need
    found["oof"] = _oof_scores(data, chosen, candidates, metrics, settings.draws, seed)
    found["calibration"] = chosen.calibration
    found["submitted_calibration"] = chosen.scaling
    repeats, members = [candidates_of(own, label_space) for own in data.by_repeat], next(iter(expected.values()))
    found["members_curve"] = members_curve(repeats, rows, label_space, members, settings.draws, seed, metrics)
    found["consistency"] = consistency(table, chosen.calibrated, label_space)
    record = {"split_sha256": data.split_sha256, "vote": chosen.kind, "members": data.weights_sha256}
    if chosen.on_reserve is not None:
        found["reserve"] = _reserve_scores(data, chosen.on_reserve, metrics, settings.draws, seed)
        found["reserve"]["looks"] = count_looks(files.leaderboard.with_name("reserve_looks.json"), found["reserve"])
    guests = {}
    if data.guests:
        found["guests"] = examine_guests(data, candidates, found, inputs.certificate, settings.draws, seed)
        record["guests"] = {name: guest.sha256 for name, guest in data.guests.items()}
        guests = {"guests": sorted(data.guests)}
    found = {name: value for name, value in found.items() if value is not None}
    issues = label_issues(table, chosen.calibrated, model_probabilities(candidates), label_space)
    leaderboard = make_leaderboard(found, data.costs)

    def write_votes(rows: pd.DataFrame, votes: NestedPredictions, path: Path | None, *, labelled: bool) -> None:
        if path is not None:
            frame = votes_frame(rows, votes.probabilities, votes.codes, label_space)
            write_table(frame, path, votes_schema(label_space.classes, labelled=labelled), ("image_id",), record)

    written = table.drop(columns=NOT_WRITTEN)
    write_votes(written, NestedPredictions(chosen.calibrated, chosen.codes), files.oof, labelled=True)
    if test_votes is not None and test_ids is not None:
        test_votes = replace(test_votes, probabilities=apply_scaling(test_votes.probabilities, chosen.scaling))
        write_votes(pd.DataFrame({"image_id": test_ids.to_pylist()}), test_votes, files.test, labelled=False)
    if data.reserve is not None and chosen.on_reserve is not None:
        written = data.reserve.table.drop(columns=NOT_WRITTEN)
        write_votes(written, chosen.on_reserve.crossed, files.reserve, labelled=True)
    write_table(issues, files.issues, LABEL_ISSUES, ("rank",), record)
    described = _with_manifest(table, inputs.manifest, inputs.numeric)
    main = metrics[0] if metrics[0].name != DEFAULT else None
    slices = slice_scores(described, chosen.calibrated, label_space, inputs.numeric, main)
    write_csv(slices.round(6), files.slices)
    write_csv(chosen.reliability.round(6), files.reliability)
    write_json(files.weights, {"calibration": chosen.scaling, **chosen.params[chosen.kind], **guests})
    write_json(files.votes, chosen.params)
    write_json(files.metrics, found)
    write_csv(leaderboard, files.leaderboard)


@dataclass(frozen=True)
class _Chosen:
    """The method that is used, and what the comparison of all methods says.

    Attributes:
        kind: its name.
        params: what each method has fitted, by name.
        scores: the out-of-fold scores of each method, by name.
        codes: the classes that the chosen method predicts out of fold, int64 (images,).
        calibrated: its out-of-fold probabilities, calibrated by other folds, float64 (images, classes).
        calibration: the scores before and after calibration.
        reliability: the rows of ensemble/reliability.csv.
        scaling: the calibration of the submitted vote.
        on_reserve: how the methods do on the reserve; None where there is none.
    """

    kind: str
    params: dict[str, dict[str, Any]]
    scores: dict[str, dict[str, Any]]
    codes: npt.NDArray[np.int64]
    calibrated: Floats
    calibration: dict[str, Any]
    reliability: pd.DataFrame
    scaling: Scaling
    on_reserve: ReserveScores | None


def _choose(
    data: EnsembleData, candidates: Candidates, settings: Vote, metrics: Sequence[Metric], seed: int
) -> _Chosen:
    """Compare the methods, choose one and calibrate it; the predictions of all others are dropped."""
    label_space, rows, scored = data.label_space, data.rows, None

    def choose_on_reserve(fitted: Mapping[str, MethodResult]) -> str:
        nonlocal scored
        assert data.reserve is not None
        kept_out = candidates_of(data.reserve.predictions, label_space)
        scored = score_on_reserve(kept_out, data.reserve.rows, fitted, label_space, settings, seed, metrics)
        return scored.chosen

    choose = choose_on_reserve if data.reserve is not None else None
    comparison = compare_methods(candidates, rows, label_space, settings, seed, choose, metrics)
    results = comparison.results if scored is None else scored.results
    nested = comparison.nested
    calibrated = _calibrate(nested.probabilities, rows, settings.calibration, seed)
    calibration, reliability = calibration_scores(rows.labels, nested.probabilities, calibrated, settings.calibration)
    return _Chosen(
        kind=comparison.chosen,
        params={kind: result.params for kind, result in results.items()},
        scores=method_scores(comparison),
        codes=nested.codes,
        calibrated=calibrated,
        calibration=calibration,
        reliability=reliability,
        scaling=scored.scaling if scored else _fit_scaling(data, comparison, settings.calibration),
        on_reserve=scored,
    )


def _oof_scores(
    data: EnsembleData, chosen: _Chosen, candidates: Candidates, metrics: Sequence[Metric], draws: int, seed: int
) -> dict[str, Any]:
    """The out-of-fold scores of the ensemble, of every method, model and member, and of the factor product."""
    rows, label_space = data.rows, data.label_space
    answers = Answers(rows.labels, chosen.calibrated, chosen.codes)
    ensemble = answer_scores(answers, rows.groups, label_space, metrics, draws, seed)
    models = model_scores(data.oof, rows, label_space, draws, seed, metrics)
    for name in {name for name in candidates.models if PRODUCT_SIGN in name}:
        models[name] = score_with_intervals(rows, model_mean(candidates, name), label_space, None, draws, seed, metrics)
    found = {
        "ensemble": ensemble,
        "votes": chosen.scores,
        "models": models,
        "members": data.member_scores,
    }
    if data.hidden is not None:
        found["without_metadata"] = model_scores(data.hidden, rows, label_space, draws, seed, metrics)
    return found


def _reserve_scores(
    data: EnsembleData, scored: ReserveScores, metrics: Sequence[Metric], draws: int, seed: int
) -> dict[str, Any]:
    """The scores on the reserve of the submitted vote, every method and every model, each the mean of all members."""
    assert data.reserve is not None
    rows, label_space, crossed = data.reserve.rows, data.label_space, scored.crossed
    answers = Answers(rows.labels, crossed.probabilities, crossed.codes)
    ensemble = answer_scores(answers, rows.groups, label_space, metrics, draws, seed)
    votes = {kind: result_scores(result) for kind, result in scored.results.items()}
    predictions = data.reserve.predictions
    models = {
        name: score_with_intervals(
            rows, predictions.mean_of(name), label_space, predictions.learnt[name], draws, seed, metrics
        )
        for name in predictions.models
    }
    whole = candidates_of(predictions, label_space)
    for name in {name for name in whole.models if PRODUCT_SIGN in name}:
        models[name] = score_with_intervals(rows, model_mean(whole, name), label_space, None, draws, seed, metrics)
    groups = len(np.unique(rows.groups))
    return {"images": len(rows.labels), "groups": groups, "ensemble": ensemble, "votes": votes, "models": models}


def _predict_test(
    data: EnsembleData, chosen: _Chosen, metrics: Sequence[Metric]
) -> tuple[NestedPredictions, dict[str, Any] | None]:
    """Predict the test images.

    Returns:
        The predictions of the chosen method before calibration; and, where the answers are known, the scores of the
        ensemble and of every method and model on them.
    """
    assert data.test is not None
    label_space, truth = data.label_space, data.truth
    candidates = candidates_of(data.test, label_space)

    def predict(kind: str) -> NestedPredictions:
        probabilities = apply_method(candidates, chosen.params[kind], label_space)
        return NestedPredictions(probabilities, choose_classes(probabilities, chosen.params[kind]))

    votes = predict(chosen.kind)
    if truth is None:
        return votes, None

    def scored(answers: Answers, space: LabelSpace) -> dict[str, Any]:
        found = score(answers.labels, answers.probabilities, space, answers.predicted)
        return {
            one.name: known_value(one.value_or_nan(answers, space)) for one in metrics if one.name not in found
        } | found

    by_kind = {}
    for kind in chosen.params:
        of_kind = votes if kind == chosen.kind else predict(kind)
        own = scored(Answers(truth, of_kind.probabilities, of_kind.codes), label_space)
        names = ("macro_f1", "accuracy", "log_loss", *(one.name for one in metrics))
        by_kind[kind] = {name: own[name] for name in names if name in own}
    models = {
        name: scored(Answers.of(truth, model_mean(candidates, name)), label_space)
        for name in sorted(set(candidates.models))
    }
    for name, factors in data.test.learnt.items():
        if factors:
            own_space, own_probabilities = own_classes(data.test.mean_of(name), factors, label_space)
            own_labels = label_space.restricted(factors)[1][truth]
            models[name] = scored(Answers.of(own_labels, own_probabilities), own_space)
    ensemble = scored(Answers(truth, apply_scaling(votes.probabilities, chosen.scaling), votes.codes), label_space)
    return votes, {"ensemble": ensemble, "votes": by_kind, "models": models}


def _calibrate(probabilities: Floats, rows: EvaluationRows, method: Calibration, seed: int) -> Floats:
    """Out-of-fold predictions, each fold calibrated by the others."""
    if method == "none":
        return probabilities
    folds = outer_folds(rows.folds, rows.groups, seed)
    return calibrate_nested(probabilities, rows.labels, folds, "vector" if method == "vector" else "temperature")


def _fit_scaling(data: EnsembleData, comparison: MethodComparison, method: Calibration) -> Scaling:
    """The calibration of the submitted vote where there is no reserve."""
    oof, labels, label_space = comparison.nested.probabilities, data.rows.labels, data.label_space
    if method != "auto" or data.test is None:
        return fit_scaling(oof, labels, method, "out-of-fold predictions")
    params = comparison.results[comparison.chosen].params
    singles = [apply_method(candidates_of(own, label_space), params, label_space) for own in data.single]
    positions = positions_in(data.single[0].ids, data.test.ids)
    vote = apply_method(candidates_of(data.test, label_space).rows(positions), params, label_space)
    return scaling_of_mean(fit_temperature(oof, labels), max(len(data.by_repeat), 1), singles, vote)


def _with_manifest(table: pd.DataFrame, manifest: Path | None, numeric: NumericFactor | None) -> pd.DataFrame:
    """The table with the columns of the manifest that slices are made by."""
    if manifest is None:
        return table
    known = read_table(manifest)
    wanted = [*_OF_MANIFEST, *([numeric.column] if numeric else [])]
    return table.merge(known[[name for name in wanted if name in known]], on="image_id", how="left")

"""The ensemble: every member's predictions become one vote an image, chosen and scored honestly."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.data import NumericFactor
from foldvote.config.ensemble import Submission, Vote
from foldvote.ensemble.candidates import (
    PRODUCT_SIGN,
    Candidates,
    candidates_of,
    model_mean,
    model_probabilities,
    own_classes,
)
from foldvote.ensemble.inputs import EnsembleData, EnsembleInputs, read_ensemble_data
from foldvote.ensemble.leaderboard import (
    calibration_scores,
    make_leaderboard,
    method_scores,
    model_scores,
    score_with_intervals,
    with_intervals,
)
from foldvote.ensemble.methods import apply_vote, decide_vote
from foldvote.ensemble.selection import MethodComparison, compare_methods, nested_parts
from foldvote.evaluation.bootstrap import group_sums
from foldvote.evaluation.calibration import (
    apply_temperature,
    apply_vector,
    calibrate_nested,
    fit_temperature,
    fit_vector,
)
from foldvote.evaluation.group_consistency import consistency
from foldvote.evaluation.label_issues import LABEL_ISSUES, label_issues
from foldvote.evaluation.metrics import score
from foldvote.evaluation.slices import slice_scores
from foldvote.evaluation.vote_table import votes_frame, votes_schema
from foldvote.io.csv_files import write_csv
from foldvote.io.files import write_json
from foldvote.io.parquet import read_table, write_table

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Scaling = dict[str, Any]
_OF_MANIFEST = ["image_id", "format", "width", "height"]


@dataclass(frozen=True)
class EnsembleFiles:
    """What the ensemble writes.

    Attributes:
        oof: ensemble/oof.parquet, a row a validated train image in the order of the split, voted on by a fit on other
            persons; `fold` is that of the first repeat.
        test: ensemble/test.parquet, a row a test image in the order of the first member's predictions; None when
            there is no test set.
        metrics: ensemble/metrics.json.
        weights: ensemble/weights.json: the vote that is used, what it has fitted, and its calibration.
        votes: ensemble/votes.json: what every kind of vote has fitted.
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


def make_ensemble(
    inputs: EnsembleInputs,
    files: EnsembleFiles,
    expected: Mapping[str, int],
    settings: Vote,
    submission: Submission,
    seed: int,
) -> None:
    """Check all predictions, hold the contest of votes, score and write; on any fault nothing is written.

    A model's probabilities are the mean over its folds (of a test image) or repeats (of a train image); each voice
    (foldvote.ensemble.candidates) in each view is a candidate of the vote.

    Args:
        inputs: what is read.
        files: what is written.
        expected: number of folds of each model.
        settings: the `vote` section.
        submission: for the columns of the answers.
        seed: the run's seed.

    Raises:
        UserError: if predictions are missing, surplus, or do not fit each other, the split or the answers.
    """
    known = read_ensemble_data(inputs, expected, submission, settings.draws, seed)
    scheme, images, rows = known.scheme, known.images, known.rows
    candidates = candidates_of(known.oof, scheme)
    contest = compare_methods(candidates, images, scheme, settings, seed)
    parts, honest = nested_parts(images.folds, images.groups, seed), contest.honest
    calibrated = _calibrated(honest.probabilities, images.labels, parts, settings.calibration)
    scaling = _fit_scaling(honest.probabilities, images.labels, settings.calibration)

    metrics: dict[str, Any] = {"images": len(rows), "classes": list(scheme.classes), "chosen": contest.chosen}
    metrics["oof"] = _oof_scores(known, contest, candidates, honest.codes, calibrated, settings.draws, seed)
    metrics["calibration"], reliability = calibration_scores(
        images.labels, honest.probabilities, calibrated, settings.calibration
    )
    metrics["consistency"] = consistency(rows, calibrated, scheme)
    record = {"split_sha256": known.digest, "vote": contest.chosen, "members": known.weights_sha256}
    tests = None
    if known.test is not None:
        metrics["test_images"] = len(known.test.ids)
        tests, metrics["test"] = _test_votes(known, contest, scaling)
        metrics = {name: value for name, value in metrics.items() if value is not None}
    issues = label_issues(rows, calibrated, model_probabilities(candidates), scheme)
    board = make_leaderboard(metrics, known.costs)

    frame = votes_frame(rows.drop(columns="stratum"), calibrated, honest.codes, scheme)
    write_table(frame, files.oof, votes_schema(scheme.classes, labelled=True), ("image_id",), record)
    if files.test is not None and tests is not None:
        write_table(tests, files.test, votes_schema(scheme.classes, labelled=False), ("image_id",), record)
    write_table(issues, files.issues, LABEL_ISSUES, ("rank",), record)
    described = _described(rows, inputs.manifest, inputs.numeric)
    write_csv(slice_scores(described, calibrated, scheme, inputs.numeric).round(6), files.slices)
    write_csv(reliability.round(6), files.reliability)
    write_json(files.weights, {"calibration": scaling, **contest.entries[contest.chosen].params})
    write_json(files.votes, {kind: entry.params for kind, entry in contest.entries.items()})
    write_json(files.metrics, metrics)
    write_csv(board, files.leaderboard)


def _oof_scores(
    known: EnsembleData,
    contest: MethodComparison,
    candidates: Candidates,
    codes: Codes,
    calibrated: Floats,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """The scores of the vote that is used, of every kind of vote, of voices, models and members."""
    images, scheme = known.images, known.scheme
    sums = group_sums(images.labels, calibrated, images.groups, len(scheme.classes), codes)
    chosen = score(images.labels, calibrated, scheme, codes) | with_intervals(sums, draws, seed)
    models = model_scores(known.oof, images, scheme, draws, seed)
    for name in {name for name in candidates.models if PRODUCT_SIGN in name}:
        models[name] = score_with_intervals(images, model_mean(candidates, name), scheme, None, draws, seed)
    return {"ensemble": chosen, "votes": method_scores(contest), "models": models, "members": known.members}


def _test_votes(
    known: EnsembleData, contest: MethodComparison, scaling: Scaling
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """The votes on the test images; and, where the answers are known, how every vote and model would have done."""
    assert known.test is not None
    scheme, truth = known.scheme, known.truth
    candidates = candidates_of(known.test, scheme)
    voted = {}
    for kind, entry in contest.entries.items():
        if kind == contest.chosen or truth is not None:
            probabilities = apply_vote(candidates, entry.params, scheme)
            voted[kind] = (probabilities, decide_vote(probabilities, entry.params))
    probabilities, codes = voted[contest.chosen]
    scaled = _scaled(probabilities, scaling)
    frame = votes_frame(pd.DataFrame({"image_id": known.test.ids.to_pylist()}), scaled, codes, scheme)
    if truth is None:
        return frame, None
    models = {name: score(truth, model_mean(candidates, name), scheme) for name in sorted(set(candidates.models))}
    for name, factors in known.test.learnt.items():
        if factors:
            own, said = own_classes(known.test.mean_of(name), factors, scheme)
            models[name] = score(scheme.restricted(factors)[1][truth], said, own)
    votes = {
        kind: {name: own[name] for name in ("macro_f1", "accuracy", "log_loss")}
        for kind, (said, chosen) in voted.items()
        for own in (score(truth, said, scheme, chosen),)
    }
    return frame, {"ensemble": score(truth, scaled, scheme, codes), "votes": votes, "models": models}


def _calibrated(probabilities: Floats, labels: Codes, parts: Codes, method: str) -> Floats:
    return probabilities if method == "none" else calibrate_nested(probabilities, labels, parts, method)


def _fit_scaling(probabilities: Floats, labels: Codes, method: str) -> Scaling:
    """What brings the vote's probabilities to the shares of right answers, as plain JSON."""
    if method == "temperature":
        return {"method": method, "temperature": fit_temperature(probabilities, labels)}
    if method == "vector":
        return {"method": method, "scaling": fit_vector(probabilities, labels)}
    return {"method": "none"}


def _scaled(probabilities: Floats, scaling: Scaling) -> Floats:
    if scaling["method"] == "temperature":
        return apply_temperature(probabilities, scaling["temperature"])
    return apply_vector(probabilities, scaling["scaling"]) if scaling["method"] == "vector" else probabilities


def _described(rows: pd.DataFrame, manifest: Path | None, numeric: NumericFactor | None) -> pd.DataFrame:
    """The rows with what the manifest knows of each image."""
    if manifest is None:
        return rows
    known = read_table(manifest)
    wanted = [*_OF_MANIFEST, *([numeric.column] if numeric else [])]
    return rows.merge(known[[name for name in wanted if name in known]], on="image_id", how="left")

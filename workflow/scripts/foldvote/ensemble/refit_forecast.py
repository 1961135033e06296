"""What networks of all groups will score: a forecast from a learning curve over groups, no measurement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.config.metric_names import higher_is_better
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.candidates import Candidates, candidates_of, equal_shares, mixture_of
from foldvote.ensemble.inputs import evaluation_rows
from foldvote.ensemble.model_predictions import average_over_folds
from foldvote.ensemble.row_scores import intervals_of
from foldvote.ensemble.selection import EvaluationRows
from foldvote.errors import raise_all
from foldvote.evaluation.learning_curve import SHAPES, CurveForecast, forecast_score, gain_of_averaging
from foldvote.evaluation.metric_bootstrap import Scored, score_rows
from foldvote.evaluation.metric_registry import Answers, Metric
from foldvote.inference.prediction_files import Predictions, labelled_faults, sound_record
from foldvote.io.csv_files import write_csv
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_table
from foldvote.splits.folds import fold_rows, read_folds
from foldvote.splits.train_only import scored_rows

ALL_MODELS = "refit"  # the row of the mean of all models; no model's own
_WHAT = "a forecast from a learning curve, no measurement"


@dataclass(frozen=True)
class ForecastInputs:
    """The files that are read.

    Attributes:
        oof: predictions of the K-fold members of the curve's folds.
        curve: the same of the networks that learnt from fewer groups, of all shares.
        curve_folds: refit/curve/share=<s>/folds.parquet of each share, rising.
        curve_certificates: the certificates of these.
        folds: folds/folds.parquet.
        certificate: folds/certificate.json.
        classes: data/classes.json.
        test_manifest: manifest of the test images; None: there are none.
    """

    oof: Sequence[Path]
    curve: Sequence[Path]
    curve_folds: Sequence[Path]
    curve_certificates: Sequence[Path]
    folds: Path
    certificate: Path
    classes: Path
    test_manifest: Path | None = None


@dataclass(frozen=True)
class _Point:
    """One point of the curve: the share, the mean number of groups behind a network, and the predictions."""

    share: float
    groups: float
    candidates: Candidates


def write_forecast(
    inputs: ForecastInputs,
    forecast_path: Path,
    curve_path: Path,
    chosen: Sequence[int],
    seeds: int,
    chooses_epochs: Sequence[str],
    draws: int,
    seed: int,
    metrics: Sequence[Metric],
) -> None:
    """Forecast the score of the networks of all groups.

    Groups that are only trained on are counted nowhere: the networks of every share learn from them.

    Args:
        inputs: the files that are read.
        forecast_path: refit/forecast.json.
        curve_path: refit/curve.csv.
        chosen: the folds that the curve is measured on.
        seeds: number of networks of each model that are averaged.
        chooses_epochs: models whose members choose their epoch on the images that score them.
        draws: number of bootstrap draws.
        seed: the run's seed.
        metrics: the main metric.

    Raises:
        UserError: if files do not belong together.
    """
    label_space = read_label_space(inputs.classes)
    folds, digest = read_folds(inputs.folds, inputs.certificate)
    table = folds[folds["fold"].isin(chosen)].reset_index(drop=True)
    rows = evaluation_rows(table)
    points = _curve_points(inputs, table, label_space, chosen)
    whole = _candidates(inputs.oof, table, label_space, digest)
    learnt = [scored_rows(fold_rows(folds, fold)[0])["group"].nunique() for fold in chosen]
    points.append(_Point(1.0, float(np.mean(learnt)), whole))
    images = scored_rows(folds).drop_duplicates("image_id")
    every = images["group"].nunique()
    tested = _test_groups(inputs.test_manifest, len(images) / every)
    names = sorted(set(whole.models))
    curve, found = [], {}
    for name in [ALL_MODELS, *(names if len(names) > 1 else [])]:
        scored, pair = _scored(points, None if name == ALL_MODELS else name, rows, label_space, draws, seed, metrics)
        found[name] = _forecasts(points, scored, pair, every, seeds, int(rows.groups.max()) + 1, tested, seed)
        curve += _curve_rows(name, points, scored, found[name], every)
    content = {
        "what": _WHAT,
        "metric": metrics[0].name,
        "networks": seeds,
        "groups": {"of_a_fold": round(points[-1].groups, 2), "all": every, "scored": int(rows.groups.max()) + 1},
        "test_groups": round(tested, 2) if tested else None,
        "images": len(table),
        "folds": list(map(int, chosen)),
        "shares": [point.share for point in points],
        "shapes": list(SHAPES),
        "notes": [
            f"{name}: its members chose their epoch on the images that score them, so the forecast is optimistic"
            for name in chooses_epochs
        ],
        "forecasts": found,
    }
    write_json(forecast_path, content)
    write_csv(pd.DataFrame(curve).round(6), curve_path)


def _curve_points(
    inputs: ForecastInputs, table: pd.DataFrame, label_space: LabelSpace, chosen: Sequence[int]
) -> list[_Point]:
    points = []
    for folds_path, certificate in zip(inputs.curve_folds, inputs.curve_certificates, strict=True):
        _, digest = read_folds(folds_path, certificate)
        about = read_json(certificate)
        own = [path for path in inputs.curve if folds_path.parent in path.parents]
        groups = [fold["groups"] for fold in about["folds"] if fold["fold"] in chosen]
        points.append(_Point(about["share"], float(np.mean(groups)), _candidates(own, table, label_space, digest)))
    return sorted(points, key=lambda point: point.share)


def _candidates(paths: Sequence[Path], table: pd.DataFrame, label_space: LabelSpace, digest: str) -> Candidates:
    """What the members of some folds predict for the images of these folds, in the order of the table."""
    records = {path: sound_record(path, "oof", label_space.classes, digest) for path in sorted(paths)}

    def check(member: Predictions) -> list[str]:
        return labelled_faults(member, table[table["fold"] == member.fold], f"fold {member.fold}")

    ids = pa.array(table["image_id"], pa.string())
    predictions, faults = average_over_folds(records, ids, label_space.classes, check)
    raise_all(faults)
    return candidates_of(predictions, label_space)


def _test_groups(manifest: Path | None, images_of_a_group: float) -> float | None:
    """Number of groups of test images: as the manifest names them, else as many as training images would make."""
    if manifest is None:
        return None
    groups = read_table(manifest)["group"]
    return float(groups.nunique()) if groups.notna().all() else len(groups) / images_of_a_group


def _scored(
    points: Sequence[_Point],
    model: str | None,
    rows: EvaluationRows,
    label_space: LabelSpace,
    draws: int,
    seed: int,
    metrics: Sequence[Metric],
) -> tuple[list[Scored], Scored]:
    """The scores of each point in the same draws of groups, and those of the mean of the last two points' networks."""
    means = [_mean(point.candidates, model) for point in points]
    answers = {str(place): Answers.of(rows.labels, mean) for place, mean in enumerate(means)}
    answers["pair"] = Answers.of(rows.labels, (means[-2] + means[-1]) / 2)
    scored = score_rows(answers, rows.groups, label_space, metrics, draws, seed)
    return [scored[str(place)] for place in range(len(points))], scored["pair"]


def _mean(candidates: Candidates, model: str | None) -> np.ndarray:
    shares = equal_shares(candidates)
    if model is not None:
        own = [name for name, of in zip(candidates.names, candidates.models, strict=True) if of == model]
        shares = dict.fromkeys(own, 1 / len(own))
    return mixture_of(candidates, shares)


def _forecasts(
    points: Sequence[_Point],
    scored: Sequence[Scored],
    pair: Scored,
    every: int,
    seeds: int,
    scored_groups: int,
    tested: float | None,
    seed: int,
) -> dict[str, Any]:
    """By metric the forecast, what it is made of, and its intervals."""
    groups, found = np.asarray([point.groups for point in points]), {}
    for metric in scored[0].points:
        values = np.asarray([own.points[metric] for own in scored])
        drawn = np.stack([own.draws[metric] for own in scored])
        if metric == "ece" or not (np.isfinite(values).all() and np.isfinite(drawn).all()):
            continue
        gain = gain_of_averaging(
            float(values[-2:].mean()), pair.points[metric], drawn[-2:].mean(axis=0), pair.draws[metric], seeds
        )
        limits = (0.0 if drawn.min() >= 0 else -np.inf, 1.0 if _at_most_one(metric, drawn) else np.inf)
        scatter = (scored_groups / tested) ** 0.5 if tested else 0.0
        made = forecast_score(groups, values, drawn, every, gain, scatter, seed, limits)
        found[metric] = _rounded(made, tested) | {
            "measured_by_folds": round(float(values[-1]), 6),
            "from_more_groups": round(made.value - gain.value - float(values[-1]), 6),
            "from_averaging": round(gain.value, 6),
        }
    return found


def _at_most_one(metric: str, drawn: np.ndarray) -> bool:
    return higher_is_better(metric) and bool(drawn.max() <= 1)


def _rounded(made: CurveForecast, tested: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {name: round(getattr(made, name), 6) for name in ("value", "low", "high")}
    return found | ({"on_test": [round(made.test_low, 6), round(made.test_high, 6)]} if tested else {})


def _curve_rows(
    name: str, points: Sequence[_Point], scored: Sequence[Scored], forecasts: Mapping[str, Any], every: int
) -> list[dict[str, Any]]:
    """Rows of curve.csv: the measured points, then the forecast."""
    found: list[dict[str, Any]] = []
    for metric, forecast in forecasts.items():
        for point, own in zip(points, scored, strict=True):
            low, high = intervals_of({metric: own.draws[metric]}, own.points)[metric] or (None, None)
            found.append(
                {"of": name, "metric": metric, "kind": "measured", "share": point.share, "groups": point.groups}
                | {"value": own.points[metric], "low": low, "high": high}
            )
        found.append(
            {"of": name, "metric": metric, "kind": "forecast", "share": None, "groups": float(every)}
            | {key: forecast[key] for key in ("value", "low", "high")}
        )
    return found

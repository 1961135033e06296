"""The leaderboard: every method, model and member with its scores, their intervals, and what it cost."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import PRODUCT_SIGN, ModelPredictions, own_classes, subsample
from foldvote.ensemble.methods import simplest_first
from foldvote.ensemble.selection import EvaluationRows, MethodComparison, outer_folds
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.bootstrap import METRICS, GroupSums, bootstrap, group_sums, interval, scores
from foldvote.evaluation.calibration import calibrate_nested, fit_temperature, reliability
from foldvote.evaluation.metrics import score
from foldvote.io.files import read_json
from foldvote.io.paths import MemberKey, member_of
from foldvote.io.text_table import align_columns

Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Costs = Mapping[MemberKey, Mapping[str, float]]
SCORES = ("macro_f1", "accuracy", "log_loss", "ece")
COLUMNS = (
    *("kind", "model", "fold", "images", "macro_f1", "macro_f1_low", "macro_f1_high", "macro_f1_over_folds"),
    *("optimistic_macro_f1", "accuracy", "log_loss", "ece", "temperature"),
)
RESERVE_SCORES = ("macro_f1", "accuracy", "log_loss", "ece")
RESERVE_COLUMNS = (
    *("reserve_macro_f1", "reserve_macro_f1_low", "reserve_macro_f1_high"),
    *("reserve_accuracy", "reserve_accuracy_low", "reserve_accuracy_high", "reserve_log_loss", "reserve_ece"),
)
TEST_COLUMNS = ("test_macro_f1", "test_accuracy")
GUEST_COLUMNS = ("suspicion",)
COST_COLUMNS = ("fit_seconds", "predict_seconds", "megabytes")
_MOST_FOR_TEMPERATURE = 20_000  # images: one number needs no more


def score_with_intervals(
    rows: EvaluationRows,
    probabilities: Floats,
    label_space: LabelSpace,
    factors: Sequence[str] | None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """All scores of some predictions, with 95 % intervals from a bootstrap over groups.

    Args:
        rows: the images' labels (codes of the task's classes) and groups.
        probabilities: of the task's classes, shape (images, classes).
        label_space: the task's classes.
        factors: those that the model learns; it is scored on their classes alone. None: on the task's classes.
        draws: number of bootstrap draws.
        seed: the run's seed.

    Returns:
        What `metrics.score` returns, and `brier`, `ece` and `intervals`; `temperature`, the one that would calibrate
        the predictions (above 1: they are overconfident); `factors_learnt` where only some are.
    """
    own_space, own_probabilities = own_classes(probabilities, factors, label_space)
    labels = _own_labels(rows.labels, factors, label_space)
    sums = group_sums(labels, own_probabilities, rows.groups, len(own_space.classes))
    found = score(labels, own_probabilities, own_space) | with_intervals(sums, draws, seed)
    found["temperature"] = round(fit_temperature(own_probabilities, labels, _MOST_FOR_TEMPERATURE), 4)
    return found | ({"factors_learnt": list(factors)} if factors else {})


def with_intervals(sums: GroupSums, draws: int, seed: int) -> dict[str, Any]:
    """The scores `brier` and `ece`, and `intervals`: the low and the high end of each score's 95 % interval.

    Args:
        sums: of some predictions, by group.
        draws: number of bootstrap draws.
        seed: the run's seed.
    """
    drawn, points = bootstrap({"": sums}, draws, seed)[""], scores(sums)
    return {"brier": points["brier"], "ece": points["ece"], "intervals": intervals_of(drawn)}


def method_scores(comparison: MethodComparison) -> dict[str, dict[str, Any]]:
    """Each method's nested scores with intervals, its optimistic scores, and its comparison with the chosen method."""
    return {
        kind: {
            "images": comparison.images,
            **result.nested,
            "intervals": intervals_of(result.draws),
            "optimistic": result.optimistic,
            "against_chosen": comparison.against_chosen[kind]._asdict(),
        }
        for kind, result in comparison.results.items()
    }


def model_scores(
    predictions: ModelPredictions, rows: EvaluationRows, label_space: LabelSpace, draws: int, seed: int
) -> dict[str, Any]:
    """Each model's scores over all its folds; in `calibrated`, some of them after a temperature of its own.

    Args:
        predictions: the models' out-of-fold means.
        rows: labels, folds and groups of their images.
        label_space: the task's classes.
        draws: number of bootstrap draws.
        seed: the run's seed.
    """
    found = {}
    for model in predictions.models:
        probabilities, factors = predictions.mean_of(model), predictions.learnt[model]
        found[model] = score_with_intervals(rows, probabilities, label_space, factors, draws, seed)
        found[model]["calibrated"] = _calibrated_scores(rows, probabilities, label_space, factors, seed)
    return found


def calibration_scores(
    labels: Codes, before: Floats, after: Floats, method: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Log-loss, Brier score and expected calibration error before and after calibration, and reliability tables.

    Args:
        labels: true codes, shape (images,).
        before: the ensemble's probabilities, shape (images, classes).
        after: the same after a calibration that was fitted on other groups.
        method: how they were calibrated.

    Returns:
        A JSON-able dict, and the rows of ensemble/reliability.csv.
    """
    everyone = np.zeros(len(labels), np.int64)
    summary: dict[str, Any] = {"method": method}
    tables = []
    for name, probabilities in (("before", before), ("after", after)):
        points = scores(group_sums(labels, probabilities, everyone, probabilities.shape[1]))
        summary[name] = {metric: points[metric] for metric in ("log_loss", "brier", "ece")}
        tables.append(reliability(labels, probabilities).assign(calibration=name))
    return summary, pd.concat(tables, ignore_index=True)


def read_timings(paths: Iterable[str | Path]) -> dict[MemberKey, dict[str, float]]:
    """Read the members' timings.

    Args:
        paths: files `<results>/timings/<stage>/model=<m>/fold=<k>.json` that hold {"seconds": float, ...}.

    Returns:
        For each (model, fold) the seconds of each stage: train, oof, reserve, test.

    Raises:
        UserError: if a file is missing, lies elsewhere, or its seconds are no finite number from 0 up.
    """
    timings: dict[MemberKey, dict[str, float]] = {}
    faults: list[str] = []
    for path in sorted(Path(path) for path in paths):
        try:
            content, key = read_json(path), member_of(path)
        except UserError as error:
            faults += error.faults
            continue
        seconds = content.get("seconds") if isinstance(content, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            faults.append(f"{path}: seconds is {seconds!r}, not a number from 0 up; delete the file and run again")
            continue
        timings.setdefault(key, {})[path.parent.parent.name] = float(seconds)
    raise_all(faults)
    return timings


def make_leaderboard(metrics: Mapping[str, Any], costs: Costs) -> pd.DataFrame:
    """Make the leaderboard.

    Args:
        metrics: the content of ensemble/metrics.json.
        costs: seconds of each stage and megabytes of weights of each member.

    Returns:
        Texts with the columns COLUMNS, RESERVE_COLUMNS where there is a reserve, TEST_COLUMNS where the test answers
        are known, COST_COLUMNS, and GUEST_COLUMNS where there are guests. Rows: the ensemble; the methods (kind `vote`)
        in order of complexity; the models, the factor product (kind `product`) and the guests (kind `guest`) by falling
        macro-F1; the members by model and fold. Scores of methods are nested; `optimistic_macro_f1` is that on the
        images that a method was fitted on. Low and high are the ends of the 95 % interval over groups;
        `macro_f1_over_folds` is the standard deviation over a model's members. Scores have 6 decimals, seconds 2; what
        is not known is empty, such as all costs of a guest. Seconds and megabytes of a model, a method and the ensemble
        are sums over their members. `suspicion` says why a guest may have seen the images that it predicts.
    """
    oof, kept_out, test = metrics["oof"], metrics.get("reserve"), metrics.get("test")
    members = [(model, int(fold)) for model, by_fold in oof["members"].items() for fold in by_fold]
    guests = metrics.get("guests", {})
    models = sorted(oof["models"], key=lambda model: (-oof["models"][model]["macro_f1"], model))
    rows = [_row("ensemble", "", "", oof["ensemble"], members, costs, _other(kept_out, test, "ensemble"))]
    rows += [
        _row("vote", kind, "", oof["votes"][kind], members, costs, _other(kept_out, test, "votes", kind))
        for kind in simplest_first(oof["votes"])
    ]
    for model in models:
        its_members = [key for key in members if key[0] in (model, *model.split(PRODUCT_SIGN))]
        kind = "product" if PRODUCT_SIGN in model else "guest" if model in guests else "model"
        model_score = oof["models"][model] | _score_spread(oof["members"].get(model, {}))
        rows.append(_row(kind, model, "", model_score, its_members, costs, _other(kept_out, test, "models", model)))
        if model in guests:
            rows[-1]["suspicion"] = "; ".join(guests[model]["suspicions"])
    for model, fold in sorted(members):
        member_score = oof["members"][model][str(fold)]
        rows.append(_row("member", model, str(fold), member_score, [(model, fold)], costs, {}))
    columns = COLUMNS + (RESERVE_COLUMNS if kept_out else ()) + (TEST_COLUMNS if test else ())
    columns += COST_COLUMNS + (GUEST_COLUMNS if guests else ())
    return pd.DataFrame(rows, columns=list(columns), dtype="str").fillna("")


def summary(leaderboard: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    """A table in plain text for the end of a run: the ensemble, each method and each model.

    Args:
        leaderboard: from `make_leaderboard`, or leaderboard.csv read as texts.
        metrics: the content of ensemble/metrics.json.
    """
    rows = leaderboard[leaderboard["kind"] != "member"]
    folds = leaderboard.loc[leaderboard["kind"] == "member", "model"].value_counts()
    learnt = {model: scored.get("factors_learnt") for model, scored in metrics["oof"]["models"].items()}
    names = [
        f"ensemble ({metrics['chosen']})"
        if kind == "ensemble"
        else f"vote {name}"
        if kind == "vote"
        else f"{name} (guest{', suspicious' if metrics['guests'][name]['suspicions'] else ''})"
        if kind == "guest"
        else _model_label(name, folds.get(name), learnt[name])
        for kind, name in zip(rows["kind"], rows["model"], strict=True)
    ]
    spans = zip(_rounded(rows["macro_f1_low"], 3), _rounded(rows["macro_f1_high"], 3), strict=True)
    shown = {
        "": names,
        "macro-F1": _rounded(rows["macro_f1"], 4),
        "95 % of persons": [f"{low} to {high}" for low, high in spans],
        "optimistic": _rounded(rows["optimistic_macro_f1"], 4),
        "accuracy": _rounded(rows["accuracy"], 4),
        "log-loss": _rounded(rows["log_loss"], 4),
        "ECE": _rounded(rows["ece"], 3),
    }
    if "test_macro_f1" in leaderboard:
        shown["test macro-F1"] = _rounded(rows["test_macro_f1"], 4)
        shown["test accuracy"] = _rounded(rows["test_accuracy"], 4)
    if "reserve_macro_f1" in leaderboard:
        spans = zip(_rounded(rows["reserve_macro_f1_low"], 3), _rounded(rows["reserve_macro_f1_high"], 3), strict=True)
        shown["reserve macro-F1"] = _rounded(rows["reserve_macro_f1"], 4)
        shown["95 % of its persons"] = [f"{low} to {high}" for low, high in spans]
    shown["fit s"] = _rounded(rows["fit_seconds"], 1)
    shown["predict s"] = _rounded(rows["predict_seconds"], 1)
    head = f"out-of-fold scores: {_count(metrics['images'], 'image')}, {_count(len(metrics['classes']), 'class')}"
    doubts = [
        f"guest {name}: {text}: it may have seen the images that it predicts"
        for name, guest in metrics.get("guests", {}).items()
        for text in guest["suspicions"]
    ]
    return "\n".join([head, *align_columns(shown), *doubts])


def _calibrated_scores(
    rows: EvaluationRows, probabilities: Floats, label_space: LabelSpace, factors: Sequence[str] | None, seed: int
) -> dict[str, float]:
    """Log-loss, Brier score and calibration error after a temperature that is fitted on other groups."""
    drawn = subsample(len(probabilities), rows.groups, seed)
    own_space, before = own_classes(probabilities[drawn], factors, label_space)
    rows = rows.rows(drawn)
    labels = _own_labels(rows.labels, factors, label_space)
    after = calibrate_nested(before, labels, outer_folds(rows.folds, rows.groups, seed))
    points = scores(group_sums(labels, after, np.zeros(len(labels), np.int64), len(own_space.classes)))
    return {metric: points[metric] for metric in ("log_loss", "brier", "ece")}


def _own_labels(labels: Codes, factors: Sequence[str] | None, label_space: LabelSpace) -> Codes:
    """Labels as codes of the classes of some factors; None: as they are."""
    return label_space.restricted(factors)[1][labels] if factors else labels


def intervals_of(drawn: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, list[float]]:
    """The 95 % interval of each score from its bootstrap draws.

    Args:
        drawn: by metric float64 (draws,).
    """
    return {metric: [round(end, 6) for end in interval(drawn[metric])] for metric in METRICS}


def _row(
    kind: str,
    model: str,
    fold: str,
    score: Mapping[str, Any],
    members: Sequence[MemberKey],
    costs: Costs,
    other: Mapping[str, float],
) -> dict[str, str]:
    low, high = score["intervals"]["macro_f1"]
    values = {name: score[name] for name in SCORES} | {"macro_f1_low": low, "macro_f1_high": high}
    values |= {name: score[name] for name in ("macro_f1_over_folds", "temperature") if name in score}
    if "optimistic" in score:
        values["optimistic_macro_f1"] = score["optimistic"]["macro_f1"]
    values |= other
    row = {"kind": kind, "model": model, "fold": fold, "images": str(score["images"])}
    row |= {name: f"{value:.6f}" for name, value in values.items()}
    summed = {
        "fit_seconds": _sum(members, costs, ("train",)),
        "predict_seconds": _sum(members, costs, ("oof", "reserve", "test")),
        "megabytes": _sum(members, costs, ("megabytes",)),
    }
    return row | {name: "" if value is None else f"{value:.2f}" for name, value in summed.items()}


def _other(reserve: Mapping[str, Any] | None, test: Mapping[str, Any] | None, *place: str) -> dict[str, float]:
    """The columns of one row that hold scores on the reserve and on the test images."""
    values: dict[str, float] = {}
    if reserve is not None:
        found = _at(reserve, place)
        values |= {f"reserve_{name}": found[name] for name in RESERVE_SCORES}
        for name in ("macro_f1", "accuracy"):
            values[f"reserve_{name}_low"], values[f"reserve_{name}_high"] = found["intervals"][name]
    if test is not None:
        found = _at(test, place)
        values |= {f"test_{name}": found[name] for name in ("macro_f1", "accuracy")}
    return values


def _at(nested: Mapping[str, Any], place: Sequence[str]) -> Mapping[str, Any]:
    for name in place:
        nested = nested[name]
    return nested


def _score_spread(members: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The standard deviation of macro-F1 over a model's members, where there are two or more."""
    values = [score["macro_f1"] for score in members.values()]
    return {"macro_f1_over_folds": statistics.stdev(values)} if len(values) > 1 else {}


def _sum(members: Sequence[MemberKey], costs: Costs, names: Sequence[str]) -> float | None:
    """The sum of some costs over members; None where there is no member or one lacks the first of them."""
    by_member = [costs.get(key, {}) for key in members]
    if not by_member or not all(names[0] in cost for cost in by_member):
        return None
    return sum(cost.get(name, 0.0) for cost in by_member for name in names)


def _model_label(model: str, folds: int | None, factors: Sequence[str] | None) -> str:
    """`lite0 (5 folds)`, `masks (5 folds, mask alone)`; the factor product by its name alone."""
    if folds is None:
        return model
    return f"{model} ({_count(folds, 'fold')}{', ' + ' and '.join(factors) + ' alone' if factors else ''})"


def _rounded(values: Iterable[str], decimals: int) -> list[str]:
    return [f"{float(value):.{decimals}f}" if value else "-" for value in values]


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"

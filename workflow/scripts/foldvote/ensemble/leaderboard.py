"""The leaderboard: every method and model with its scores, their intervals, and what it cost."""

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
from foldvote.ensemble.selection import EvaluationRows, MethodComparison, nested_parts
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.bootstrap import METRICS, GroupSums, bootstrap, group_sums, interval, scores
from foldvote.evaluation.calibration import calibrate_nested, fit_temperature, reliability
from foldvote.evaluation.metrics import score
from foldvote.io.files import read_json
from foldvote.io.paths import MemberKey, member_of
from foldvote.io.text_table import align_columns

SCORES = ("macro_f1", "accuracy", "log_loss", "ece")
COLUMNS = (
    *("kind", "model", "fold", "images", "macro_f1", "macro_f1_low", "macro_f1_high", "macro_f1_over_folds"),
    *("optimistic_macro_f1", "accuracy", "log_loss", "ece", "temperature"),
)
TEST_COLUMNS = ("test_macro_f1", "test_accuracy")
COST_COLUMNS = ("fit_seconds", "predict_seconds", "megabytes")
Costs = Mapping[MemberKey, Mapping[str, float]]


def read_timings(paths: Iterable[str | Path]) -> dict[MemberKey, dict[str, float]]:
    """Read the members' timings.

    Args:
        paths: files `<results>/timings/<stage>/model=<m>/fold=<k>.json` that hold {"seconds": float, ...}.

    Returns:
        For each (model, fold) the seconds of each stage: train, oof, test.

    Raises:
        UserError: if a file is missing, lies elsewhere, or its seconds are no finite number from 0 up.
    """
    timings: dict[MemberKey, dict[str, float]] = {}
    faults: list[str] = []
    for path in sorted(Path(path) for path in paths):
        try:
            content, key = read_json(path), member_of(path)
        except UserError as refusal:
            faults += refusal.faults
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
        Texts, columns COLUMNS, TEST_COLUMNS where the test answers are known, and COST_COLUMNS: the ensemble, then the
        kinds of votes from the simplest on, then models (and the product of those of some factors, kind `product`) by
        falling macro-F1, then members by model and fold. Scores are nested, `optimistic_macro_f1` is that of a vote on
        the images that it was fitted on; low and high are the ends of the 95 % interval over persons,
        `macro_f1_over_folds` is the standard deviation of a model's members. Scores have 6 decimals, seconds 2; what
        is unknown is empty. Seconds and megabytes of a model, a vote and the ensemble are the sums over their members.
    """
    oof, test = metrics["oof"], metrics.get("test")
    members = [(model, int(fold)) for model, own in oof["members"].items() for fold in own]
    models = sorted(oof["models"], key=lambda model: (-oof["models"][model]["macro_f1"], model))
    rows = [_row("ensemble", "", "", oof["ensemble"], members, costs, test and test["ensemble"])]
    rows += [
        _row("vote", kind, "", oof["votes"][kind], members, costs, test and test["votes"][kind])
        for kind in simplest_first(oof["votes"])
    ]
    for model in models:
        own = [key for key in members if key[0] in (model, *model.split(PRODUCT_SIGN))]
        kind = "product" if PRODUCT_SIGN in model else "model"
        own_score = oof["models"][model] | _spread(oof["members"].get(model, {}))
        rows.append(_row(kind, model, "", own_score, own, costs, test and test["models"][model]))
    for model, fold in sorted(members):
        own_score = oof["members"][model][str(fold)]
        rows.append(_row("member", model, str(fold), own_score, [(model, fold)], costs, None))
    columns = COLUMNS + (TEST_COLUMNS if test else ()) + COST_COLUMNS
    return pd.DataFrame(rows, columns=list(columns), dtype="str").fillna("")


def summary(leaderboard: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    """A few lines of plain text for the end of a run: the ensemble, each vote and each model, aligned.

    Args:
        leaderboard: as `make_leaderboard` gives it, or leaderboard.csv read as texts.
        metrics: the content of ensemble/metrics.json.
    """
    rows = leaderboard[leaderboard["kind"] != "member"]
    folds = leaderboard.loc[leaderboard["kind"] == "member", "model"].value_counts()
    learnt = {model: own.get("factors_learnt") for model, own in metrics["oof"]["models"].items()}
    names = [
        f"ensemble ({metrics['chosen']})"
        if kind == "ensemble"
        else f"vote {name}"
        if kind == "vote"
        else _named(name, folds.get(name), learnt[name])
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
    shown["fit s"] = _rounded(rows["fit_seconds"], 1)
    shown["predict s"] = _rounded(rows["predict_seconds"], 1)
    head = f"out-of-fold scores: {_count(metrics['images'], 'image')}, {_count(len(metrics['classes']), 'class')}"
    return "\n".join([head, *align_columns(shown)])


def _row(
    kind: str,
    model: str,
    fold: str,
    score: Mapping[str, Any],
    members: Sequence[MemberKey],
    costs: Costs,
    test: Mapping[str, Any] | None,
) -> dict[str, str]:
    low, high = score["intervals"]["macro_f1"]
    values = {name: score[name] for name in SCORES} | {"macro_f1_low": low, "macro_f1_high": high}
    values |= {name: score[name] for name in ("macro_f1_over_folds", "temperature") if name in score}
    if "optimistic" in score:
        values["optimistic_macro_f1"] = score["optimistic"]["macro_f1"]
    if test:
        values |= {f"test_{name}": test[name] for name in ("macro_f1", "accuracy")}
    row = {"kind": kind, "model": model, "fold": fold, "images": str(score["images"])}
    row |= {name: f"{value:.6f}" for name, value in values.items()}
    summed = {
        "fit_seconds": _sum(members, costs, ("train",)),
        "predict_seconds": _sum(members, costs, ("oof", "test")),
        "megabytes": _sum(members, costs, ("megabytes",)),
    }
    return row | {name: "" if value is None else f"{value:.2f}" for name, value in summed.items()}


def _spread(members: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The standard deviation of macro-F1 over a model's members, where there are two or more."""
    own = [score["macro_f1"] for score in members.values()]
    return {"macro_f1_over_folds": statistics.stdev(own)} if len(own) > 1 else {}


def _sum(members: Sequence[MemberKey], costs: Costs, names: Sequence[str]) -> float | None:
    """The sum of some costs over members; None where one lacks the first of them."""
    own = [costs.get(key, {}) for key in members]
    if not all(names[0] in cost for cost in own):
        return None
    return sum(cost.get(name, 0.0) for cost in own for name in names)


def _named(model: str, folds: int | None, factors: Sequence[str] | None) -> str:
    """`lite0 (5 folds)`, `masks (5 folds, mask alone)`, and the product of models by its name."""
    if folds is None:
        return model
    return f"{model} ({_count(folds, 'fold')}{', ' + ' and '.join(factors) + ' alone' if factors else ''})"


def _rounded(values: Iterable[str], decimals: int) -> list[str]:
    return [f"{float(value):.{decimals}f}" if value else "-" for value in values]


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"


Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
_MOST_TEMPERED = 20_000  # images: one number needs no more


def score_with_intervals(
    images: EvaluationRows,
    probabilities: Floats,
    scheme: LabelSpace,
    factors: Sequence[str] | None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """All scores of some predictions, with 95 % intervals from a bootstrap over persons.

    Args:
        images: the images' labels (of the whole task's classes) and persons.
        probabilities: of the whole task's classes, shape (images, classes).
        scheme: the task's classes.
        factors: those that the model learns; it is scored on their classes alone. None: on all.
        draws: number of draws.
        seed: the run's seed.

    Returns:
        As `metrics.score` gives it, and `brier`, `ece` and `intervals`; `temperature`, which would calibrate them
        (above 1: surer than right); `factors_learnt` where only some are.
    """
    own, said = own_classes(probabilities, factors, scheme)
    labels = scheme.restricted(factors)[1][images.labels] if factors else images.labels
    sums = group_sums(labels, said, images.groups, len(own.classes))
    found = score(labels, said, own) | with_intervals(sums, draws, seed)
    found["temperature"] = round(fit_temperature(said, labels, _MOST_TEMPERED), 4)
    return found | ({"factors_learnt": list(factors)} if factors else {})


def with_intervals(sums: GroupSums, draws: int, seed: int) -> dict[str, Any]:
    """`brier`, `ece`, and `intervals`: low and high end of each score."""
    drawn, points = bootstrap({"": sums}, draws, seed)[""], scores(sums)
    spans = {metric: [round(end, 6) for end in interval(drawn[metric])] for metric in METRICS}
    return {"brier": points["brier"], "ece": points["ece"], "intervals": spans}


def method_scores(contest: MethodComparison) -> dict[str, dict[str, Any]]:
    """Each kind of vote: its nested scores with intervals, the optimistic ones, and the comparison with the chosen."""
    return {
        kind: {
            "images": contest.images,
            **entry.nested,
            "intervals": {metric: [round(end, 6) for end in interval(entry.draws[metric])] for metric in METRICS},
            "optimistic": entry.optimistic,
            "against_chosen": contest.against[kind]._asdict(),
        }
        for kind, entry in contest.entries.items()
    }


def model_scores(
    gathered: ModelPredictions, images: EvaluationRows, scheme: LabelSpace, draws: int, seed: int
) -> dict[str, Any]:
    """Each model's scores over all its folds, and once more after a temperature of its own."""
    found = {}
    for model in gathered.models:
        said, factors = gathered.mean_of(model), gathered.learnt[model]
        found[model] = score_with_intervals(images, said, scheme, factors, draws, seed)
        found[model]["calibrated"] = _calibrated(images, said, scheme, factors, seed)
    return found


def _calibrated(
    images: EvaluationRows, said: Floats, scheme: LabelSpace, factors: Sequence[str] | None, seed: int
) -> dict[str, float]:
    """Log-loss, Brier score and calibration error after a temperature that is fitted on other persons."""
    drawn = subsample(len(said), images.groups, seed)
    own, before = own_classes(said[drawn], factors, scheme)
    some = images.rows(drawn)
    labels = scheme.restricted(factors)[1][some.labels] if factors else some.labels
    after = calibrate_nested(before, labels, nested_parts(some.folds, some.groups, seed))
    points = scores(group_sums(labels, after, np.zeros(len(labels), np.int64), len(own.classes)))
    return {metric: points[metric] for metric in ("log_loss", "brier", "ece")}


def calibration_scores(
    labels: Codes, before: Floats, after: Floats, method: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Log-loss, Brier score and expected calibration error before and after calibration, and reliability tables.

    Args:
        labels: true codes, shape (images,).
        before: the vote's probabilities, shape (images, classes).
        after: the same after calibration on other persons.
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

"""The leaderboard: one row for the ensemble, each vote, model and member, with scores and costs."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from foldvote.errors import Refusal, refuse_all
from foldvote.files import read_json
from foldvote.predictions import Key, member_of
from foldvote.voices import TIMES
from foldvote.votes import simplest_first

SCORES = ("macro_f1", "accuracy", "log_loss", "ece")
COLUMNS = (
    *("kind", "model", "fold", "images", "macro_f1", "macro_f1_low", "macro_f1_high", "macro_f1_over_folds"),
    *("optimistic_macro_f1", "accuracy", "log_loss", "ece", "temperature"),
)
TEST_COLUMNS = ("test_macro_f1", "test_accuracy")
COST_COLUMNS = ("fit_seconds", "predict_seconds", "megabytes")
Costs = Mapping[Key, Mapping[str, float]]


def read_timings(paths: Iterable[str | Path]) -> dict[Key, dict[str, float]]:
    """Read the members' timings.

    Args:
        paths: files `<results>/timings/<stage>/model=<m>/fold=<k>.json` that hold {"seconds": float, ...}.

    Returns:
        For each (model, fold) the seconds of each stage: train, oof, test.

    Raises:
        Refusal: if a file is missing, lies elsewhere, or its seconds are no finite number from 0 up.
    """
    timings: dict[Key, dict[str, float]] = {}
    faults: list[str] = []
    for path in sorted(Path(path) for path in paths):
        try:
            content, key = read_json(path), member_of(path)
        except Refusal as refusal:
            faults += refusal.faults
            continue
        seconds = content.get("seconds") if isinstance(content, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            faults.append(f"{path}: seconds is {seconds!r}, not a number from 0 up; delete the file and run again")
            continue
        timings.setdefault(key, {})[path.parent.parent.name] = float(seconds)
    refuse_all(faults)
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
        own = [key for key in members if key[0] in (model, *model.split(TIMES))]
        kind = "product" if TIMES in model else "model"
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
    return "\n".join([head, *aligned(shown)])


def aligned(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of a table, from its columns by their heads: the first column to the left, others to the right."""
    widths = [max(map(len, (head, *cells))) for head, cells in columns.items()]
    lines = []
    for cells in [tuple(columns), *zip(*columns.values(), strict=True)]:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return lines


def _row(
    kind: str,
    model: str,
    fold: str,
    score: Mapping[str, Any],
    members: Sequence[Key],
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


def _sum(members: Sequence[Key], costs: Costs, names: Sequence[str]) -> float | None:
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

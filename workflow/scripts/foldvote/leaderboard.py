"""The leaderboard: one row for the ensemble, each model and each member, with scores and seconds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from foldvote.errors import Refusal, refuse_all
from foldvote.files import read_json
from foldvote.predictions import Key, member_of
from foldvote.voices import TIMES

COLUMNS = ("kind", "model", "fold", "images", "macro_f1", "accuracy", "log_loss", "fit_seconds", "predict_seconds")
TEST_COLUMNS = ("test_macro_f1", "test_accuracy")
Timings = Mapping[Key, Mapping[str, float]]


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


def make_leaderboard(metrics: Mapping[str, Any], timings: Timings) -> pd.DataFrame:
    """Make the leaderboard.

    Args:
        metrics: the content of ensemble/metrics.json.
        timings: as `read_timings` gives them.

    Returns:
        Texts, columns COLUMNS and, where the test answers are known, TEST_COLUMNS: the ensemble, then models (and
        the product of those of some factors, kind `product`) by falling macro-F1, then members by model and fold.
        Scores have 6 decimals, seconds 2; what is unknown is empty.
        The seconds of a model and of the ensemble are the sums over their members.
    """
    oof, test = metrics["oof"], metrics.get("test")
    members = [(model, int(fold)) for model, own in oof["members"].items() for fold in own]
    models = sorted(oof["models"], key=lambda model: (-oof["models"][model]["macro_f1"], model))
    rows = [_row("ensemble", "", "", oof["ensemble"], members, timings, test and test["ensemble"])]
    for model in models:
        own = [key for key in members if key[0] in (model, *model.split(TIMES))]
        kind = "product" if TIMES in model else "model"
        rows.append(_row(kind, model, "", oof["models"][model], own, timings, test and test["models"][model]))
    for model, fold in sorted(members):
        own_score = oof["members"][model][str(fold)]
        rows.append(_row("member", model, str(fold), own_score, [(model, fold)], timings, None))
    columns = COLUMNS + (TEST_COLUMNS if test else ())
    return pd.DataFrame(rows, columns=list(columns), dtype="str").fillna("")


def summary(leaderboard: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    """A few lines of plain text for the end of a run: the ensemble and each model, aligned.

    Args:
        leaderboard: as `make_leaderboard` gives it, or leaderboard.csv read as texts.
        metrics: the content of ensemble/metrics.json.
    """
    rows = leaderboard[leaderboard["kind"] != "member"]
    folds = leaderboard.loc[leaderboard["kind"] == "member", "model"].value_counts()
    learnt = {model: own.get("factors_learnt") for model, own in metrics["oof"]["models"].items()}
    shown = {
        "": ["ensemble", *(_named(model, folds.get(model), learnt[model]) for model in rows["model"].iloc[1:])],
        "macro-F1": _rounded(rows["macro_f1"], 4),
        "accuracy": _rounded(rows["accuracy"], 4),
        "log-loss": _rounded(rows["log_loss"], 4),
    }
    if "test_macro_f1" in leaderboard:
        shown["test macro-F1"] = _rounded(rows["test_macro_f1"], 4)
        shown["test accuracy"] = _rounded(rows["test_accuracy"], 4)
    shown["fit s"] = _rounded(rows["fit_seconds"], 1)
    shown["predict s"] = _rounded(rows["predict_seconds"], 1)
    widths = [max(map(len, (head, *cells))) for head, cells in shown.items()]
    lines = [f"out-of-fold scores: {_count(metrics['images'], 'image')}, {_count(len(metrics['classes']), 'class')}"]
    for cells in [tuple(shown), *zip(*shown.values(), strict=True)]:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def _row(
    kind: str,
    model: str,
    fold: str,
    score: Mapping[str, Any],
    members: Sequence[Key],
    timings: Timings,
    test: Mapping[str, Any] | None,
) -> dict[str, str]:
    own = [timings.get(key, {}) for key in members]
    fit = sum(seconds["train"] for seconds in own) if all("train" in seconds for seconds in own) else None
    predict = (
        sum(seconds["oof"] + seconds.get("test", 0.0) for seconds in own)
        if all("oof" in seconds for seconds in own)
        else None
    )
    row = {"kind": kind, "model": model, "fold": fold, "images": str(score["images"])}
    row |= {name: f"{score[name]:.6f}" for name in ("macro_f1", "accuracy", "log_loss")}
    row |= {
        "fit_seconds": "" if fit is None else f"{fit:.2f}",
        "predict_seconds": "" if predict is None else f"{predict:.2f}",
    }
    return row | ({f"test_{name}": f"{test[name]:.6f}" for name in ("macro_f1", "accuracy")} if test else {})


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

"""The leaderboard: every method, model and member with its scores, their intervals, and what it cost."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.metric_names import higher_is_better, shown_metric
from foldvote.ensemble.candidates import PRODUCT_SIGN
from foldvote.ensemble.methods import simplest_first
from foldvote.evaluation.metrics import MORE_SCORES
from foldvote.io.paths import MemberKey
from foldvote.io.text_table import align_columns

Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Costs = Mapping[MemberKey, Mapping[str, float]]
DEFAULT = "macro_f1"  # the main metric where the configuration names none
SCORES = ("macro_f1", "accuracy", "log_loss", "ece")
DESCRIBED = ("kind", "model", "fold", "images")
COLUMNS = (
    *(*DESCRIBED, "macro_f1", "macro_f1_low", "macro_f1_high", "macro_f1_over_folds"),
    *("optimistic_macro_f1", "accuracy", "log_loss", "ece", "temperature"),
)
RESERVE_SCORES = ("macro_f1", "accuracy", "log_loss", "ece")
RESERVE_COLUMNS = (
    *("reserve_macro_f1", "reserve_macro_f1_low", "reserve_macro_f1_high"),
    *("reserve_accuracy", "reserve_accuracy_low", "reserve_accuracy_high", "reserve_log_loss", "reserve_ece"),
)
TEST_COLUMNS = ("test_macro_f1", "test_accuracy")
GUEST_COLUMNS = ("suspicion",)
ABLATION = "ablation"  # a model without something that it learnt from
COST_COLUMNS = ("fit_seconds", "predict_seconds", "megabytes")


def leaderboard_columns(main: str, *, has_reserve: bool, has_answers: bool, has_guests: bool) -> tuple[str, ...]:
    """The columns of the leaderboard: those of the main metric first, then all others, each once.

    Args:
        main: the main metric's name in tables; with `macro_f1` there are no columns but those below.
        has_reserve: whether there is a reserve: RESERVE_COLUMNS.
        has_answers: whether the test answers are known: TEST_COLUMNS.
        has_guests: whether there are guests: GUEST_COLUMNS.
    """
    described = len(DESCRIBED)
    reserve = (f"reserve_{main}", f"reserve_{main}_low", f"reserve_{main}_high", *RESERVE_COLUMNS)
    columns = [
        *DESCRIBED,
        *(main, f"{main}_low", f"{main}_high", f"{main}_over_folds", f"optimistic_{main}"),
        *COLUMNS[described:],
        *(reserve if has_reserve else ()),
        *((f"test_{main}", *TEST_COLUMNS) if has_answers else ()),
        *MORE_SCORES,
        *COST_COLUMNS,
        *(GUEST_COLUMNS if has_guests else ()),
    ]
    return tuple(dict.fromkeys(columns))


def make_leaderboard(metrics: Mapping[str, Any], costs: Costs) -> pd.DataFrame:
    """Make the leaderboard.

    Args:
        metrics: the content of ensemble/metrics.json.
        costs: seconds of each stage and megabytes of weights of each member.

    Returns:
        Texts with the columns of `leaderboard_columns`. Rows: the ensemble; the methods (kind `vote`) in order of
        complexity; the models, the factor product (kind `product`) and the guests (kind `guest`), the best by the main
        metric first; the members by model and fold. Below a model that sees metadata stand its scores as if that were
        missing (kind `ablation`, without costs). Scores of methods are nested; `optimistic_macro_f1` is that on the
        images that a method was fitted on. Low and high are the ends of the 95 % interval over groups;
        `macro_f1_over_folds` is the standard deviation over a model's members. Scores have 6 decimals, seconds 2; what
        is not known is empty, such as all costs of a guest. Seconds and megabytes of a model, a method and the ensemble
        are sums over their members. `suspicion` says why a guest may have seen the images that it predicts. `plan` says
        what `runtime.max_hours` left of a model, where it was set.
    """
    oof, kept_out, test = metrics["oof"], metrics.get("reserve"), metrics.get("test")
    members = [(model, int(fold)) for model, by_fold in oof["members"].items() for fold in by_fold]
    guests, hidden = metrics.get("guests", {}), oof.get("without_metadata", {})
    main = metrics.get("metric", DEFAULT)
    sign = -1 if higher_is_better(main) else 1

    def place_of(model: str) -> tuple[float, str]:
        value = oof["models"][model][main]
        return (math.inf if value is None else sign * value), model

    models = sorted(oof["models"], key=place_of)
    others = partial(_other, kept_out, test, main)
    rows = [_row("ensemble", "", "", oof["ensemble"], members, costs, main, others("ensemble"))]
    rows += [
        _row("vote", kind, "", oof["votes"][kind], members, costs, main, others("votes", kind))
        for kind in simplest_first(oof["votes"])
    ]
    for model in models:
        its_members = [key for key in members if key[0] in (model, *model.split(PRODUCT_SIGN))]
        kind = "product" if PRODUCT_SIGN in model else "guest" if model in guests else "model"
        model_score = oof["models"][model] | _score_spread(oof["members"].get(model, {}), main)
        rows.append(_row(kind, model, "", model_score, its_members, costs, main, others("models", model)))
        if model in guests:
            rows[-1]["suspicion"] = "; ".join(guests[model]["suspicions"])
        if model in hidden:
            rows.append(_row(ABLATION, f"{model} without metadata", "", hidden[model], [], costs, main, {}))
    for model, fold in sorted(members):
        member_score = oof["members"][model][str(fold)]
        rows.append(_row("member", model, str(fold), member_score, [(model, fold)], costs, main, {}))
    columns = leaderboard_columns(main, has_reserve=bool(kept_out), has_answers=bool(test), has_guests=bool(guests))
    if plan := metrics.get("plan"):
        columns = (*columns, "plan")
        rows = [row | {"plan": plan.get(row["model"], "")} for row in rows]
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
        else name
        if kind == ABLATION
        else _model_label(name, folds.get(name), learnt[name])
        for kind, name in zip(rows["kind"], rows["model"], strict=True)
    ]
    main = metrics.get("metric", DEFAULT)
    shown = {
        "": names,
        shown_metric(main): _rounded(rows[main], 4),
        "95 % of persons": _spans(rows, main),
        "optimistic": _rounded(rows[f"optimistic_{main}"], 4),
    }
    shown |= {shown_metric(name): _rounded(rows[name], 4) for name in (DEFAULT, "accuracy", "log_loss") if name != main}
    if main != "ece":
        shown["ECE"] = _rounded(rows["ece"], 3)
    if "test_macro_f1" in leaderboard:
        for name in dict.fromkeys((main, DEFAULT, "accuracy")):
            shown[f"test {shown_metric(name)}"] = _rounded(rows[f"test_{name}"], 4)
    if "reserve_macro_f1" in leaderboard:
        shown[f"reserve {shown_metric(main)}"] = _rounded(rows[f"reserve_{main}"], 4)
        shown["95 % of its persons"] = _spans(rows, f"reserve_{main}")
    shown["fit s"] = _rounded(rows["fit_seconds"], 1)
    shown["predict s"] = _rounded(rows["predict_seconds"], 1)
    head = f"out-of-fold scores: {_count(metrics['images'], 'image')}, {_count(len(metrics['classes']), 'class')}"
    doubts = [
        f"guest {name}: {text}: it may have seen the images that it predicts"
        for name, guest in metrics.get("guests", {}).items()
        for text in guest["suspicions"]
    ]
    cut = [f"runtime.max_hours: {name}: {left}" for name, left in (metrics.get("plan") or {}).items()]
    return "\n".join([head, *align_columns(shown), *doubts, *cut])


def _row(
    kind: str,
    model: str,
    fold: str,
    score: Mapping[str, Any],
    members: Sequence[MemberKey],
    costs: Costs,
    main: str,
    other: Mapping[str, float | None],
) -> dict[str, str]:
    values = {name: score.get(name) for name in (main, *SCORES, *MORE_SCORES)}
    for name in (main, DEFAULT):
        values |= _ends(name, name, score)
        values[f"{name}_over_folds"] = score.get(f"{name}_over_folds")
        values[f"optimistic_{name}"] = score.get("optimistic", {}).get(name)
    values |= {"temperature": score.get("temperature"), **other}
    row = {"kind": kind, "model": model, "fold": fold, "images": str(score["images"])}
    row |= {name: f"{value:.6f}" for name, value in values.items() if value is not None}
    summed = {
        "fit_seconds": _sum(members, costs, ("train",)),
        "predict_seconds": _sum(members, costs, ("oof", "reserve", "test")),
        "megabytes": _sum(members, costs, ("megabytes",)),
    }
    return row | {name: "" if value is None else f"{value:.2f}" for name, value in summed.items()}


def _other(
    reserve: Mapping[str, Any] | None, test: Mapping[str, Any] | None, main: str, *place: str
) -> dict[str, float | None]:
    """The columns of one row that hold scores on the reserve and on the test images."""
    values: dict[str, float | None] = {}
    if reserve is not None:
        found = _at(reserve, place)
        values |= {f"reserve_{name}": found[name] for name in (main, *RESERVE_SCORES)}
        for name in (main, DEFAULT, "accuracy"):
            values |= _ends(f"reserve_{name}", name, found)
    if test is not None:
        found = _at(test, place)
        values |= {f"test_{name}": found.get(name) for name in (main, DEFAULT, "accuracy")}
    return values


def _ends(column: str, metric: str, score: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of both ends of a score's interval."""
    low, high = score["intervals"].get(metric) or (None, None)
    return {f"{column}_low": low, f"{column}_high": high}


def _at(nested: Mapping[str, Any], place: Sequence[str]) -> Mapping[str, Any]:
    for name in place:
        nested = nested[name]
    return nested


def _score_spread(members: Mapping[str, Mapping[str, Any]], main: str) -> dict[str, float]:
    """The standard deviation of the main metric and macro-F1 over a model's members, where there are two or more."""
    spread = {}
    for name in (main, DEFAULT):
        values = [score[name] for score in members.values() if score[name] is not None]
        if len(values) > 1:
            spread[f"{name}_over_folds"] = statistics.stdev(values)
    return spread


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


def _spans(rows: pd.DataFrame, column: str) -> list[str]:
    ends = zip(_rounded(rows[f"{column}_low"], 3), _rounded(rows[f"{column}_high"], 3), strict=True)
    return [f"{low} to {high}" for low, high in ends]


def _rounded(values: Iterable[str], decimals: int) -> list[str]:
    return [f"{float(value):.{decimals}f}" if value else "-" for value in values]


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"

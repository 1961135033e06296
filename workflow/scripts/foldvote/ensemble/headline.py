"""What a single member is worth, what the submitted vote is worth, and how each is known: in words."""

from collections.abc import Mapping
from typing import Any

from foldvote.config.metric_names import shown_metric


def headline(metrics: Mapping[str, Any]) -> list[str]:
    """What a single member and the submitted vote are worth, and how each is known, as lines of plain text.

    Args:
        metrics: the content of ensemble/metrics.json.
    """
    oof, score = metrics["oof"]["ensemble"], metrics.get("metric", "macro_f1")
    shown = shown_metric(score)
    behind = len(metrics["members_curve"]["points"]) if "members_curve" in metrics else 1
    whose = "one member" if behind == 1 else f"{behind} members"
    lines = [f"{whose}: {shown} {_value(oof, score)}, out of fold, on people that they never saw"]
    if "reserve" in metrics:
        found = metrics["reserve"]
        return [
            *lines,
            f"submitted vote: {shown} {_value(found['ensemble'], score)}, on the reserve of "
            f"{found['groups']:,} people that no member saw; looked at {_times(found['looks'])}",
        ]
    if score in metrics.get("members_curve", {}).get("forecast", {}):
        forecast = metrics["members_curve"]["forecast"]
        found = forecast[score]
        return [
            *lines,
            f"submitted vote: {shown} {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}), a forecast "
            f"for {forecast['members']} members from the scores of 1 to {behind}",
        ]
    return [
        *lines,
        "submitted vote: not measured, usually higher than that of one member; to measure it keep people out of all "
        "folds (folds: {reserve: 0.15}), or set folds.repeats",
    ]


def group_headline(group_scores: Mapping[str, Any]) -> str:
    """What one answer per group is worth, as a line of plain text.

    Args:
        group_scores: the content of ensemble/group_scores.json.
    """
    metric = group_scores.get("metric", "macro_f1")
    where = f"{group_scores['groups']:,} groups ({group_scores['on']}, {group_scores['predicted_by']})"
    return (
        f"one answer per group, by {group_scores['chosen']} of its images: {shown_metric(metric)} "
        f"{_value(group_scores['answers'], metric)} over {where}"
    )


def budget_line(record: Mapping[str, Any]) -> str:
    """What is submitted where there is a budget, what it costs, and its score, as a line.

    Args:
        record: the content of ensemble/budget.json.
    """
    score, folds = record["scores"]["macro_f1"], record["folds"]
    behind = record["members_scored"]
    where = "on the reserve" if record["scored_on"] == "reserve" else f"out of fold, with {_members(behind)} per image"
    return (
        f"submission within the budget: {'+'.join(record['models'])}, view {'+'.join(record['views'])}, "
        f"{'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, folds))}; {record['ms_per_image']:.3g} ms per "
        f"image, {record['megabytes']:.3g} megabytes; macro-F1 {score['value']:.3f} ({score['low']:.3f} to "
        f"{score['high']:.3f}) {where}"
    )


def refit_line(record: Mapping[str, Any]) -> str:
    """What networks of all groups are expected to score, as a line.

    Args:
        record: the content of refit/forecast.json.
    """
    forecasts, groups = record["forecasts"]["refit"], record["groups"]
    shown = shown_metric(record["metric"])
    if record["metric"] not in forecasts:
        return f"refit on all {groups['all']:,} groups: {shown} is not defined for a forecast"
    found = forecasts[record["metric"]]
    low, high = found.get("on_test", (None, None))
    test = "" if low is None else f", on a test set of this size {low:.3f} to {high:.3f}"
    return (
        f"refit on all {groups['all']:,} groups, {_networks(record['networks'])} of each model: {shown} "
        f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}{test}), a "
        f"forecast from the learning curve: {found['measured_by_folds']:.3f} of one network on "
        f"{groups['of_a_fold']:,.0f} groups, {found['from_more_groups']:+.3f} by more groups, "
        f"{found['from_averaging']:+.3f} by averaging"
    )


def _networks(number: int) -> str:
    return "one network" if number == 1 else f"{number} networks"


def _members(number: int) -> str:
    return "one member of each model" if number == 1 else f"{number} members of each model"


def _value(scored: Mapping[str, Any], metric: str) -> str:
    """A score with its interval; an own metric, or one that needs every class, may not be defined."""
    if scored[metric] is None or scored["intervals"][metric] is None:
        return "not defined"
    low, high = scored["intervals"][metric]
    return f"{scored[metric]:.3f} ({low:.3f} to {high:.3f})"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"

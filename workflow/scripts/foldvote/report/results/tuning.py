"""What the report shows of a recipe search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from foldvote.config.metric_names import shown_metric
from foldvote.report.html import Table, table
from foldvote.report.svg import inline_svg
from foldvote.report.tuning_figures import figures
from foldvote.tuning.trials import COMPLETE, PARAM, read_trials

_ALT_TEXTS = {
    "history": "Points: the score of each trial. Line: the best score so far.",
    "importance": "Bars: the importance of each key for the score.",
    "slices": "Points: the score against each key.",
    "parallel": "Lines: parallel coordinates of the completed trials, from their values to their scores.",
}


def search_summary(path: Path) -> dict[str, Any]:
    """What the page shows of a search: its record, numbers of trials by state, scores, figures and a table of trials.

    Args:
        path: tune/trials.parquet.

    Raises:
        UserError: if the file is missing or damaged.
    """
    trials, record = read_trials(path)
    drawings = {name: inline_svg(figure, _ALT_TEXTS[name]) for name, figure in figures(trials, record).items()}
    return {
        "record": record,
        "score": shown_metric(record["score"]),
        "counts": trials["state"].value_counts().to_dict(),
        "best": trials.loc[trials["number"] == record["best"], "score"].iloc[0],
        "unchanged": [*trials.loc[trials["as_it_stands"] & (trials["state"] == COMPLETE), "score"]],
        "figures": drawings,
        "table": _table(trials, record),
    }


def _table(trials: pd.DataFrame, record: Mapping[str, Any]) -> Table:
    keys = [PARAM + key for key in record["space"]]
    shown = trials[["number", "state", "score", *keys, "epochs", "seconds"]]
    shown = shown.sort_values("score", ascending=not record["higher_is_better"], kind="stable", na_position="last")
    return table(
        shown,
        "Trials, the best first",
        formats={"score": ".4f", "seconds": ",.1f"},
        labels={PARAM + key: key for key in record["space"]} | {"score": shown_metric(record["score"])},
        hints={"score": "Out of fold, over all folds of the search, after the last epoch"},
    )

"""What the report shows of a search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from foldvote.report.html import Table, table
from foldvote.report.svg import inline_svg
from foldvote.report.tuning_figures import figures, score_name
from foldvote.tuning.trials import COMPLETE, PARAM, read_trials

_DESCRIBED = {
    "history": "Points: the score of each trial, and a line at the best so far.",
    "importance": "Bars: the share of each key in how scores differ.",
    "slices": "Points: the score against each key.",
    "parallel": "Lines: each completed trial over all keys to its score.",
}


def search_shown(path: Path) -> dict[str, Any]:
    """A search for the page: its record, the numbers of trials by state, figures by name, and a table of its trials.

    Args:
        path: tune/trials.parquet.

    Raises:
        UserError: if it is missing or damaged.
    """
    trials, record = read_trials(path)
    drawings = {name: inline_svg(figure, _DESCRIBED[name]) for name, figure in figures(trials, record).items()}
    return {
        "record": record,
        "score": score_name(record["score"]),
        "counts": trials["state"].value_counts().to_dict(),
        "best": trials.loc[trials["number"] == record["best"], "score"].iloc[0],
        "stood": [*trials.loc[trials["as_it_stands"] & (trials["state"] == COMPLETE), "score"]],
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
        labels={PARAM + key: key for key in record["space"]} | {"score": score_name(record["score"])},
        hints={"score": "Of all out-of-fold predictions of the folds searched on, after the last epoch"},
    )

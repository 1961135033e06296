"""Cost against score as a table and a figure, and the vote that fits a budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from foldvote.config.ensemble import Vote
from foldvote.data.label_space import read_label_space
from foldvote.ensemble.budget import (
    budget_record,
    choose_in_budget,
    honest_scores,
    members_to_submit,
    predict_budget,
)
from foldvote.ensemble.frontier import SHOWN, frontier_table, score_subsets
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.ensemble.single_members import read_prices, read_single_members
from foldvote.evaluation.bootstrap import BETTER
from foldvote.evaluation.vote_table import votes_schema
from foldvote.io.csv_files import write_csv
from foldvote.io.files import write_json
from foldvote.io.parquet import write_table
from foldvote.report.svg import FAINT, LINE, PAPER, SERIES, figure_style, new_figure, save_svg
from foldvote.runtime.job_log import log
from foldvote.splits.folds import read_folds

_NAMES = {"macro_f1": "macro-F1", "accuracy": "accuracy", "log_loss": "log-loss (lower is better)"}
_FEW_DECADES = 2.5
_AXES = {"ms_per_image": "milliseconds per image", "megabytes": "megabytes of weights"}


@dataclass(frozen=True)
class FrontierFiles:
    """The files that are written.

    Attributes:
        table: ensemble/frontier.csv.
        figure: ensemble/frontier.svg.
        budget: ensemble/budget.json: the vote that fits the budget; None without a budget.
        votes: ensemble/budget.parquet: its predictions of the test images, with the columns of ensemble/test.parquet;
            None without a budget or without test images.
    """

    table: Path
    figure: Path
    budget: Path | None = None
    votes: Path | None = None


def write_frontier(
    inputs: EnsembleInputs, files: FrontierFiles, expected: Mapping[str, int], settings: Vote, seed: int
) -> None:
    """Score and price subsets of models, folds and views; choose and apply the best one in the budget, if there is one.

    Args:
        inputs: predictions of the reserve or, where there is none, those out of fold; of the test images where there
            is a budget; timings of predictions; weights; the split and the classes.
        files: the files that are written.
        expected: number of folds of each model.
        settings: the `vote` section. A score that is not in SHOWN, such as ROC AUC, is replaced by macro-F1.
        seed: the run's seed.

    Raises:
        UserError: if inputs are missing or do not fit each other, or nothing fits the budget; then nothing is written.
    """
    if settings.score not in SHOWN:
        log(f"frontier: subsets are compared by macro-F1, as they are not priced by {settings.score}")
        settings = settings.model_copy(update={"score": "macro_f1"})
    label_space = read_label_space(inputs.classes)
    single = read_single_members(inputs, expected, label_space, seed)
    prices = read_prices(inputs.timings, inputs.weights, len(single.views))
    scored = score_subsets(single, prices, settings.score, seed)
    table = frontier_table(scored, single.part, settings.score, settings.draws, seed)
    budget = settings.budget
    if budget is not None and files.budget is not None:
        chosen = choose_in_budget(scored, budget, settings.score)
        count = next(iter(expected.values()))
        folds = members_to_submit(single, chosen.subset, prices, budget, count, seed)
        record = budget_record(chosen, single, folds, prices, settings, honest_scores(scored, budget, settings, seed))
        if files.votes is not None:
            split_sha256 = read_folds(inputs.folds, inputs.certificate)[1]
            frame, record["calibration"] = predict_budget(
                single, chosen.subset, folds, inputs.test, dict(expected), split_sha256, settings
            )
            schema = votes_schema(label_space.classes, labelled=False)
            write_table(frame, files.votes, schema, ("image_id",), {"split_sha256": split_sha256, "vote": "budget"})
        write_json(files.budget, record)
        table["budget"] = [one is chosen for one in scored]
    write_csv(table, files.table)
    save_svg(plot_frontier(table, settings), files.figure)
    log(f"{len(table)} subsets of models, folds and views scored on {single.part}")


def plot_frontier(table: pd.DataFrame, settings: Vote) -> Figure:
    """Score against milliseconds and against megabytes: every subset, and those that no cheaper one beats.

    Args:
        table: rows of ensemble/frontier.csv.
        settings: the `vote` section: its score is drawn, and its budget.
    """
    with figure_style():
        figure = new_figure(10.0, 4.6)
        limits = settings.budget.model_dump() if settings.budget else {}
        for axes, (cost, label) in zip(figure.subplots(1, 2, sharey=True), _AXES.items(), strict=True):
            _plot_costs(axes, table, cost, settings.score)
            axes.set_xlabel(label)
            if limits.get(cost):
                axes.axvline(limits[cost], color=SERIES[5], linewidth=1, linestyle=(0, (3, 2)), label="budget")
        where = "the reserve" if table["scored_on"].iloc[0] == "reserve" else "out-of-fold predictions"
        figure.axes[0].set_ylabel(_NAMES[settings.score])
        figure.axes[0].set_title(f"Subsets of models, folds and views, scored on {where}")
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _plot_costs(axes: Axes, table: pd.DataFrame, cost: str, score: str) -> None:
    """All subsets as dots, the frontier with its intervals, and the marked ones."""
    axes.plot(table[cost], table[score], "o", color=FAINT, markersize=3, alpha=0.6, label="a subset")
    gain = table[score] * (1 if BETTER[score] == "higher" else -1)
    order = np.lexsort((-gain, table[cost]))
    before = np.maximum.accumulate(np.append(-np.inf, gain.iloc[order]))[:-1]
    ahead = table.iloc[order[gain.iloc[order] > before]]
    axes.vlines(ahead[cost], ahead[f"{score}_low"], ahead[f"{score}_high"], color=LINE, linewidth=3)
    axes.plot(ahead[cost], ahead[score], "o", color=SERIES[0], markersize=5, label="no cheaper one is better")
    marks = (("best", "best", SERIES[1], "D"), ("cheapest", "fastest within one standard error", SERIES[2], "s"))
    for column, label, colour, mark in marks:
        some = table[table[column]]
        axes.plot(some[cost], some[score], mark, color=colour, mfc=PAPER, markersize=9, label=label)
    if "budget" in table:
        some = table[table["budget"]]
        axes.plot(some[cost], some[score], "*", color=SERIES[5], markersize=11, label="chosen for the budget")
    if table[cost].min() > 0:
        axes.set_xscale("log")
        # Plain numbers, as the style draws no powers; between the powers of ten where these are few.
        decades = np.log10(table[cost].max() / table[cost].min())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < _FEW_DECADES else (1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())

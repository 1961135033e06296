"""Comparison of finished runs: which one is better, with intervals from a bootstrap over the groups of the split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.metric_names import higher_is_better, metric_fault, shown_metric
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.errors import UserError, first_few
from foldvote.evaluation.intervals import Direction, compare, interval
from foldvote.evaluation.metric_bootstrap import Scored, score_rows
from foldvote.evaluation.metric_registry import Answers, find_metric
from foldvote.evaluation.vote_table import PROBABILITY, votes_schema
from foldvote.io.files import read_json
from foldvote.io.parquet import read_table
from foldvote.io.text_table import align_columns

DRAWS = 2000
SEED = 0
DEFAULT = "macro_f1"


@dataclass(frozen=True)
class Finished:
    """The ensemble's out-of-fold votes of one run.

    Attributes:
        name: the results folder.
        vote: the ensemble method that was used.
        label_space: the classes.
        metric: the main metric.
        votes: the columns of vote_table.votes_schema and the `group` of the split, indexed by image_id.
    """

    name: str
    vote: str
    label_space: LabelSpace
    metric: str
    votes: pd.DataFrame


def compare_runs(folders: Sequence[str], own: Callable[[], str]) -> tuple[str, int]:
    """Compare the ensembles of several results folders on the images that all of them predicted.

    Args:
        folders: the results folders; if empty, only that of `own`.
        own: returns the results folder of the configuration.

    Returns:
        Lines for a terminal, and the exit code: 1 if the runs cannot be compared.
    """
    try:
        return "\n".join(comparison([read_finished(Path(folder)) for folder in folders or [own()]])), 0
    except UserError as error:
        return str(error), 1


def read_finished(folder: Path) -> Finished:
    """Read one finished run.

    Args:
        folder: its results folder.

    Raises:
        UserError: if the folder holds no finished run, or its tables are damaged.
    """
    votes = folder / "ensemble/oof.parquet"
    if not votes.is_file():
        raise UserError(f"{folder}: holds no finished run (no {votes}); run it to its end, or name another folder")
    space, scored = read_label_space(folder / "data/classes.json"), folder / "ensemble/metrics.json"
    table = read_table(votes, votes_schema(space.classes, labelled=True), key=("image_id",)).set_index("image_id")
    table["group"] = _groups(folder / "folds/folds.parquet", table.index)
    metric = read_json(scored).get("metric", DEFAULT) if scored.is_file() else DEFAULT
    return Finished(str(folder), read_json(folder / "ensemble/weights.json").get("kind", "vote"), space, metric, table)


def comparison(runs: Sequence[Finished]) -> list[str]:
    """Compare runs: one line per run from the best on, each against the best one over the same bootstrap draws.

    Args:
        runs: at least one; they are compared on their common images, by the main metric if it is the same for all and
            none of the user's own, else by macro-F1.

    Raises:
        UserError: if their classes differ, they have no image in common, or the label or person of an image differs.
    """
    ids = common_images(runs)
    first = runs[0].votes.loc[ids]
    labels, persons = first["label"].to_numpy(np.int64), common_groups([run.votes for run in runs], ids)
    answers = {}
    for place, run in enumerate(runs):
        own = run.votes.loc[ids]
        probabilities = own[[PROBABILITY + name for name in run.label_space.classes]].to_numpy(np.float64)
        answers[str(place)] = Answers(labels, probabilities, own["prediction"].to_numpy(np.int64))
    metric = _common_metric(runs)
    found = score_rows(answers, persons, runs[0].label_space, [find_metric(metric)], DRAWS, SEED)
    scored = [found[str(place)] for place in range(len(runs))]
    sign = -1 if higher_is_better(metric) else 1
    order = sorted(range(len(runs)), key=lambda place: (sign * scored[place].points[metric], place))
    best = order[0]
    rows = []
    for place in order:
        row = {"run": f"{runs[place].name} ({runs[place].vote})"} | _scores(scored[place], metric)
        against = {"against the best": "", "better": ""}
        rows.append(row | (against if place == best else _against(scored[place], scored[best], metric)))
    shared = f"{len(ids):,} images of {persons.max() + 1:,} persons"
    every = "" if all(len(run.votes) == len(ids) for run in runs) else ", which all of these runs judged"
    end = "better: share of the draws of persons in which a run beats the best; near 50 %, the two cannot be told apart"
    table = align_columns({head: [row[head] for row in rows] for head in rows[0]})
    return [f"out-of-fold, {shared}{every}", *table, *([end] if len(runs) > 1 else [])]


def _common_metric(runs: Sequence[Finished]) -> str:
    """The main metric of all runs; macro-F1 if they differ, or if it is the user's own, whose file may be elsewhere."""
    named = {run.metric for run in runs}
    return named.pop() if len(named) == 1 and not any(map(metric_fault, named)) else DEFAULT


def common_images(runs: Sequence[Finished]) -> list[str]:
    """Ids of the images that all runs have, in the order of the first run."""
    first, faults = runs[0], []
    ids = first.votes.index
    for other in runs[1:]:
        if other.label_space.classes != first.label_space.classes:
            raise UserError(f"{other.name}: has other classes than {first.name}; only runs of one task can be compared")
        ids = ids[ids.isin(other.votes.index)]
    if not len(ids):
        raise UserError(f"{', '.join(run.name for run in runs)}: no image in common; compare runs on the same data")
    for other in runs[1:]:
        for column, what in (("label", "labels"), ("profile", "persons")):
            differing = int((other.votes.loc[ids, column] != first.votes.loc[ids, column]).sum())
            if differing:
                faults.append(
                    f"{other.name}: {what} of {differing:,} images differ from {first.name}; compare runs with equal "
                    "corrections"
                )
    if faults:
        raise UserError(*faults)
    return ids.tolist()


def common_groups(tables: Sequence[pd.DataFrame], ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Codes of the groups of images, int64 (images,).

    Where the splits of runs differ in what they merge, the groups are those of the split that has the fewest.

    Args:
        tables: of each run, with the column group, indexed by image_id.
        ids: the images.
    """
    groups = min((table.loc[ids, "group"] for table in tables), key=lambda own: own.nunique())
    return pd.factorize(groups)[0].astype(np.int64)


def _groups(folds: Path, ids: pd.Index) -> "pd.Series[str]":
    """The group of each image in the split."""
    groups = read_table(folds).drop_duplicates("image_id").set_index("image_id")["group"]
    if lost := sorted(set(ids) - set(groups.index)):
        raise UserError(f"{folds}: lacks images of ensemble/oof.parquet: {first_few(lost)}; run your command again")
    return groups[ids]


def _scores(scored: Scored, metric: str) -> dict[str, str]:
    low, high = interval(scored.draws[metric])
    shown = {shown_metric(metric): f"{scored.points[metric]:.4f}", "95 % of persons": f"{low:.3f} to {high:.3f}"}
    others = {DEFAULT: 4, "accuracy": 4, "log_loss": 4, "ece": 3}
    return shown | {
        shown_metric(name): f"{scored.points[name]:.{decimals}f}" for name, decimals in others.items() if name != metric
    }


def _against(one: Scored, best: Scored, metric: str) -> dict[str, str]:
    ends = (one.points[metric], best.points[metric])
    better: Direction = "higher" if higher_is_better(metric) else "lower"
    found = compare(one.draws[metric], best.draws[metric], better, points=ends)
    return {
        "against the best": f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})",
        "better": f"{found.better:.0%}",
    }

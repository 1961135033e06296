"""Comparison of finished runs: which one is better, with intervals from a bootstrap over persons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.data.label_space import read_label_space
from foldvote.errors import UserError
from foldvote.evaluation.bootstrap import BETTER, bootstrap, compare, group_sums, interval, scores
from foldvote.evaluation.vote_table import PROBABILITY, votes_schema
from foldvote.io.files import read_json
from foldvote.io.parquet import read_table
from foldvote.io.text_table import align_columns

DRAWS = 2000
SEED = 0
SCORE = "macro_f1"


@dataclass(frozen=True)
class Finished:
    """The ensemble's out-of-fold votes of one run.

    Attributes:
        name: the results folder.
        vote: the ensemble method that was used.
        classes: class names in the order of their codes.
        votes: the columns of vote_table.votes_schema, indexed by image_id.
    """

    name: str
    vote: str
    classes: tuple[str, ...]
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
        raise UserError(
            f"{folder}: holds no finished run (no {votes}); give folders that a configuration's results names"
        )
    classes = read_label_space(folder / "data/classes.json").classes
    table = read_table(votes, votes_schema(classes, labelled=True), key=("image_id",)).set_index("image_id")
    return Finished(str(folder), read_json(folder / "ensemble/weights.json").get("kind", "vote"), tuple(classes), table)


def comparison(runs: Sequence[Finished]) -> list[str]:
    """Compare runs: one line per run by decreasing macro-F1, each against the best one over the same bootstrap draws.

    Args:
        runs: at least one; they are compared on their common images.

    Raises:
        UserError: if their classes differ, they have no image in common, or the label or person of an image differs.
    """
    ids = common_images(runs)
    first = runs[0].votes.loc[ids]
    labels, persons = first["label"].to_numpy(np.int64), pd.factorize(first["profile"])[0]
    sums = {}
    for place, run in enumerate(runs):
        own = run.votes.loc[ids]
        probabilities = own[[PROBABILITY + name for name in run.classes]].to_numpy(np.float64)
        sums[place] = group_sums(labels, probabilities, persons, len(run.classes), own["prediction"].to_numpy(np.int64))
    points = {place: scores(own) for place, own in sums.items()}
    drawn = bootstrap({str(place): own for place, own in sums.items()}, DRAWS, SEED)
    order = sorted(points, key=lambda place: (-points[place][SCORE], place))
    best = order[0]
    rows = []
    for place in order:
        row = {"run": f"{runs[place].name} ({runs[place].vote})"} | _scores(points[place], drawn[str(place)])
        rows.append(
            row | ({"against the best": "", "better": ""} if place == best else _against(place, best, points, drawn))
        )
    shared = f"{len(ids):,} images of {persons.max() + 1:,} persons"
    every = "" if all(len(run.votes) == len(ids) for run in runs) else ", which all of these runs judged"
    end = "better: share of the draws of persons in which a run beats the best; near 50 %, the two cannot be told apart"
    table = align_columns({head: [row[head] for row in rows] for head in rows[0]})
    return [f"out-of-fold, {shared}{every}", *table, *([end] if len(runs) > 1 else [])]


def common_images(runs: Sequence[Finished]) -> list[str]:
    """Ids of the images that all runs have, in the order of the first run."""
    first, faults = runs[0], []
    ids = first.votes.index
    for other in runs[1:]:
        if other.classes != first.classes:
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


def _scores(points: dict[str, float], drawn: dict[str, npt.NDArray[np.float64]]) -> dict[str, str]:
    low, high = interval(drawn[SCORE])
    return {
        "macro-F1": f"{points[SCORE]:.4f}",
        "95 % of persons": f"{low:.3f} to {high:.3f}",
        "accuracy": f"{points['accuracy']:.4f}",
        "log-loss": f"{points['log_loss']:.4f}",
        "ECE": f"{points['ece']:.3f}",
    }


def _against(
    place: int, best: int, points: dict[int, dict[str, float]], drawn: dict[str, dict[str, npt.NDArray[np.float64]]]
) -> dict[str, str]:
    ends = (points[place][SCORE], points[best][SCORE])
    found = compare(drawn[str(place)][SCORE], drawn[str(best)][SCORE], BETTER[SCORE], points=ends)
    return {
        "against the best": f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})",
        "better": f"{found.better:.0%}",
    }

"""What public and private leaderboards can say about the rows of finished runs, from resampled persons."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd

from foldvote.commands.compare_runs import DEFAULT, Finished, common_groups, common_images
from foldvote.config.metric_names import metric_fault, shown_metric
from foldvote.ensemble.ensemble_method import Metric
from foldvote.ensemble.row_predictions import RowPredictions, read_rows
from foldvote.errors import UserError, did_you_mean
from foldvote.evaluation.bootstrap import METRICS, GroupSums, group_sums
from foldvote.evaluation.forecast import forecast, simulate_boards
from foldvote.io.parquet import read_table
from foldvote.io.text_table import align_columns

_WIDTH = 100  # of a line of prose
_CHOICES = {
    "known": "the best row here",
    "public": "the leader on public",
    "both": "both, each weighted by its persons",
    "pair": "the best pair",
    "known and public": "the best row here and the leader on public",
    "hindsight": "in hindsight, the best on private",
}


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        public: share (`0.5`) or number (`100`) of the persons that are on the public board.
        persons: number of persons of the test set; None: as the data says.
        score: a name in bootstrap.METRICS; None: the main metric of the runs, macro-F1 where they differ or where it is
            no function of sums over images, which boards are simulated from.
        seed: the seed of the draws.
        as_json: JSON instead of a table.
    """

    public: str = "0.5"
    persons: int | None = None
    score: str | None = None
    seed: int = 0
    as_json: bool = False


def run_forecast(
    folders: Sequence[str], own: Callable[[], tuple[str, Metric, int]], question: Question
) -> tuple[str, int]:
    """Forecast the boards of the rows of some results folders.

    Args:
        folders: results folders; if empty, only that of `own`.
        own: returns the results folder of the configuration, its `vote.fit_by` and its seed.
        question: what is asked.

    Returns:
        Lines for a terminal or JSON, and the exit code 0.

    Raises:
        UserError: if an option is wrong, a folder holds no finished run or the runs cannot be compared.
    """
    if question.score is not None and question.score not in METRICS:
        what = "no such score" if metric_fault(question.score) else "boards cannot be simulated in this metric"
        near = did_you_mean(question.score, METRICS)
        raise UserError(f"--score {question.score}: {what}; take one of {', '.join(METRICS)}{near}")
    if question.persons is not None and question.persons < 2:
        raise UserError(f"--persons {question.persons}: a public and a private board need two persons or more")
    fit_by: Metric = "log_loss"
    paths, seed = [Path(folder) for folder in dict.fromkeys(folders)], 0
    if not paths:
        results, fit_by, seed = own()
        paths = [Path(results)]
    runs = [read_rows(path, fit_by, seed) for path in paths]
    if len({run.base for run in runs}) > 1:
        runs = [read_rows(path, fit_by, seed, use_reserve=False) for path in paths]
    sums, known = _sums(runs)
    persons, source = (question.persons, "--persons") if question.persons else _test_persons(paths[0], runs[0])
    sizes = _sizes(question.public, persons)
    score = question.score or _main_score(runs)
    found = forecast(simulate_boards(sums, score, sizes, seed=question.seed), score)
    facts = {"base": runs[0].base, "like_test": all(run.like_test for run in runs)}
    found = facts | {"known_images": known, "persons_from": source} | found
    found["submitted"] = [_row_name(run, f"vote {run.submitted}", len(runs)) for run in runs]
    found["left_out"] = {_row_name(run, name, len(runs)): why for run in runs for name, why in run.left_out.items()}
    return json.dumps(found, indent=2) if question.as_json else "\n".join(describe(found)), 0


def describe(found: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal.

    Args:
        found: what `foldvote.evaluation.forecast.forecast` returns, with `base`, `like_test`, `known_images`,
            `persons_from`, `submitted` and `left_out`.
    """
    lines = [*_told(_head(found)), "", *_row_table(found)]
    lines += _told(["*: submitted; range: of 95 % of the draws; best: how often it is the best on private, or equal"])
    if len(found["rows"]) < 2:
        return lines
    lines += ["", *_leads_table(found), "", "What a choice gives on private, and what it loses to hindsight:"]
    return [*lines, *_choices_table(found), "", *_told(_foot(found))]


def _told(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False)]


def _head(found: Mapping[str, Any]) -> list[str]:
    """What is forecast, and from what."""
    public, private = found["public_groups"], found["private_groups"]
    lines = [
        f"{shown_metric(found['score'])} of a test set of {public + private:,} persons ({found['persons_from']}): "
        f"{public:,} on the public board, {private:,} on the private one",
        f"drawn from {found['known_groups']:,} persons ({found['known_images']:,} images) "
        + ("of the reserve, predicted by the mean of all members" if found["base"] == "reserve" else "out of fold"),
    ]
    if not found["like_test"]:
        lines.append(
            "out of fold, an image is predicted by single members and not by the mean of all: submissions usually "
            "score higher, and differences between rows carry over only roughly; folds.reserve measures the means"
        )
    for why in dict.fromkeys(found["left_out"].values()):
        names = [name for name, its_own in found["left_out"].items() if its_own == why]
        lines.append(f"left out: {', '.join(names)}: {why}")
    return lines


def _foot(found: Mapping[str, Any]) -> list[str]:
    """The best pair, and how misleading a public score is."""
    board, pair = found["board"], found["pair"]
    lines = [f"best pair: {' + '.join(pair)}, with the highest expected score of the better one, which counts"]
    if set(found["likeliest_pair"]) != set(pair):
        lines.append(f"the pair that holds the best row most often: {' + '.join(found['likeliest_pair'])}")
    return [
        *lines,
        f"public and private score of a row are {board['gap_median']:.3f} apart (median), and more than "
        f"{board['gap_95']:.3f} in 5 % of draws",
        f"the leader on public scores {abs(board['leader_falls']):.3f} "
        f"{'worse' if board['leader_falls'] >= 0 else 'better'} on private; it is the best there in "
        f"{board['leader_is_best_on_private']:.0%} of draws, and truly in {board['leader_is_truly_best']:.0%}",
        f"public puts {board['pairs_in_true_order']:.0%} of pairs of rows in their true order; a row moves by "
        f"{board['places_moved']:.1f} places from public to private",
    ]


def _row_table(found: Mapping[str, Any]) -> list[str]:
    rows = found["rows"]
    return align_columns(
        {
            "": [f"{row['row']}{' *' if row['row'] in found['submitted'] else ''}" for row in rows],
            "here": [f"{row['known']:.4f}" for row in rows],
            "public": [f"{row['public']['expected']:.3f}" for row in rows],
            "range": [_range(row["public"]) for row in rows],
            "private": [f"{row['private']['expected']:.3f}" for row in rows],
            "range ": [_range(row["private"]) for row in rows],
            "best": [f"{row['best_on_private']:.0%}" for row in rows],
        }
    )


def _leads_table(found: Mapping[str, Any]) -> list[str]:
    first, *others = [row["row"] for row in found["rows"]]
    columns = {"": others} | {
        f"by {lead:g}": [f"{found['leads'][other][first][place]:.0%}" for other in others]
        for place, lead in enumerate(found["leads_by"])
    }
    return [
        f"Probability that a row is truly better than {first}, when it leads it on public by so much",
        *align_columns(columns),
    ]


def _choices_table(found: Mapping[str, Any]) -> list[str]:
    choices = found["choices"]
    return align_columns(
        {
            "": [_CHOICES[choice["by"]] for choice in choices],
            "private": [f"{choice['private']['expected']:.4f}" for choice in choices],
            "range": [_range(choice["private"]) for choice in choices],
            "lost": [f"{choice['loss']:.4f}" for choice in choices],
            "has the best": [f"{choice['has_best']:.0%}" for choice in choices],
        }
    )


def _range(summary: Mapping[str, float]) -> str:
    return f"{summary['low']:.3f} to {summary['high']:.3f}"


def _sums(runs: Sequence[RowPredictions]) -> tuple[dict[str, GroupSums], int]:
    """The sums of every row over the images that all runs have, and their number."""
    tables = [run.table.set_index("image_id") for run in runs]
    ids = common_images(
        [
            Finished(run.name, run.submitted, run.label_space, run.metric, table)
            for run, table in zip(runs, tables, strict=True)
        ]
    )
    labels, groups = tables[0].loc[ids, "label"].to_numpy(np.int64), common_groups(tables, ids)
    sums = {}
    for run, table in zip(runs, tables, strict=True):
        at = table.index.get_indexer(pd.Index(ids))
        for name, own in run.rows.items():
            sums[_row_name(run, name, len(runs))] = group_sums(
                labels, own.probabilities[at], groups, len(run.label_space.classes), own.codes[at]
            )
    return sums, len(ids)


def _main_score(runs: Sequence[RowPredictions]) -> str:
    """The main metric of all runs, where boards can be simulated in it; else macro-F1."""
    named = {run.metric for run in runs}
    return named.pop() if len(named) == 1 and named <= {*METRICS} else DEFAULT


def _row_name(run: RowPredictions, name: str, runs: int) -> str:
    return name if runs == 1 else f"{run.name}: {name}"


def _test_persons(folder: Path, run: RowPredictions) -> tuple[int, str]:
    """The number of persons of the test set, and how it is known."""
    persons = run.table["group"].nunique()
    manifest = folder / "data/manifest/split=test/manifest.parquet"
    if not manifest.is_file():
        return max(persons, 2), "as many as here"
    table = read_table(manifest)
    if len(table) and table["group"].notna().all():
        return max(table["group"].nunique(), 2), "of the test table"
    per_person = len(run.table) / persons
    number = max(round(len(table) / per_person), 2)
    return number, f"{len(table):,} test images, {per_person:.3g} per person"


def _sizes(public: str, persons: int) -> tuple[int, int]:
    """Numbers of persons on the public and on the private board."""
    told = f"--public {public}: give a share above 0 and below 1, such as 0.5, or a number of persons from 1 to"
    try:
        number = int(public) if public.isdecimal() else float(public)
    except ValueError:
        raise UserError(f"{told} {persons - 1:,}") from None
    if isinstance(number, float):
        if not 0 < number < 1:
            raise UserError(f"{told} {persons - 1:,}")
        number = min(max(round(number * persons), 1), persons - 1)
    if not 1 <= number < persons:
        raise UserError(f"{told} {persons - 1:,}, as the test set has {persons:,}")
    return number, persons - number

"""The trials of a search as a table, and the best trial as a recipe, without Optuna."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from foldvote.config.recipe import Recipe
from foldvote.config.search_space import AS_SCORED, Dimension, Space, label, with_values
from foldvote.io.parquet import read_record, read_table
from foldvote.io.text_table import align_columns

PARAM, FOLD = "param_", "fold_"
COMPLETE, PRUNED, FAILED, INTERRUPTED = "complete", "pruned", "failed", "interrupted"
_SHOWN = 10  # trials in the summary
_WIDEST = 24  # characters of a value in the summary


def trials_schema(space: Space, folds: Sequence[int]) -> pa.Schema:
    """Schema of `tune/trials.parquet`: one row per trial.

    Args:
        space: the searched keys, one column each (empty if a trial did not have the key).
        folds: the folds of the search, one column each for the score.
    """
    return pa.schema(
        [
            pa.field("number", pa.int32(), nullable=False),
            pa.field("state", pa.string(), nullable=False),
            ("score", pa.float64()),
            pa.field("as_it_stands", pa.bool_(), nullable=False),
            *((PARAM + key, _kind(dimension)) for key, dimension in space.items()),
            *((f"{FOLD}{fold}", pa.float64()) for fold in folds),
            pa.field("epochs", pa.int32(), nullable=False),
            pa.field("seconds", pa.float64(), nullable=False),
            ("worker", pa.int32()),
            ("device", pa.string()),
            ("repeats", pa.int32()),
            ("same_as", pa.int32()),
            ("fault", pa.string()),
            ("started", pa.timestamp("us")),
            ("ended", pa.timestamp("us")),
        ]
    )


def read_trials(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the table of trials and its record.

    Args:
        path: tune/trials.parquet.

    Raises:
        UserError: if the file is missing or damaged.
    """
    record = read_record(path)
    return read_table(path, trials_schema(space_of(record), record["folds"]), key=("number",)), record


def space_of(record: Mapping[str, Any]) -> dict[str, Dimension]:
    """The search space of a study.

    Args:
        record: the study's identity, or the record of its table.
    """
    return {key: Dimension.model_validate(given) for key, given in record["space"].items()}


def best_number(trials: pd.DataFrame, higher_is_better: bool) -> int | None:
    """The number of the best complete trial, the earliest of equal ones; None if none is complete."""
    scores = trials[trials["state"] == COMPLETE].set_index("number")["score"]
    if scores.empty:
        return None
    return int(scores.idxmax() if higher_is_better else scores.idxmin())


def best_recipe(identity: Mapping[str, Any], trial: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial, as it was scored.

    Args:
        identity: the study's identity, or the record of its table.
        trial: the trial's row of the table.
    """
    values = {}
    for key, dimension in space_of(identity).items():
        value = trial[PARAM + key]
        if value is None or pd.isna(value):
            continue
        known = {label(one): one for one in dimension.choice or []}
        values[key] = known[value] if known else int(value) if dimension.int else float(value)
    return Recipe.model_validate(with_values(Recipe.model_validate(identity["recipe"]), values) | AS_SCORED)


def best_text(trials: pd.DataFrame, record: Mapping[str, Any], path: Path) -> str:
    """The best recipe as YAML text; its header tells where it comes from and how to use it.

    Args:
        trials: the table of trials.
        record: the record of the table.
        path: the file it will be written to, which the header names.
    """
    row = trials.set_index("number", drop=False).loc[record["best"]].to_dict()
    recipe, counts = best_recipe(record, row), trials["state"].value_counts()
    name = f"{record['model'][:58]}-tuned"
    folds = ", ".join(map(str, record["folds"]))
    unchanged = trials[trials["as_it_stands"] & (trials["state"] == COMPLETE)]["score"]
    lines = [
        f"The best of {counts[COMPLETE]} completed trials ({counts.get(PRUNED, 0)} were pruned) of {record['study']}:",
        f"trial {record['best']}, {record['score']} {row['score']:.4f} out of fold"
        + (f"; the recipe as it stood: {unchanged.iloc[-1]:.4f}." if len(unchanged) else "."),
        f"Searched on folds {folds}. The best score of many is flattered by the choice; other folds judge fairly.",
        f"To use it: `include: [{path}]` in the configuration, and a model with `base: {name}`.",
    ]
    settings = recipe.model_dump(mode="json", exclude_defaults=True) | {"epoch": recipe.epoch}
    content = yaml.safe_dump({"recipes": {name: settings}}, sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in lines) + content


def summary(trials: pd.DataFrame, record: Mapping[str, Any]) -> list[str]:
    """A summary for the console: the number of trials by state, and the best trials.

    Args:
        trials: the table of trials.
        record: the record of the table.
    """
    counts = trials["state"].value_counts()
    by_state = ", ".join(f"{counts[state]} {state}" for state in counts.index)
    done = trials[trials["state"] == COMPLETE].sort_values(
        "score", ascending=not record["higher_is_better"], kind="stable"
    )
    shown = done.head(_SHOWN)
    unchanged = done[done["as_it_stands"]]
    if len(unchanged) and not shown["as_it_stands"].any():
        shown = pd.concat([shown, unchanged.head(1)])
    columns = {
        "trial": [
            f"{number}{' (unchanged)' if unchanged_recipe else ''}"
            for number, unchanged_recipe in zip(shown["number"], shown["as_it_stands"], strict=True)
        ],
        record["score"]: [f"{score:.4f}" for score in shown["score"]],
        **{key: [_short(value) for value in shown[PARAM + key]] for key in record["space"]},
        "epochs": [str(number) for number in shown["epochs"]],
        "seconds": [f"{seconds:.1f}" for seconds in shown["seconds"]],
    }
    return [f"{len(trials)} trials of {record['study']}: {by_state}", *align_columns(columns)]


def _kind(dimension: Dimension) -> pa.DataType:
    return pa.string() if dimension.choice is not None else pa.int64() if dimension.int else pa.float64()


def _short(value: Any) -> str:
    if value is None or pd.isna(value):
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"

"""The results of a study: the table of its trials, the importance of the keys, and the best recipe as a YAML file."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pyarrow as pa
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from foldvote.config.search_space import Space
from foldvote.errors import UserError
from foldvote.io.files import read_json, write_bytes
from foldvote.io.parquet import write_table
from foldvote.tuning.samplers import distribution
from foldvote.tuning.study import AS_IT_STANDS, REPEATS, WORKER, result_of
from foldvote.tuning.trials import (
    COMPLETE,
    FAILED,
    FOLD,
    INTERRUPTED,
    PARAM,
    PRUNED,
    best_number,
    best_text,
    space_of,
    trials_schema,
)

LEAST_TRIALS = 8  # completed trials that an estimate of importance needs
_STATES = {TrialState.COMPLETE: COMPLETE, TrialState.FAIL: INTERRUPTED}
_STATES |= {TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}


def read_study(storage: optuna.storages.BaseStorage, workers: Sequence[Path]) -> optuna.Study:
    """Load the study that all workers of a run worked on.

    Args:
        storage: the journal.
        workers: the JSON files that the workers wrote, with the name of the study.

    Raises:
        UserError: if they worked on different studies.
    """
    names = {read_json(path)["study"] for path in workers}
    if len(names) > 1:
        raise UserError(f"tune: the workers searched in different studies ({', '.join(sorted(names))}); run it again")
    return optuna.load_study(study_name=names.pop(), storage=storage)


def trials_table(study: optuna.Study) -> tuple[pd.DataFrame, pa.Schema, dict[str, Any]]:
    """All trials of a study, sorted by number.

    Args:
        study: the study.

    Returns:
        The rows of `trials_schema`, the schema, and the record: identity and name of the study, whether a higher score
        is better, the importance of the keys, and the number of the best trial (None if none is complete).
    """
    identity = study.user_attrs["identity"]
    space = space_of(identity)
    schema = trials_schema(space, identity["folds"])
    rows = [_row(trial, space, identity["folds"]) for trial in study.get_trials(deepcopy=False)]
    frame = pd.DataFrame(rows, columns=schema.names)
    whole = {field.name: "Int64" for field in schema if pa.types.is_integer(field.type)}
    record = {
        "study": study.study_name,
        "higher_is_better": study.direction == optuna.study.StudyDirection.MAXIMIZE,
        "importance": importance(frame, space, identity),
        **identity,
    }
    frame = frame.astype(whole)
    return frame, schema, record | {"best": best_number(frame, record["higher_is_better"])}


def importance(trials: pd.DataFrame, space: Space, identity: Mapping[str, Any]) -> dict[str, float]:
    """The importance of each key for the score: fANOVA (Hutter et al., ICML 2014) over the completed trials.

    Args:
        trials: the table of trials.
        space: the searched keys. Keys with a condition are left out.
        identity: the study's identity, for its seed.

    Returns:
        Shares by key, the largest first; empty if fewer than `LEAST_TRIALS` trials are complete, or nothing varies.
    """
    done = trials[trials["state"] == COMPLETE]
    always = {key: distribution(one) for key, one in space.items() if not one.when}
    varied = {key: one for key, one in always.items() if done[PARAM + key].astype(str).nunique() > 1}
    if len(done) < LEAST_TRIALS or len(varied) < 2 or done["score"].nunique() < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    for values, score in zip(done[[PARAM + key for key in varied]].to_numpy(object), done["score"], strict=True):
        params = dict(zip(varied, values, strict=True))
        study.add_trial(optuna.create_trial(params=params, distributions=varied, value=float(score)))
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=identity["seed"] % 2**32))
    return {key: float(share) for key, share in found.items()}


def write_results(
    storage: optuna.storages.BaseStorage, workers: Sequence[Path], trials: Path, best: Path
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Write the table of trials and the best recipe.

    Args:
        storage: the journal.
        workers: the JSON files that the workers wrote.
        trials: the parquet file to write.
        best: the YAML file to write.

    Returns:
        The table and its record.

    Raises:
        UserError: if no trial is complete, or the workers did not work on one study.
    """
    frame, schema, record = trials_table(read_study(storage, workers))
    if record["best"] is None:
        faults = frame["fault"].dropna()
        raise UserError(
            f"tune: none of {len(frame)} trials is complete"
            + (f"; the last one that failed: {faults.iloc[-1]}" if len(faults) else "; raise tune.trials")
        )
    write_table(frame, trials, schema, key=("number",), record=record)
    write_bytes(best, best_text(frame, record, best).encode())
    return frame, record


def drop_states(resume: Path, study: str) -> None:
    """Delete the training states of other studies, which will not be resumed.

    Args:
        resume: the folder with one folder of states per study.
        study: name of the study to keep.
    """
    for folder in resume.glob("*") if resume.is_dir() else ():
        if folder.name != study:
            shutil.rmtree(folder, ignore_errors=True)


def _row(trial: FrozenTrial, space: Space, folds: Sequence[int]) -> dict[str, Any]:
    result = result_of(trial)
    pruned = FAILED if result.get("fault") else PRUNED
    row: dict[str, Any] = {
        "number": trial.number,
        "state": _STATES.get(trial.state, pruned),
        "score": trial.value if trial.state == TrialState.COMPLETE else None,
        "as_it_stands": bool(trial.user_attrs.get(AS_IT_STANDS)),
        "epochs": result.get("epochs", 0),
        "seconds": result.get("seconds", 0.0),
        "worker": trial.user_attrs.get(WORKER),
        "device": result.get("device"),
        "repeats": trial.user_attrs.get(REPEATS),
        "same_as": result.get("same_as"),
        "fault": result.get("fault"),
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
    }
    row |= {PARAM + key: trial.params.get(key) for key in space}
    return row | {f"{FOLD}{fold}": result.get("folds", {}).get(str(fold)) for fold in folds}

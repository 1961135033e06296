"""One row of the leaderboard on the test images: a kind of vote, a model or a single member, to be handed in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.entry_names import entry_model
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.candidates import ModelPredictions, average_over_folds, candidates_of
from foldvote.ensemble.methods import apply_vote, decide_vote
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.vote_table import votes_frame, votes_schema
from foldvote.inference.prediction_files import Predictions, read_member, sound_records, test_set_faults
from foldvote.io.files import read_json
from foldvote.io.parquet import write_table
from foldvote.io.paths import member_of
from foldvote.splits.folds import read_folds

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def write_entry(
    row: str,
    tests: Sequence[Path],
    count: int,
    folds: Path,
    certificate: Path,
    classes: Path,
    votes: Path | None,
    path: Path,
) -> None:
    """Write what one row of the leaderboard says of the test images.

    Args:
        row: `vote=<kind>`, `model=<name>` or `model=<name>/fold=<k>`.
        tests: test predictions of the members that the row is made of.
        count: number of folds of each model.
        folds: the split, folds.FOLDS.
        certificate: its certificate.
        classes: `data/classes.json`.
        votes: `ensemble/votes.json`, what every kind of vote has fitted; None where the row is no vote.
        path: written as ensemble/test.parquet is, in the order of the first member's images; not calibrated.

    Raises:
        UserError: if predictions do not fit each other or the split, there is no such vote, or a model knows only some
            factors of the classes.
    """
    scheme = read_label_space(classes)
    _, digest = read_folds(folds, certificate)
    params: Mapping[str, Any] = {}
    model, fold = entry_model(row)
    if fold is not None:
        member = read_member(tests[0], "test", scheme.classes, digest)
        ids, probabilities = member.ids, _whole(row, member.mean, member.record.get("factors"))
    else:
        gathered = _gathered(tests, count, scheme, digest)
        ids = gathered.ids
        if model is not None:
            probabilities = _whole(row, gathered.mean_of(model), gathered.learnt[model])
        else:
            params = _fitted(row.removeprefix("vote="), votes)
            probabilities = apply_vote(candidates_of(gathered, scheme), params, scheme)
    codes = decide_vote(probabilities, params)
    frame = votes_frame(pd.DataFrame({"image_id": ids.to_pylist()}), probabilities, codes, scheme)
    record = {"split_sha256": digest, "row": row}
    write_table(frame, path, votes_schema(scheme.classes, labelled=False), ("image_id",), record)


def _gathered(tests: Sequence[Path], count: int, scheme: LabelSpace, digest: str) -> ModelPredictions:
    expected = dict.fromkeys(sorted({member_of(path)[0] for path in tests}), count)
    records, faults = sound_records(tests, "test", expected, scheme.classes, digest)
    first: list[Predictions] = []

    def seen(member: Predictions) -> list[str]:
        if not first:
            first.append(member)
        return test_set_faults(member, first[0], {})

    gathered, more = average_over_folds(records, None, scheme.classes, seen)
    raise_all(faults + more)
    return gathered


def _fitted(kind: str, votes: Path | None) -> Mapping[str, Any]:
    if votes is None:
        raise ValueError(f"vote {kind}: needs the file of what it has fitted")
    fitted = read_json(votes)
    if kind not in fitted:
        raise UserError(f"{votes}: has no vote {kind!r}, but {', '.join(sorted(fitted))}: add it to vote.kinds")
    return fitted[kind]


def _whole(row: str, probabilities: Floats, factors: Sequence[str] | None) -> Floats:
    """The probabilities, of a model that learns whole classes."""
    if factors:
        raise UserError(
            f"{row}: learns only {', '.join(factors)}, which is no whole answer: take a row vote=..., where it is "
            "multiplied with the models of the other factors"
        )
    return probabilities

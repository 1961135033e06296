"""One entry of the leaderboard applied to the test images: a method, a model or a single member, to be handed in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.config.entry_names import entry_model
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.candidates import candidates_of
from foldvote.ensemble.guests import read_guest_test, with_guests
from foldvote.ensemble.inputs import read_test_predictions
from foldvote.ensemble.methods import apply_method, choose_classes
from foldvote.ensemble.model_predictions import ModelPredictions
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.vote_table import votes_frame, votes_schema
from foldvote.inference.prediction_files import read_member
from foldvote.io.files import read_json
from foldvote.io.parquet import write_table
from foldvote.io.paths import member_of
from foldvote.splits.folds import read_folds

Floats = npt.NDArray[np.float64]


def write_entry(
    entry: str,
    tests: Sequence[Path],
    count: int,
    folds: Path,
    certificate: Path,
    classes: Path,
    votes: Path | None,
    path: Path,
    guests: Mapping[str, Path] | None = None,
    id_column: str = "ImageID",
    manifest: Path | None = None,
) -> None:
    """Write the probabilities and classes that one entry of the leaderboard gives the test images.

    Args:
        entry: `vote=<kind>`, `model=<name>` or `model=<name>/fold=<k>`.
        tests: test predictions of the members that the entry is made of.
        count: number of folds of each model.
        folds: the split, folds.FOLDS.
        certificate: its certificate.
        classes: `data/classes.json`.
        votes: `ensemble/votes.json`, what every method has fitted; None where the entry is no method.
        path: written with the columns of ensemble/test.parquet, in the order of the first member's images; not
            calibrated.
        guests: the tables of test predictions of the guests that belong to the entry, by name.
        id_column: name of the ids' column in them where it is not `image_id`.
        manifest: of the test images, for a method that learns from metadata.

    Raises:
        UserError: if predictions do not fit each other or the split, there is no such method, or a model knows only
            some factors of the classes.
    """
    label_space = read_label_space(classes)
    _, split_sha256 = read_folds(folds, certificate)
    params: Mapping[str, Any] = {}
    model, fold = entry_model(entry)
    if fold is not None or model in (guests or {}):
        member = read_member(tests[0], "test", label_space.classes, split_sha256)
        ids = member.ids
        of_guests = _read_guests(guests, ids, label_space, id_column)
        if model in of_guests:
            probabilities = of_guests[model].astype(np.float64)
        else:
            probabilities = _whole_classes(entry, member.mean, member.record.get("factors"))
    else:
        predictions = _read_members(tests, count, label_space, split_sha256)
        ids = predictions.ids
        predictions = with_guests(predictions, _read_guests(guests, ids, label_space, id_column))
        if model is not None:
            probabilities = _whole_classes(entry, predictions.mean_of(model), predictions.learnt[model])
        else:
            params = _fitted_params(entry.removeprefix("vote="), votes)
            predictions = predictions if manifest is None else predictions.with_metadata(manifest)
            probabilities = apply_method(candidates_of(predictions, label_space), params, label_space)
    codes = choose_classes(probabilities, params)
    frame = votes_frame(pd.DataFrame({"image_id": ids.to_pylist()}), probabilities, codes, label_space)
    record = {"split_sha256": split_sha256, "row": entry}
    write_table(frame, path, votes_schema(label_space.classes, labelled=False), ("image_id",), record)


def _read_members(tests: Sequence[Path], count: int, label_space: LabelSpace, split_sha256: str) -> ModelPredictions:
    expected = dict.fromkeys(sorted({member_of(path)[0] for path in tests}), count)
    predictions, _, faults = read_test_predictions(tests, expected, label_space, split_sha256, {})
    raise_all(faults)
    return predictions


def _read_guests(
    guests: Mapping[str, Path] | None, ids: pa.Array, label_space: LabelSpace, id_column: str
) -> dict[str, npt.NDArray[np.float32]]:
    return {name: read_guest_test(path, ids, label_space.classes, id_column) for name, path in (guests or {}).items()}


def _fitted_params(kind: str, votes: Path | None) -> Mapping[str, Any]:
    """What a method has fitted, from `ensemble/votes.json`."""
    if votes is None:
        raise ValueError(f"vote {kind}: needs the file of what it has fitted")
    fitted = read_json(votes)
    if kind not in fitted:
        raise UserError(f"{votes}: has no vote {kind!r}, but {', '.join(sorted(fitted))}: add it to vote.kinds")
    return fitted[kind]


def _whole_classes(entry: str, probabilities: Floats, factors: Sequence[str] | None) -> Floats:
    """The probabilities as they are, if the model learns whole classes."""
    if factors:
        raise UserError(
            f"{entry}: learns only {', '.join(factors)}, which is no whole answer: take a row vote=..., where it is "
            "multiplied with the models of the other factors"
        )
    return probabilities

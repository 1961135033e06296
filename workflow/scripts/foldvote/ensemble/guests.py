"""Guests: models whose out-of-fold and test predictions were made elsewhere, read from a user's tables and checked.

A guest joins the vote as a model with the one view `identity`. Its tables are joined by id, and its folds, where they
are known, must keep the groups of the certified split whole.
"""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from foldvote.data.label_space import read_label_space
from foldvote.ensemble.model_predictions import ModelPredictions
from foldvote.errors import UserError, first_few, raise_all
from foldvote.evaluation.vote_table import PROBABILITY
from foldvote.io.csv_files import read_user_table
from foldvote.io.files import sha256_file, write_json
from foldvote.io.ids import id_faults, positions_in
from foldvote.io.parquet import read_table
from foldvote.runtime.job_log import log
from foldvote.splits.folds import read_folds
from foldvote.splits.reserve import RESERVE

VIEW = "identity"
SUM_TOLERANCE = 0.01  # three decimals of 18 classes; a row that is farther from the sum 1 holds no probabilities
EXACT = 1e-5  # a row this near to the sum 1 (float32) stays as it is, others are divided by their sum
_ID = "image_id"
_FOLD = "fold"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GuestFiles:
    """The tables of one guest: CSV or parquet."""

    oof: Path
    test: Path | None = None
    reserve: Path | None = None


@dataclass(frozen=True)
class Guest:
    """The predictions of one guest, checked and in the order of the images of this run.

    Attributes:
        oof: of the validated training images, float32 (images, classes).
        test: of the test images; None without them.
        reserve: of the reserve; None where there is none.
        folds: how its folds compare with the split: `as here`, `others` or `not given`.
        normalised: number of rows, over all its tables, that were divided by their sum.
        sha256: digests of its files by what they hold.
    """

    oof: Floats
    test: Floats | None
    reserve: Floats | None
    folds: str
    normalised: int
    sha256: dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """The images that guests must have predicted.

    Attributes:
        classes: class names in the order of their codes.
        folds: rows of folds.FOLDS.
        oof: ids of the validated training images.
        test: ids of the test images; None without them.
        reserve: ids of the reserve; None where there is none.
        id_column: name of the ids' column where it is not `image_id`.
    """

    classes: Sequence[str]
    folds: pd.DataFrame
    oof: Sequence[str]
    test: Sequence[str] | None
    reserve: Sequence[str] | None
    id_column: str


def guest_files(
    names: Sequence[str], oof: Sequence[Any], test: Sequence[Any], reserve: Sequence[Any]
) -> dict[str, GuestFiles]:
    """The guests' files by name, from a rule's lists in the order of the names; an empty list: none has such a file."""

    def one(paths: Sequence[Any], place: int) -> Path | None:
        return Path(paths[place]) if paths else None

    return {name: GuestFiles(Path(oof[at]), one(test, at), one(reserve, at)) for at, name in enumerate(names)}


def read_guests(guests: Mapping[str, GuestFiles], wanted: Wanted) -> dict[str, Guest]:
    """Read and check the tables of all guests.

    Args:
        guests: their files by name.
        wanted: the images that they must have predicted.

    Raises:
        UserError: with all faults of all tables.
    """
    found, faults = {}, []
    for name, files in sorted(guests.items()):
        try:
            found[name] = _read_guest(files, wanted)
        except UserError as error:
            faults += [f"guests.{name}: {fault}" for fault in error.faults]
    raise_all(faults)
    return found


def read_guest_test(path: Path, ids: pa.Array, classes: Sequence[str], id_column: str) -> Floats:
    """A guest's predictions of the test images: float32 (images, classes).

    Args:
        path: its table.
        ids: the test images, in the order of the result.
        classes: class names in the order of their codes.
        id_column: name of the ids' column where it is not `image_id`.

    Raises:
        UserError: with all faults of the table.
    """
    table = _read(path, classes, id_column)
    raise_all([*table.faults, *_id_faults(table, ids.to_pylist(), "the test images", ())])
    return table.probabilities[positions_in(ids, table.ids)]


def check_guests(
    guests: Mapping[str, GuestFiles],
    folds_path: Path,
    certificate: Path,
    classes: Path,
    test_manifest: Path | None,
    id_column: str,
    path: Path,
) -> None:
    """Check the guests' tables before any network is trained, and say how their folds compare with the split.

    Args:
        guests: their files by name.
        folds_path: the split, folds.FOLDS.
        certificate: its certificate.
        classes: `data/classes.json`.
        test_manifest: of the test images; None without them.
        id_column: name of the ids' column where it is not `image_id`.
        path: written: by guest `folds`, `normalised` and `sha256` as in `Guest`.

    Raises:
        UserError: with all faults of all tables.
    """
    folds, _ = read_folds(folds_path, certificate)
    validated, kept_out = (folds.loc[rows, _ID].unique() for rows in (folds["fold"] >= 0, folds["fold"] == RESERVE))
    test = None if test_manifest is None else read_table(test_manifest)[_ID].tolist()
    reserve = kept_out.tolist() if len(kept_out) else None
    names = read_label_space(classes).classes
    found = read_guests(guests, Wanted(names, folds, validated.tolist(), test, reserve, id_column))
    for name, guest in found.items():
        log(f"guests.{name}: {_FOLDS_IN_WORDS[guest.folds]}")
        if guest.normalised:
            log(f"guests.{name}: {guest.normalised} rows do not sum to 1 exactly and are divided by their sum")
    write_json(path, {name: facts_of(guest) for name, guest in found.items()})


def facts_of(guest: Guest) -> dict[str, Any]:
    """What is known of a guest without its scores, as plain JSON."""
    return {"folds": guest.folds, "normalised": guest.normalised, "sha256": guest.sha256}


def header_faults(path: Path, id_column: str, classes: Sequence[str] | None) -> list[str]:
    """Faults of the columns of a guest's table, of which only the header is read.

    Args:
        path: the table.
        id_column: name of the ids' column where it is not `image_id`.
        classes: class names in the order of their codes; None: not yet known.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as text:
                header = next(csv.reader(text), [])
        else:
            header = pq.read_schema(path).names
        _id_column(path, header, id_column)
        if classes is not None:
            _class_columns(path, header, classes)
    except UserError as error:
        return list(error.faults)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        told = " ".join(str(error).split())[:200]
        return [f"{path}: cannot be read as CSV or parquet ({told}); give a table of one of these kinds"]
    return []


def with_guests(predictions: ModelPredictions, guests: Mapping[str, Floats]) -> ModelPredictions:
    """The models' predictions with those of guests beside them.

    Args:
        predictions: of the models.
        guests: by name float32 (images, classes), of the same images.
    """
    if not guests:
        return predictions
    means = dict(zip(predictions.model_views, predictions.means, strict=True))
    means |= {(name, VIEW): own for name, own in guests.items()}
    ordered = tuple(sorted(means, key="/".join))
    stacked = np.stack([means[key] for key in ordered])
    return ModelPredictions(predictions.ids, ordered, stacked, {**predictions.learnt, **dict.fromkeys(guests)})


_FOLDS_IN_WORDS = {
    "as here": "its folds are those of this run",
    "others": "its folds are not those of this run, but part no group; nested scores use the folds of this run",
    "not given": "its table has no column fold, so nothing shows that it had not seen the people that it predicts",
}


@dataclass(frozen=True)
class _Table:
    """A guest's table: ids, float32 (rows, classes), the folds as they are written where given, number of rows that
    were divided by their sum, and what is wrong with single rows."""

    path: Path
    ids: pa.Array
    probabilities: Floats
    folds: pd.Series | None
    normalised: int
    faults: list[str]


def _read_guest(files: GuestFiles, wanted: Wanted) -> Guest:
    training = set(wanted.folds[_ID])
    parts = [("oof", files.oof, wanted.oof, "the validated images", training.difference(wanted.oof))]
    if wanted.test is not None and files.test is not None:
        parts.append(("test", files.test, wanted.test, "the test images", set()))
    if wanted.reserve is not None and files.reserve is not None:
        others = training.difference(wanted.reserve)
        parts.append(("reserve", files.reserve, wanted.reserve, "the reserve", others))
    needed = {"test": wanted.test is not None, "reserve": wanted.reserve is not None}
    given = {name for name, *_ in parts}
    faults = [f"has no file `{name}`; give it, or drop the guest" for name in needed if needed[name] > (name in given)]
    placed: dict[str, Floats] = {}
    folds, normalised = "not given", 0
    for name, path, ids, source, others in parts:
        try:
            table = _read(path, wanted.classes, wanted.id_column)
        except UserError as error:
            faults += error.faults
            continue
        faults += [*table.faults, *_id_faults(table, ids, source, others)]
        if name == "oof" and table.folds is not None:
            folds, wrong = _compare_folds(table, wanted.folds)
            faults += wrong
        placed[name] = table.probabilities[positions_in(pa.array(ids, pa.string()), table.ids)]
        normalised += table.normalised
    raise_all(faults)
    digests = {name: sha256_file(path) for name, path, *_ in parts}
    return Guest(placed["oof"], placed.get("test"), placed.get("reserve"), folds, normalised, digests)


def _read(path: Path, classes: Sequence[str], id_column: str) -> _Table:
    """Read one table and check its columns and the values of its rows.

    Raises:
        UserError: if the file cannot be read or lacks columns.
    """
    cells = read_user_table(path, typed=True)
    header = list(cells.columns)
    ids = cells[_id_column(path, header, id_column)].astype(str)
    columns = _class_columns(path, header, classes)
    values = np.stack([pd.to_numeric(cells[name], errors="coerce").to_numpy(np.float64) for name in columns], axis=1)
    first = 2 if path.suffix.lower() == ".csv" else 1

    def rows(wrong: npt.NDArray[np.bool_]) -> str:
        return first_few(f"row {row + first} ({ids.iloc[row]})" for row in np.flatnonzero(wrong))

    outside = np.asarray(~((values >= 0) & (values <= 1 + 1e-6)).all(axis=1))  # true of NaN as well
    sums = values.sum(axis=1)
    off = ~outside & (np.abs(sums - 1) > SUM_TOLERANCE)
    faults = []
    if outside.any():
        faults.append(
            f"{path}: {outside.sum()} rows hold values that are no numbers from 0 to 1: {rows(outside)}; give "
            "probabilities (the softmax of logits)"
        )
    if off.any():
        faults.append(
            f"{path}: the probabilities of {off.sum()} rows do not sum to 1 within {SUM_TOLERANCE:g}: {rows(off)}; "
            f"give those of all {len(classes)} classes"
        )
    folds = cells[_FOLD].astype(str) if _FOLD in cells and _FOLD not in columns else None
    empty = np.zeros(len(ids), bool) if folds is None else folds.isin(["", "nan", "None", "<NA>"]).to_numpy(bool)
    if empty.any():
        faults.append(f"{path}: {empty.sum()} rows have no fold: {rows(empty)}; fill them in, or drop the column")
    uneven = ~(outside | off) & (np.abs(sums - 1) > EXACT)
    values[uneven] /= sums[uneven, None]
    return _Table(path, pa.array(ids, pa.string()), values.astype(np.float32), folds, int(uneven.sum()), faults)


def _id_column(path: Path, header: Sequence[str], id_column: str) -> str:
    known = [name for name in (_ID, id_column) if name in header]
    if not known:
        raise UserError(
            f"{path}: has no column of ids, {_ID} or {id_column} (submission.id_column); it has {first_few(header)}"
        )
    return known[0]


def _class_columns(path: Path, header: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The column of each class: named by it, by p_ and it, or by its code."""
    forms = [list(classes), [PROBABILITY + name for name in classes], [str(code) for code in range(len(classes))]]
    missing = [[name for name in names if name not in header] for names in forms]
    best = min(range(len(forms)), key=lambda form: len(missing[form]))
    if missing[best]:
        raise UserError(
            f"{path}: {len(missing[best])} of {len(classes)} classes have no column: {first_few(missing[best])}; give "
            f"the probability of each class in a column named by the class, by {PROBABILITY} and the class, or by its "
            "code"
        )
    return forms[best]


def _id_faults(table: _Table, expected: Sequence[str], source: str, others: Collection[str]) -> list[str]:
    """Lines for expected images that are missing or stand twice, and for images that are neither these nor others."""
    ids = [name for name in table.ids.to_pylist() if name not in others]
    return id_faults(table.path, ids, expected, source)


def _compare_folds(table: _Table, folds: pd.DataFrame) -> tuple[str, list[str]]:
    """How a guest's folds compare with those of the split, and a line where groups of the split stand in several."""
    assert table.folds is not None
    own = pd.DataFrame({_ID: table.ids.to_pylist(), "guest": table.folds.to_numpy()}).merge(folds, on=_ID)
    parted = own.groupby("group")["guest"].nunique()
    names = sorted(parted.index[parted > 1])
    if names:
        return "others", [
            f"{table.path}: {len(names)} groups stand in several of its folds: {first_few(names)}; its networks have "
            "seen the people that they predict: give predictions of networks that were trained without whole groups"
        ]
    for _, rows in own[own["fold"] >= 0].groupby("repeat"):
        pairs = rows[["guest", "fold"]].drop_duplicates()
        if pairs["guest"].is_unique and pairs["fold"].is_unique:
            return "as here", []
    return "others", []

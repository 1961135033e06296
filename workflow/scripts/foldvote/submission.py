"""The file that is handed in: the sample's rows in the sample's order, joined by id, and checked after writing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from foldvote.answers import Answer, answer_faults, answer_texts, id_faults, named
from foldvote.errors import Refusal, refuse_all
from foldvote.files import whole_file
from foldvote.labels import read_scheme
from foldvote.tables import PROBABILITY, read_table, votes_schema
from foldvote.textfiles import read_csv, write_csv

SUM_TOLERANCE = 1e-6  # how far a row of probabilities may be from the sum 1


def write_submission(
    votes_path: str | Path,
    classes_path: str | Path,
    sample_path: str | Path | None,
    out_path: str | Path,
    *,
    id_column: str = "ImageID",
    answer_column: str = "ans",
    answer: Answer = "code",
) -> None:
    """Write the predictions of the test images in the form of a sample file.

    Args:
        votes_path: ensemble/test.parquet.
        classes_path: `data/classes.json`.
        sample_path: CSV whose rows, order and columns are kept (a formula in another column is escaped); only
            `answer_column` is filled, and appended where the ids are the sample's only column. None: every image in
            the order of the votes, two columns.
        out_path: submission.csv.
        id_column: column of the image ids.
        answer_column: column of the answers.
        answer: write class codes (`7`) or class names.

    Raises:
        Refusal: if ids are missing, doubled or surplus against the sample, a row of probabilities does not sum to 1,
            or an id or class name would not survive in a CSV; nothing is written then.
    """
    classes = read_scheme(classes_path).classes
    votes = read_table(votes_path, votes_schema(classes, labelled=False), key=("image_id",))
    faults = _vote_faults(votes, votes_path, classes)
    if sample_path is None:
        frame, source = pd.DataFrame({id_column: votes["image_id"]}, dtype="str"), Path(votes_path)
    else:
        frame, source = _read_sample(sample_path, id_column, answer_column), Path(sample_path)
    ids = frame[id_column].tolist()
    remedy = f"give the sample file of these test images, or run `snakemake -R {votes_path}`"
    faults += id_faults(source, ids, ids, source)
    faults += id_faults(votes_path, votes["image_id"].tolist(), ids, source, remedy)
    refuse_all(faults)

    codes = votes.set_index("image_id")["prediction"].reindex(ids)
    frame[answer_column] = answer_texts(codes, classes, answer)
    with whole_file(out_path) as temporary:
        write_csv(frame, temporary)
        written = read_csv(temporary)
        refuse_all(_altered(frame, written, out_path, (id_column, answer_column)))
        refuse_all(_faults(written, out_path, frame, source, id_column, answer_column, classes, answer))


def check_submission(
    path: str | Path,
    sample_path: str | Path,
    classes_path: str | Path,
    *,
    id_column: str = "ImageID",
    answer_column: str = "ans",
    answer: Answer = "code",
) -> None:
    """Check any submission file against its sample, whoever wrote it.

    Args:
        path: the submission.
        sample_path: CSV with the rows and columns that it must have, in order.
        classes_path: `data/classes.json`.
        id_column: column of the image ids.
        answer_column: column of the answers.
        answer: whether the answers are class codes or class names.

    Raises:
        Refusal: every fault at once: other columns; missing, doubled or surplus ids; another order; answers that are
            no class, such as `13.0` or ` 13`.
    """
    classes = read_scheme(classes_path).classes
    sample = _read_sample(sample_path, id_column, answer_column)
    frame = read_csv(path, required=[id_column, answer_column])
    refuse_all(_faults(frame, path, sample, sample_path, id_column, answer_column, classes, answer))


def _read_sample(path: str | Path, id_column: str, answer_column: str) -> pd.DataFrame:
    sample = read_csv(path, required=[id_column])
    if answer_column in sample.columns:
        return sample
    if len(sample.columns) > 1:
        raise Refusal(
            f"{path}: has no column {answer_column!r} for the answers; it has {', '.join(sample.columns)}: "
            "set submission.answer_column to one of them"
        )
    return sample.assign(**{answer_column: ""})


def _vote_faults(votes: pd.DataFrame, path: str | Path, classes: Sequence[str]) -> list[str]:
    faults, again = [], f"run `snakemake -R {path}`"
    probabilities = votes[[PROBABILITY + name for name in classes]].to_numpy()
    off = (np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE) | (probabilities < 0).any(axis=1)
    if off.any():
        shown = named(votes.loc[off, "image_id"])
        faults.append(f"{path}: {off.sum()} images have probabilities that do not sum to 1: {shown}; {again}")
    codes = votes["prediction"].to_numpy()
    outside = (codes < 0) | (codes >= len(classes))
    if outside.any():
        shown = named(votes.loc[outside, "image_id"])
        faults.append(f"{path}: {outside.sum()} predictions are not from 0 to {len(classes) - 1}: {shown}; {again}")
    names = np.array(classes, dtype=object)[np.where(outside, 0, codes)]
    differing = ~outside & (names != votes["prediction_name"].to_numpy(dtype=object))
    if differing.any():
        shown = named(votes.loc[differing, "image_id"])
        faults.append(f"{path}: prediction and prediction_name of {differing.sum()} images differ: {shown}; {again}")
    return faults


def _altered(frame: pd.DataFrame, written: pd.DataFrame, path: str | Path, columns: Sequence[str]) -> list[str]:
    """Lines for texts that came back changed: a spreadsheet would run them as formulas, so they were escaped."""
    pairs = [("the column names", list(frame.columns), list(written.columns))]
    if not (lines := _escaped(pairs, path)):
        pairs = [(f"column {name}", frame[name].tolist(), written[name].tolist()) for name in columns]
        lines = _escaped(pairs, path)
    return lines


def _escaped(pairs: Sequence[tuple[str, list[str], list[str]]], path: str | Path) -> list[str]:
    faults = []
    for what, before, after in pairs:
        changed = [text for text, back in zip(before, after, strict=True) if text != back]
        if changed:
            faults.append(
                f"{path}: {what}: {len(changed)} texts would be altered, as a spreadsheet takes them for formulas: "
                f"{named(map(repr, changed))}; rename them in the data"
            )
    return faults


def _faults(
    frame: pd.DataFrame,
    path: str | Path,
    sample: pd.DataFrame,
    source: str | Path,
    id_column: str,
    answer_column: str,
    classes: Sequence[str],
    answer: Answer,
) -> list[str]:
    faults = []
    if list(frame.columns) != list(sample.columns):
        faults.append(
            f"{path}: has the columns {', '.join(frame.columns)}, expected {', '.join(sample.columns)}; correct them"
        )
    ids, expected = frame[id_column].tolist(), sample[id_column].tolist()
    wrong = id_faults(path, ids, expected, source)
    if not wrong and ids != expected:
        row = next(row for row, (own, other) in enumerate(zip(ids, expected, strict=True)) if own != other)
        wrong = [f"{path}: row {row + 2} is {ids[row]}, but {expected[row]} in {source}; keep the order of the sample"]
    return faults + wrong + answer_faults(path, frame, answer_column, classes, answer)

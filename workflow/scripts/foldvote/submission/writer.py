"""The submission: written from the ensemble's predictions, and checked against the sample file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from foldvote.config.ensemble import SubmissionAnswer, Unit
from foldvote.data.label_space import read_label_space
from foldvote.errors import UserError, first_few, raise_all
from foldvote.evaluation.vote_table import PROBABILITY, read_answered
from foldvote.io.csv_files import read_csv, write_csv
from foldvote.io.files import whole_file
from foldvote.io.ids import id_faults
from foldvote.runtime.job_log import log
from foldvote.submission.answers import answer_faults, answer_forms, answer_texts
from foldvote.submission.sample_matching import class_columns, matched_ids, wide_texts


def write_submission(
    votes_path: str | Path,
    classes_path: str | Path,
    sample_path: str | Path | None,
    out_path: str | Path,
    *,
    id_column: str = "ImageID",
    answer_column: str = "ans",
    answer: SubmissionAnswer = "code",
    unit: Unit = "image",
) -> None:
    """Write the predictions of the test images, or of their groups, in the format of a sample file.

    Args:
        votes_path: ensemble/test.parquet, or ensemble/groups.parquet.
        classes_path: `data/classes.json`.
        sample_path: CSV file whose rows, order and columns are kept; only the answers are filled in, or added if the
            sample has ids only; its ids may lack the images' extension or folder (`sample_matching.matched_ids`). None:
            all rows in the order of the votes, with ids and answers only.
        out_path: the CSV file to write.
        id_column: column of the ids of images, or names of groups.
        answer_column: column of the answers, unless these are probabilities.
        answer: class codes (`7`), class names, or one column of probabilities per class (see
            `sample_matching.class_columns`).
        unit: what has an answer.

    Raises:
        UserError: if ids are missing, duplicate or unknown, a row of probabilities does not sum to 1, or an id or class
            name cannot be written to a CSV file unchanged. Then nothing is written.
    """
    classes = read_label_space(classes_path).classes
    votes = read_answered(votes_path, classes, unit)
    faults = _vote_faults(votes, votes_path, classes)
    if sample_path is None:
        sample, source = pd.DataFrame({id_column: votes["image_id"]}, dtype="str"), Path(votes_path)
    else:
        sample, source = read_csv(sample_path, required=[id_column]), Path(sample_path)
    columns = answer_columns(sample, source, id_column, answer_column, answer, classes)
    ids = sample[id_column].tolist()
    images, how = matched_ids(ids, votes["image_id"].tolist())
    remedy = f"give the sample file of these test images, or run your command again with `-R {votes_path}`"
    faults += id_faults(source, ids, ids, source)
    faults += id_faults(votes_path, votes["image_id"].tolist(), images, source, remedy)
    raise_all(faults)
    if how:
        log(f"{source}: its ids are those of the test images {how}, such as {ids[0]} for {images[0]}")

    chosen = votes.set_index("image_id").loc[images]
    if answer == "probabilities":
        texts = wide_texts(chosen[[PROBABILITY + name for name in classes]].to_numpy(), columns)
    else:
        texts = {answer_column: answer_texts(chosen["prediction"], classes, answer)}
    with whole_file(out_path) as temporary:
        write_csv(sample.assign(**texts), temporary)
        check_submission(read_csv(temporary), out_path, sample, source, columns, classes, id_column, answer)


def check_submission(
    written: pd.DataFrame,
    path: str | Path,
    sample: pd.DataFrame,
    source: str | Path,
    columns: Mapping[str, int],
    classes: Sequence[str],
    id_column: str,
    answer: SubmissionAnswer,
) -> None:
    """Check a submission, as it was read back, against its sample.

    Args:
        written: the submission.
        path: its file, for errors.
        sample: the rows that it must have, in order, and its columns, those of the answers perhaps excepted.
        source: what the sample was read from, for errors.
        columns: the columns of the answers, from `answer_columns`.
        classes: names of the classes in the order of their codes.
        id_column: column of the ids.
        answer: whether the answers are class codes, class names, or probabilities.

    Raises:
        UserError: all errors at once: other columns; missing, duplicate or unknown ids; another order; answers that are
            not classes, such as `13.0` or ` 13`, or not probabilities.
    """
    expected = list(dict.fromkeys([*sample.columns, *columns]))
    faults = _row_faults(written, path, expected, sample[id_column].tolist(), source, id_column)
    raise_all(faults + _answer_faults(written, path, columns, classes, answer))


def answer_columns(
    sample: pd.DataFrame,
    source: str | Path,
    id_column: str,
    answer_column: str,
    answer: SubmissionAnswer,
    classes: Sequence[str],
) -> dict[str, int]:
    """The columns of the answers; for probabilities with the position of the class of each.

    Raises:
        UserError: if the sample has other columns than these answers need, or a class is called like the ids.
    """
    others = [name for name in sample.columns if name != id_column]
    if answer == "probabilities":
        if not others and id_column in classes:
            raise UserError(f"submission.id_column: {id_column!r} is a class as well; choose another name")
        return class_columns(others or classes, answer_forms(classes, answer), source)
    if answer_column == id_column:
        raise UserError(f"submission: id_column and answer_column are both {id_column!r}; name two columns")
    if others and answer_column not in others:
        raise UserError(
            f"{source}: has no column {answer_column!r} for the answers; it has {', '.join(sample.columns)}: "
            "set submission.answer_column to one of them"
        )
    return {answer_column: -1}


def _vote_faults(votes: pd.DataFrame, path: str | Path, classes: Sequence[str]) -> list[str]:
    faults, again = [], f"run your command again with `-R {path}`"
    probabilities = votes[[PROBABILITY + name for name in classes]].to_numpy()
    off = (np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE) | (probabilities < 0).any(axis=1)
    if off.any():
        shown = first_few(votes.loc[off, "image_id"])
        faults.append(f"{path}: {off.sum()} images have probabilities that do not sum to 1: {shown}; {again}")
    codes = votes["prediction"].to_numpy()
    outside = (codes < 0) | (codes >= len(classes))
    if outside.any():
        shown = first_few(votes.loc[outside, "image_id"])
        faults.append(f"{path}: {outside.sum()} predictions are not from 0 to {len(classes) - 1}: {shown}; {again}")
    names = np.array(classes, dtype=object)[np.where(outside, 0, codes)]
    differing = ~outside & (names != votes["prediction_name"].to_numpy(dtype=object))
    if differing.any():
        shown = first_few(votes.loc[differing, "image_id"])
        faults.append(f"{path}: prediction and prediction_name of {differing.sum()} images differ: {shown}; {again}")
    return faults


def _row_faults(
    frame: pd.DataFrame,
    path: str | Path,
    columns: Sequence[str],
    expected: Sequence[str],
    source: str | Path,
    id_column: str,
) -> list[str]:
    faults = []
    if list(frame.columns) != list(columns):
        faults.append(
            f"{path}: has the columns {', '.join(frame.columns)}, expected {', '.join(columns)}; correct them"
        )
    ids = frame[id_column].tolist()
    wrong = id_faults(path, ids, expected, source)
    if not wrong and ids != list(expected):
        row = next(row for row, (own, other) in enumerate(zip(ids, expected, strict=True)) if own != other)
        wrong = [f"{path}: row {row + 2} is {ids[row]}, but {expected[row]} in {source}; keep the order of the sample"]
    return faults + wrong


def _answer_faults(
    frame: pd.DataFrame,
    path: str | Path,
    columns: Mapping[str, int],
    classes: Sequence[str],
    answer: SubmissionAnswer,
) -> list[str]:
    if answer == "probabilities":
        return wide_faults(path, frame, columns)
    return [line for column in columns for line in answer_faults(path, frame, column, classes, answer)]


SUM_TOLERANCE = 1e-6  # how far a row may be from the sum 1; sample_matching.DECIMALS must be enough for it


def wide_faults(path: str | Path, frame: pd.DataFrame, columns: Mapping[str, int]) -> list[str]:
    """Lines about rows whose answers are not probabilities, or do not sum to 1 if every class has a column."""
    values = frame[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    wrong = ~((values >= 0) & (values <= 1)).all(axis=1)
    faults = []
    if wrong.any():
        shown = first_few(f"row {row + 2}" for row in np.flatnonzero(wrong))
        faults.append(f"{path}: {wrong.sum()} rows hold answers that are no numbers from 0 to 1: {shown}; correct them")
    if len(columns) > 1:
        off = ~wrong & (np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE)
        if off.any():
            shown = first_few(f"row {row + 2}" for row in np.flatnonzero(off))
            faults.append(f"{path}: the probabilities of {off.sum()} rows do not sum to 1: {shown}; correct them")
    return faults

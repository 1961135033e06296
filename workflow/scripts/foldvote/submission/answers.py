"""Answers as they stand in a CSV, by id: class codes or class names, never `13.0`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.ensemble import SubmissionAnswer as Answer
from foldvote.errors import raise_all
from foldvote.io.csv_files import read_csv
from foldvote.io.ids import first_few, id_faults


def answer_texts(codes: Iterable[int], classes: Sequence[str], answer: Answer) -> list[str]:
    """Class codes as the text of a submission: the class name for `name`, otherwise the code, such as `7`."""
    return [classes[int(code)] if answer == "name" else str(int(code)) for code in codes]


def answer_codes(texts: Iterable[str], classes: Sequence[str], answer: Answer) -> npt.NDArray[np.int64]:
    """The class codes of answers, -1 for a text that is not an answer: int64 array of shape (rows,).

    Only the exact form is accepted: `13.0`, `013`, ` 13` and `+13` are not codes. If a submission has probabilities,
    true answers may be codes or names.
    """
    forms: tuple[Answer, ...] = ("code", "name") if answer == "probabilities" else (answer,)
    known = {text: code for form in forms for code, text in enumerate(answer_texts(range(len(classes)), classes, form))}
    return np.array([known.get(text, -1) for text in texts], dtype=np.int64)


def answer_faults(
    path: str | Path, frame: pd.DataFrame, column: str, classes: Sequence[str], answer: Answer
) -> list[str]:
    """One line about invalid answers in `column`, with their row numbers (the first row below the header is 2)."""
    wrong = np.flatnonzero(answer_codes(frame[column], classes, answer) < 0)
    if not len(wrong):
        return []
    shown = first_few(f"{frame[column].iloc[row]!r} in row {row + 2}" for row in wrong)
    codes, names = f"a whole number from 0 to {len(classes) - 1}", "a class name of data/classes.json"
    rule = {"code": codes, "name": names}.get(answer, f"{codes} or {names}")
    return [f"{path}: column {column}: {len(wrong)} answers are not {rule}, written exactly so: {shown}; correct them"]


def read_answers(
    path: str | Path,
    ids: Sequence[str],
    source: str | Path,
    classes: Sequence[str],
    *,
    id_column: str = "ImageID",
    answer_column: str = "ans",
    answer: Answer = "code",
) -> npt.NDArray[np.int64]:
    """The true codes of some images, joined by id.

    Args:
        path: CSV file with one row for each of `ids`, in any order.
        ids: the images, in the order of the result.
        source: the file of the ids, for messages.
        classes: class names in the order of their codes.
        id_column: column of the ids.
        answer_column: column of the answers.
        answer: whether these are codes or class names; either with `probabilities`.

    Returns:
        int64 array of shape (len(ids),).

    Raises:
        UserError: if an id is missing, duplicate or unknown, or an answer is not a class; all errors at once.
    """
    frame = read_csv(path, required=[id_column, answer_column])
    faults = id_faults(path, frame[id_column].tolist(), ids, source)
    raise_all(faults + answer_faults(path, frame, answer_column, classes, answer))
    codes = answer_codes(frame[answer_column], classes, answer)
    return codes[pd.Index(frame[id_column]).get_indexer(pd.Index(list(ids)))]

"""Answers as they stand in a CSV, by id: class codes or class names, never `13.0`.

One rule holds for the sample, the true answers and what is handed in, with `submission.answer`:

- `name`: the class name, letter by letter.
- `code`: where every class name is a number (grades 1 to 5), this number as the data writes it; otherwise the position
  of the class in data/classes.json, counted from 0. If some names are numbers and others are not, the positions would
  contradict the names: such codes are refused.
- `probabilities`: one column for each class, called by its name or its code. True answers may be either.

Ids are those of the test images, or what `sample_matching.matched_ids` takes for them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.ensemble import SubmissionAnswer as Answer
from foldvote.data.label_space import is_number
from foldvote.errors import UserError, first_few, raise_all
from foldvote.io.csv_files import read_csv
from foldvote.io.ids import id_faults
from foldvote.submission.sample_matching import matched_ids


def class_codes(classes: Sequence[str]) -> list[str]:
    """What `answer: code` writes for each class: the class names if all are numbers, otherwise `0`, `1`, ...

    Raises:
        UserError: if only some names are numbers, and their positions are others.
    """
    if all(map(is_number, classes)):
        return list(classes)
    codes = [str(code) for code in range(len(classes))]
    wrong = [
        f"{name!r} as {code}" for name, code in zip(classes, codes, strict=True) if is_number(name) and name != code
    ]
    if wrong:
        raise UserError(
            f"submission.answer: code would write other numbers than the data: {first_few(wrong)}, because not every "
            "class name is a number; set submission.answer: name, or name all classes by numbers or none"
        )
    return codes


def answer_texts(codes: Iterable[int], classes: Sequence[str], answer: Answer) -> list[str]:
    """The text of each predicted class in a submission: its name for `name`, otherwise its code, see `class_codes`."""
    texts = classes if answer == "name" else class_codes(classes)
    return [texts[int(code)] for code in codes]


def answer_codes(texts: Iterable[str], classes: Sequence[str], answer: Answer) -> npt.NDArray[np.int64]:
    """The positions of answers in the list of classes, -1 for a text that is no answer: int64 array of shape (rows,).

    Only the exact form is accepted: `13.0`, `013`, ` 13` and `+13` are not codes. If a submission has probabilities,
    true answers may be codes or names.
    """
    known = {text: code for form in answer_forms(classes, answer) for code, text in enumerate(form)}
    return np.array([known.get(text, -1) for text in texts], dtype=np.int64)


def answer_forms(classes: Sequence[str], answer: Answer) -> list[Sequence[str]]:
    """The texts of all classes, in each form that an answer may have."""
    if answer == "name":
        return [classes]
    if answer == "code":
        return [class_codes(classes)]
    try:
        return [classes, class_codes(classes)]
    except UserError:
        return [classes]


def answer_faults(
    path: str | Path, frame: pd.DataFrame, column: str, classes: Sequence[str], answer: Answer
) -> list[str]:
    """One line about invalid answers in `column`, with their row numbers (the first row below the header is 2)."""
    wrong = np.flatnonzero(answer_codes(frame[column], classes, answer) < 0)
    if not len(wrong):
        return []
    shown = first_few(f"{frame[column].iloc[row]!r} in row {row + 2}" for row in wrong)
    names = "a class name of data/classes.json"
    codes = f"a whole number from 0 to {len(classes) - 1}"
    if all(map(is_number, classes)):
        codes = f"a number of the data ({first_few(classes)})"
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
    found, _ = matched_ids(frame[id_column].tolist(), ids)
    faults = id_faults(path, found, ids, source)
    raise_all(faults + answer_faults(path, frame, answer_column, classes, answer))
    codes = answer_codes(frame[answer_column], classes, answer)
    return codes[pd.Index(found).get_indexer(pd.Index(list(ids)))]

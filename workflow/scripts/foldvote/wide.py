"""Answers as probabilities: a column for each class, as Kaggle's wide form has it, or one for the second of two."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.answers import named
from foldvote.errors import Refusal

DECIMALS = 9
SUM_TOLERANCE = 1e-6  # how far a row may be from the sum 1; DECIMALS must be enough for it


def wide_columns(columns: Sequence[str], classes: Sequence[str], path: str | Path) -> dict[str, int]:
    """Which class each column of a sample file asks for.

    Args:
        columns: the sample's columns without its ids: the class names, or all codes, in any order; of two classes one
            column of any name asks for the second.
        classes: class names in the order of their codes.
        path: the sample, for messages.

    Returns:
        The code of each column.

    Raises:
        Refusal: if a column is no class, or a class has no column.
    """
    for names in (list(classes), [str(code) for code in range(len(classes))]):
        if sorted(columns) == sorted(names):
            return {column: names.index(column) for column in columns}
    if len(columns) == 1 and len(classes) == 2:
        return {columns[0]: 1}
    surplus = [name for name in columns if name not in classes]
    missing = [name for name in classes if name not in columns]
    faults = [f"{len(surplus)} columns are no class: {named(surplus)}"] if surplus else []
    faults += [f"{len(missing)} classes have no column: {named(missing)}"] if missing else []
    raise Refusal(
        f"{path}: {'; '.join(faults)}; submission.answer: probabilities needs a column for each class (its name or its "
        "code), or one column where there are two classes"
    )


def wide_texts(probabilities: npt.NDArray[np.float64], columns: Mapping[str, int]) -> dict[str, list[str]]:
    """The texts of each column: probabilities of shape (images, classes) with nine decimals."""
    return {name: [f"{value:.{DECIMALS}f}" for value in probabilities[:, code]] for name, code in columns.items()}


def wide_faults(path: str | Path, frame: pd.DataFrame, columns: Mapping[str, int]) -> list[str]:
    """Lines for rows whose answers are no probabilities, or do not sum to 1 where every class has a column."""
    values = frame[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    wrong = ~((values >= 0) & (values <= 1)).all(axis=1)
    faults = []
    if wrong.any():
        shown = named(f"row {row + 2}" for row in np.flatnonzero(wrong))
        faults.append(f"{path}: {wrong.sum()} rows hold answers that are no numbers from 0 to 1: {shown}; correct them")
    if len(columns) > 1:
        off = ~wrong & (np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE)
        if off.any():
            shown = named(f"row {row + 2}" for row in np.flatnonzero(off))
            faults.append(f"{path}: the probabilities of {off.sum()} rows do not sum to 1: {shown}; correct them")
    return faults

"""What the rows and columns of a sample file mean, as far as their texts say it: images and classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from foldvote.errors import UserError, first_few
from foldvote.io.names import plain_name

DECIMALS = 9  # of a probability


def matched_ids(ids: Sequence[str], images: Sequence[str]) -> tuple[list[str], str]:
    """The test image of each id of a sample or of true answers.

    Many samples name an image without its extension or without its folder. If no id is that of an image, but some are
    when images are called so, that is what they mean. Spaces around an id and its Unicode form do not count. A short
    name that two images share stays without an image.

    Args:
        ids: the ids of a file.
        images: the ids of the test images.

    Returns:
        For each of `ids` the id of the image, or its own plain spelling where there is none; and how the ids are
        written, such as "without extension"; empty if they are those of the images.
    """
    plain = [plain_name(name) for name in ids]
    best, hits, how = dict[str, str](), len(set(plain) & set(images)), ""
    if not hits:
        for called, form in _SHORT_FORMS.items():
            of_short: dict[str, list[str]] = {}
            for image in images:
                of_short.setdefault(form(PurePosixPath(image)), []).append(image)
            found = {short: of_short[short][0] for short in set(plain) if len(of_short.get(short, [])) == 1}
            if len(found) > hits:
                best, hits, how = found, len(found), called
    return [best.get(name, name) for name in plain], how


_SHORT_FORMS: dict[str, Callable[[PurePosixPath], str]] = {
    "without extension": lambda path: str(path.with_suffix("")) if path.name else "",
    "without folder": lambda path: path.name,
    "without folder and extension": lambda path: path.stem,
}


def class_columns(columns: Sequence[str], forms: Sequence[Sequence[str]], path: str | Path) -> dict[str, int]:
    """The class of each column of a sample file.

    Args:
        columns: the columns of the sample without its ids: all class names, or all codes, in any order; with two
            classes also a single column: that of the class it names, or of any other name for the second class.
        forms: the texts of all classes in the order of their codes, in each form that a column may have; the first one
            is their names.
        path: the sample, for messages.

    Returns:
        The code of each column.

    Raises:
        UserError: if a column is not a class, or a class has no column.
    """
    classes = forms[0]
    for names in forms:
        if sorted(columns) == sorted(names):
            return {column: names.index(column) for column in columns}
        if len(columns) == 1 and len(classes) == 2 and columns[0] in names:
            return {columns[0]: names.index(columns[0])}
    if len(columns) == 1 and len(classes) == 2:
        return {columns[0]: 1}
    surplus = [name for name in columns if name not in classes]
    missing = [name for name in classes if name not in columns]
    faults = [f"{len(surplus)} columns are no class: {first_few(surplus)}"] if surplus else []
    faults += [f"{len(missing)} classes have no column: {first_few(missing)}"] if missing else []
    raise UserError(
        f"{path}: {'; '.join(faults)}; submission.answer: probabilities needs a column for each class (its name or its "
        "code), or one column where there are two classes"
    )


def wide_texts(probabilities: npt.NDArray[np.float64], columns: Mapping[str, int]) -> dict[str, list[str]]:
    """The text of each column: probabilities of shape (images, classes) with nine decimals."""
    return {name: [f"{value:.{DECIMALS}f}" for value in probabilities[:, code]] for name, code in columns.items()}

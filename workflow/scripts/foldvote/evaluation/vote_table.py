"""The table of the ensemble's probabilities: its schema, and how its rows are made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.config.ensemble import Unit
from foldvote.data.label_space import LabelSpace
from foldvote.io.parquet import read_table, required

PROBABILITY = "p_"


def votes_schema(classes: Sequence[str], *, labelled: bool) -> pa.Schema:
    """Schema of `ensemble/{oof,test}.parquet`: one row per image, one column of probabilities per class.

    Args:
        classes: class names in the order of their codes.
        labelled: whether there are columns of the true label, its group (`profile`) and its fold, as in oof.parquet.
    """
    known = [("profile", pa.string()), required("label", pa.int16()), required("fold", pa.int8())] if labelled else []
    return pa.schema(
        [
            required("image_id", pa.string()),
            *known,
            *_predicted(classes),
        ]
    )


def groups_schema(classes: Sequence[str]) -> pa.Schema:
    """Schema of `ensemble/groups.parquet`: one row per group of test images, one column of probabilities per class."""
    return pa.schema([required("group", pa.string()), required("images", pa.int32()), *_predicted(classes)])


def read_answered(path: str | Path, classes: Sequence[str], unit: Unit) -> pd.DataFrame:
    """The probabilities and classes of all that has an answer.

    Args:
        path: ensemble/test.parquet, or ensemble/groups.parquet.
        classes: class names in the order of their codes.
        unit: what a row of the file is.

    Returns:
        The table; the column `image_id` holds the names of its units.
    """
    if unit == "image":
        return read_table(path, votes_schema(classes, labelled=False), key=("image_id",))
    return read_table(path, groups_schema(classes), key=("group",)).rename(columns={"group": "image_id"})


def votes_frame(
    rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], codes: npt.NDArray[np.integer], label_space: LabelSpace
) -> pd.DataFrame:
    """Add probabilities and predicted classes to a table, as in `votes_schema`.

    Args:
        rows: one row per image: `image_id`, and the columns of `labelled` where the schema has them.
        probabilities: shape (images, classes).
        codes: predicted classes, shape (images,).
        label_space: the classes.
    """
    votes = pd.DataFrame(probabilities, columns=[PROBABILITY + name for name in label_space.classes])
    votes["prediction"] = codes
    votes["prediction_name"] = np.asarray(label_space.classes, dtype=object)[codes]
    return pd.concat([rows.reset_index(drop=True), votes], axis=1)


def _predicted(classes: Sequence[str]) -> list[pa.Field]:
    return [
        required("prediction", pa.int16()),
        required("prediction_name", pa.string()),
        *(required(PROBABILITY + name, pa.float64()) for name in classes),
    ]

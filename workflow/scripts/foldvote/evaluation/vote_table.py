"""The table of the ensemble's probabilities: its schema, and how its rows are made."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.data.label_space import LabelSpace
from foldvote.io.parquet import required

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
            required("prediction", pa.int16()),
            required("prediction_name", pa.string()),
            *(required(PROBABILITY + name, pa.float64()) for name in classes),
        ]
    )


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

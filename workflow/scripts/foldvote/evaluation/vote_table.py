"""The table of voted probabilities: its schema, and rows of it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.data.label_space import LabelSpace
from foldvote.io.parquet import required

PROBABILITY = "p_"


def votes_schema(classes: Sequence[str], *, labelled: bool) -> pa.Schema:
    """Schema of `ensemble/{oof,test}.parquet`: a row an image, one probability a class."""
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
    rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], codes: npt.NDArray[np.integer], scheme: LabelSpace
) -> pd.DataFrame:
    """Rows of images with their probabilities and the class that was chosen of each, as in `votes_schema`."""
    votes = pd.DataFrame(probabilities, columns=[PROBABILITY + name for name in scheme.classes])
    votes["prediction"] = codes
    votes["prediction_name"] = np.asarray(scheme.classes, dtype=object)[codes]
    return pd.concat([rows.reset_index(drop=True), votes], axis=1)

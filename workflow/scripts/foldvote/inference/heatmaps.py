"""Heatmaps of what supports a class: the choice of images, and the table of the heatmaps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.evaluation.vote_table import PROBABILITY
from foldvote.io.parquet import read_table

MOST_WRONG, MOST_RIGHT = 12, 12  # images

ATTENTION = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("fold", pa.int8(), nullable=False),
        pa.field("code", pa.int16(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("rows", pa.int16(), nullable=False),
        pa.field("columns", pa.int16(), nullable=False),
        pa.field("heat", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class ClassHeatmap:
    """The heatmap of one image and one class.

    Attributes:
        image_id: the image.
        model, fold: the member; the image is in its validation fold.
        code: code of the class in the label space of the task.
        name: name of the class in the label space of the model, which may have only some of the factors.
        heat: uint8 (rows, columns), 255 where the support for the class is strongest; all 0 if there is none.
    """

    image_id: str
    model: str
    fold: int
    code: int
    name: str
    heat: npt.NDArray[np.uint8]


def choose_images(votes: pd.DataFrame) -> pd.DataFrame:
    """Choose the most confident wrong and right predictions, at most one image per person of each kind.

    The right ones are taken from each class in turn, so that rare classes are included.

    Args:
        votes: ensemble/oof.parquet.

    Returns:
        One row per image: image_id, fold, label, prediction (codes); wrong predictions first.
    """
    sure = votes.filter(regex=f"^{PROBABILITY}").max(axis=1)
    wrong = votes["prediction"] != votes["label"]
    asked = votes[["image_id", "profile", "fold", "label", "prediction"]].assign(sure=sure, wrong=wrong)
    asked = asked.sort_values(["sure", "image_id"], ascending=[False, True], kind="stable")
    asked = asked.drop_duplicates(["profile", "wrong"])
    right = asked[~asked["wrong"]]
    right = right.assign(turn=right.groupby("label").cumcount()).sort_values(["turn", "label"], kind="stable")
    chosen = pd.concat([asked[asked["wrong"]].head(MOST_WRONG), right.head(MOST_RIGHT)], ignore_index=True)
    return chosen[["image_id", "fold", "label", "prediction"]]


def read_heatmaps(path: Path) -> list[ClassHeatmap]:
    """Read the heatmaps that gradcam.write_attention wrote.

    Args:
        path: the parquet file.

    Raises:
        UserError: if the file is missing or damaged.
    """
    rows = read_table(path, ATTENTION, key=("image_id", "code")).to_dict("records")
    return [
        ClassHeatmap(
            **{name: row[name] for name in ("image_id", "model", "fold", "code", "name")},
            heat=np.frombuffer(row["heat"], np.uint8).reshape(row["rows"], row["columns"]),
        )
        for row in rows
    ]


def heatmap_rows(heatmaps: Sequence[ClassHeatmap]) -> pd.DataFrame:
    """Turn heatmaps into rows of the schema ATTENTION."""
    columns = ("image_id", "model", "fold", "code", "name")
    frame = pd.DataFrame([[getattr(one, name) for name in columns] for one in heatmaps], columns=list(columns))
    frame["rows"], frame["columns"] = (np.array([one.heat.shape[axis] for one in heatmaps], int) for axis in (0, 1))
    return frame.assign(heat=[one.heat.tobytes() for one in heatmaps])

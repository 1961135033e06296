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
import pyarrow as pa

from foldvote.errors import Refusal
from foldvote.files import canonical, whole_file
from foldvote.images import read_unchanged
from foldvote.sections import Images, parse_size
from foldvote.tables import read_record, read_table
from foldvote.workers import map_processes

_ROWS_A_BATCH = 256


def pack_pixels(manifest_path: Path, root: Path, rules: Images, size: str, roi: str, path: Path, workers: int) -> None:
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

    Raises:
        Refusal: if an image changed since the manifest was made (its id is named), or the region lies outside it.
    """
    manifest = read_table(manifest_path)
    height, width = parse_size(size)
    record = {"data_sha256": read_record(manifest_path)["data_sha256"], "size": size, "roi": roi}
    schema = pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("pixels", pa.binary(height * width * 3), nullable=False),
        ],
        metadata={"foldvote": canonical(record)},
    )
    work = list(zip(manifest["image_id"], manifest["path"], manifest["sha256"], strict=True))
    ready = map_processes(partial(_prepare, root, rules, (height, width), roi), work, workers, f"packing {size} pixels")
    with (
        whole_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for start in range(0, len(work), _ROWS_A_BATCH):
            ids = [image_id for image_id, _, _ in work[start : start + _ROWS_A_BATCH]]
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


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to uint8 (height, width, 3): area averaging to shrink, bicubic to enlarge."""
    shrinks = image.shape[0] * image.shape[1] >= height * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


class Pixels:
    """A packed file, read through the operating system's page cache.

    It may be handed to other processes: each opens the file for itself.

    Attributes:
        path: the Arrow file.
        record: {"data_sha256", "size", "roi"} as they were when it was packed.
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


def _prepare(root: Path, rules: Images, shape: tuple[int, int], roi: str, work: tuple[str, str, str]) -> bytes:
    image_id, relative, digest = work
    image = read_unchanged(root, relative, digest, rules, image_id)
    try:
        return resize(cut(image, roi), *shape).tobytes()
    except Refusal as refusal:
        raise Refusal(f"image {image_id}: {refusal}") from None

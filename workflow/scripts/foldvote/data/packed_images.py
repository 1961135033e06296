"""Packed images: cropped to the region of interest, resized, and stored in one memory-mapped Arrow file.

Data loaders, models of one size and all folds read the same file without copies: the operating system keeps its pages
in memory once for all of them. Every row has a checksum, which each process compares when it first reads the row.
"""

import json
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.config.data import Images
from foldvote.config.image_size import Framing
from foldvote.data.cropping import Region, cut
from foldvote.data.face_detection import BOXES
from foldvote.data.face_detector import Box, confident_region
from foldvote.data.image_decoding import read_unchanged
from foldvote.data.image_folders import Root, image_place
from foldvote.errors import UserError
from foldvote.io.files import canonical, sha256_file, whole_file
from foldvote.io.parquet import read_record, read_table
from foldvote.runtime.job_log import log
from foldvote.runtime.parallel_map import map_processes

_ROWS_PER_BATCH = 256


def pack_images(
    manifest_path: Path,
    root: Root,
    rules: Images,
    size: str,
    roi: str,
    path: Path,
    workers: int,
    boxes_path: Path | None = None,
    min_confidence: float = 0.5,
    fit: str = "squash",
) -> None:
    """Write the packed images of one manifest.

    Args:
        manifest_path: manifest of one split.
        root: the data folder, or with it those of external data.
        rules: how images are decoded.
        size: height x width such as "128x96".
        roi: region of interest, as in the configuration.
        path: the Arrow IPC file to write: columns image_id (text), pixels (fixed-size binary, uint8 height x width x
            RGB) and crc32 (of the id and the pixels), in the order of the manifest.
        workers: number of processes.
        boxes_path: for `face-MARGIN`: the table of face_detection.BOXES.
        min_confidence: for `face-MARGIN`: with a smaller confidence the centre is cropped.
        fit: what becomes of a region of another aspect ratio, as in the configuration.

    Raises:
        UserError: if an image has changed since the manifest was made (its id is named), the region lies outside an
            image, or the boxes are missing or belong to another manifest.
    """
    manifest = read_table(manifest_path)
    framing = Framing(size, roi, fit)
    height, width = framing.shape
    record: dict[str, Any] = {"data_sha256": read_record(manifest_path)["data_sha256"], **framing.record}
    boxes: list[Region | None] = [None] * len(manifest)
    if framing.of_faces:
        boxes = _confident_boxes(manifest, record["data_sha256"], boxes_path, min_confidence)
        fallbacks = boxes.count(None)
        record |= {"boxes_sha256": sha256_file(str(boxes_path)), "fallbacks": fallbacks}
        log(f"{path}: {fallbacks:,} of {len(boxes):,} images have no confident face; their centre is cropped")
    schema = pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("pixels", pa.binary(height * width * 3), nullable=False),
            pa.field("crc32", pa.uint32(), nullable=False),
        ],
        metadata={"foldvote": canonical(record)},
    )
    work = list(zip(manifest["image_id"], manifest["path"], manifest["sha256"], boxes, strict=True))
    ready = map_processes(partial(_prepare, root, rules, framing), work, workers, f"packing {size} pixels")
    with (
        whole_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for start in range(0, len(work), _ROWS_PER_BATCH):
            ids = [image_id for image_id, *_ in work[start : start + _ROWS_PER_BATCH]]
            pixels = [next(ready) for _ in ids]
            sums = [_checksum(image_id, image) for image_id, image in zip(ids, pixels, strict=True)]
            columns = [pa.array(ids), pa.array(pixels, schema.field("pixels").type), pa.array(sums, pa.uint32())]
            writer.write_batch(pa.record_batch(columns, schema=schema))


class PackedImages:
    """A packed file, which is memory-mapped. It can be pickled: each process opens the file for itself.

    Attributes:
        path: the Arrow file.
        record: {"data_sha256", "size", "roi"} at the time of packing, and "fit" where it is not squash; for faces also
            "boxes_sha256" and "fallbacks", the number of images without a confident face.
        framing: what of the images is packed, and how.
        shape: (height, width, 3).
        row_of: the row of each image id.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file.

        Raises:
            UserError: if the file is missing or damaged.
        """
        self.path = Path(path)
        self._blocks: list[np.ndarray] = []
        self._ids: list[str] = []
        sums: list[np.ndarray] = []
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
                self.record: dict[str, Any] = json.loads(file.schema.metadata[b"foldvote"])
                self.framing = Framing(self.record["size"], self.record["roi"], self.record.get("fit", "squash"))
                self.shape = (*self.framing.shape, 3)
                for index in range(file.num_record_batches):
                    batch = file.get_batch(index)
                    batch.validate(full=True)
                    self._ids += batch.column(0).to_pylist()
                    sums.append(batch.column("crc32").to_numpy())
                    flat = np.frombuffer(
                        batch.column(1).buffers()[1], dtype=np.uint8, count=len(batch) * int(np.prod(self.shape))
                    )
                    self._blocks.append(flat.reshape(len(batch), *self.shape))
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing; run your command again to make it") from error
        except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged ({error}); delete it and run your command again") from error
        self.row_of = {image_id: row for row, image_id in enumerate(self._ids)}
        self._sums = np.concatenate([*sums, np.empty(0, np.uint32)])
        self._sound = np.zeros(len(self._ids), dtype=bool)  # rows that this process has compared with their checksums

    def __len__(self) -> int:
        return len(self.row_of)

    def __getitem__(self, row: int) -> np.ndarray:
        """The image in a row: a read-only uint8 view of shape (height, width, 3).

        Raises:
            UserError: if the row is not what was packed.
        """
        image: np.ndarray = self._blocks[row // _ROWS_PER_BATCH][row % _ROWS_PER_BATCH]
        if not self._sound[row]:
            if _checksum(self._ids[row], image.data) != self._sums[row]:
                raise UserError(
                    f"{self.path}: damaged: the pixels of image {self._ids[row]} (row {row}) are not those that were "
                    "packed; delete it and run your command again"
                )
            self._sound[row] = True
        return image

    def __reduce__(self) -> tuple[type["PackedImages"], tuple[Path]]:
        return PackedImages, (self.path,)

    def rows(self, image_ids: list[str]) -> np.ndarray:
        """The rows of images, given by their ids: int64 array of shape (image_ids,).

        Raises:
            UserError: if an image was not packed; its id is named.
        """
        missing = [image_id for image_id in image_ids if image_id not in self.row_of]
        if missing:
            raise UserError(
                f"{self.path}: lacks {len(missing)} images, such as {missing[0]}; run your command again with "
                "`-R pixels`"
            )
        return np.array([self.row_of[image_id] for image_id in image_ids], dtype=np.int64)


class ConcatenatedImages:
    """Several packed files of one image shape as one sequence of images.

    Attributes:
        files: the packed files, in order.
        shape: (height, width, 3).
    """

    def __init__(self, *files: PackedImages) -> None:
        self.files, self.shape = files, files[0].shape
        self._starts = np.cumsum([0, *(len(file) for file in files)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> np.ndarray:
        """The image in a row: a read-only uint8 view of shape (height, width, 3)."""
        which = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.files[which][row - int(self._starts[which])]


def _checksum(image_id: str, pixels: bytes | memoryview) -> int:
    """CRC-32 of an image's id and its contiguous pixels."""
    return zlib.crc32(pixels, zlib.crc32(image_id.encode()))


def _prepare(root: Root, rules: Images, framing: Framing, work: tuple[str, str, str, Region | None]) -> bytes:
    image_id, relative, digest, box = work
    image = read_unchanged(*image_place(root, relative), digest, rules, image_id)
    try:
        return cut(image, framing, box).tobytes()
    except UserError as error:
        raise UserError(f"image {image_id}: {error}") from None


def _confident_boxes(
    manifest: pd.DataFrame, data_sha256: str, boxes_path: Path | None, min_confidence: float
) -> list[Region | None]:
    """One box per image in the order of the manifest; None if there is no face with enough confidence."""
    if boxes_path is None:
        raise UserError("roi face-MARGIN needs boxes, and none were given; run your command again to make them")
    table = read_table(boxes_path, BOXES, key=("image_id",))
    if (
        read_record(boxes_path)["data_sha256"] != data_sha256
        or table["image_id"].tolist() != manifest["image_id"].tolist()
    ):
        raise UserError(
            f"{boxes_path}: holds the boxes of other images than the manifest; run your command again with `-R boxes`"
        )
    rows = table[list(Box._fields)].to_numpy(float).tolist()
    return [confident_region(Box(*row), min_confidence) for row in rows]


def open_packed_images(path: Path, framing: Framing, data_sha256: str | None) -> PackedImages:
    """Open packed images and check that they are those expected.

    Args:
        path: the Arrow file.
        framing: what of the images must be packed, and how.
        data_sha256: digest of the manifest they must be packed from; None accepts any.

    Raises:
        UserError: if they were packed from other data, or with another size, region or fit.
    """
    packed = PackedImages(path)
    differing = [name for name, value in framing._asdict().items() if getattr(packed.framing, name) != value]
    differing += ["data_sha256"] if data_sha256 and packed.record.get("data_sha256") != data_sha256 else []
    if differing:
        raise UserError(
            f"{path}: was packed from other {', '.join(differing)} than this job expects; run your command again with "
            "`-R pixels`"
        )
    return packed

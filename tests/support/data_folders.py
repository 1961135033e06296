"""Tiny pictures and data folders, drawn for tests."""

import csv
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foldvote.config.experiment import Config, check_config

SHOTS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
PERSONS = (
    ("000001", "female", "Asian", 27),
    ("000002", "male", "Asian", 45),
    ("000003-1", "male", "Asian", 60),
    ("000004", "female", "Asian", 59),
)


def picture(height: int = 48, width: int = 40, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture: uint8 array of shape (height, width, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray | Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """The bytes of a picture in a format, such as `JPEG` or `PNG`."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 92} if form == "JPEG" else {}) | options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One PNG chunk with its length and CRC."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *others: bytes) -> bytes:
    """A PNG made by hand: `rows` are the unfiltered scan lines, each begun by a zero byte."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    parts = [png_chunk(b"IHDR", header), *others, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png16(values: np.ndarray, *others: bytes) -> bytes:
    """A 16-bit PNG of a uint16 array of shape (height, width), or (height, width, channels) with 3 or 4 channels."""
    height, width = values.shape[:2]
    colour = {1: 0, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, 16, colour, rows, *others)


def put(path: Path, content: bytes | str) -> Path:
    """Write a file; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def maskbase_folder(
    root: Path, persons: Sequence[tuple[str, str, str, int]] = PERSONS, tests: int = 3, suffix: str = ".jpg"
) -> Path:
    """A data folder in the home task's shape. Returns `root`."""
    rows = [(*person, "_".join(map(str, person))) for person in persons]
    put_csv(root / "train/train.csv", ["id", "gender", "race", "age", "path"], rows)
    for number, row in enumerate(rows):
        for place, shot in enumerate(SHOTS):
            put(root / f"train/images/{row[4]}/{shot}{suffix}", encoded(picture(seed=10 * number + place)))
    names = [f"{number:040x}.jpg" for number in range(tests, 0, -1)]
    put_csv(root / "eval/info.csv", ["ImageID", "ans"], [(name, 0) for name in names])
    for number, name in enumerate(names):
        put(root / "eval/images" / name, encoded(picture(seed=1000 + number)))
    return root


def table_folder(
    root: Path,
    rows: Sequence[Sequence[object]],
    header: Sequence[str] = ("path", "group", "label"),
) -> Path:
    """A data folder with `table.csv` and a picture for every path below `root` in its first column. Returns `root`."""
    put_csv(root / "table.csv", header, rows)
    for number, row in enumerate(rows):
        if row[0] and ".." not in str(row[0]) and not str(row[0]).startswith("/"):
            put(root / str(row[0]), encoded(picture(seed=number)))
    return root


def class_folders(root: Path, files: Sequence[str]) -> Path:
    """A data folder with a picture for every path, such as `train/cat/1.jpg`. Returns `root`."""
    for number, path in enumerate(files):
        put(root / path, encoded(picture(seed=number)))
    return root


def config_for(root: Path, data: dict[str, Any] | None = None, **others: Any) -> Config:
    """A configuration on a data folder; by default in the home task's layout, with results beside it."""
    values = {
        "results": str(root.parent / "results"),
        "data_root": str(root),
        "data": {"layout": "maskbase"} | (data or {}),
        "models": {"small": {"net": "resnet18"}},
    }
    return check_config(values | others)

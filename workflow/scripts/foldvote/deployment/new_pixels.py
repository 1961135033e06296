"""From a new image, a file or an array, to the pixels that the networks of an ensemble see, or why it is rejected."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from foldvote.config.data import Images
from foldvote.config.image_size import Framing
from foldvote.data.cropping import cut
from foldvote.data.face_detection import confident_face, model_path
from foldvote.data.image_decoding import BadImage, accepted_array, read_image
from foldvote.data.image_inspection import RejectedImage
from foldvote.errors import UserError
from foldvote.io.parquet import read_record

FileBelow = tuple[Path, str]  # a folder, and the path of a file below it
Source = FileBelow | np.ndarray
Reader = partial["NewImage | RejectedImage"]


@dataclass(frozen=True)
class NewImage:
    """An image that was read.

    Attributes:
        digest: SHA-256 as 64 hex digits, of the file or of the pixels.
        pixels: one array for each input of the networks, uint8 (height, width, 3).
    """

    digest: str
    pixels: list[np.ndarray]


class PixelRows:
    """Prepared images in memory, as networks read packed ones.

    Attributes:
        shape: (height, width, 3).
        row_of: the id of each image, in the order of the rows.
    """

    def __init__(self, ids: Sequence[str], pixels: Sequence[np.ndarray]) -> None:
        self.row_of, self._pixels = ids, pixels
        self.shape: tuple[int, int, int] = pixels[0].shape

    def __getitem__(self, row: int) -> np.ndarray:
        return self._pixels[row]


def reader(rules: Images, inputs: Sequence[Framing], min_confidence: float, *, of_pixels: bool) -> Reader:
    """`read_new` for one ensemble, as a function of the source that can be sent to worker processes.

    Args:
        rules: which images are accepted.
        inputs: how each kind of pixels that networks see is made.
        min_confidence: of a face, below which the centre is cropped.
        of_pixels: whether the digest is of the decoded pixels, and so that of a file's content in any format; otherwise
            it is of the file.

    Raises:
        UserError: if faces are cropped and the package of the detector is missing.
    """
    if any(framing.of_faces for framing in inputs):
        model_path()
    return partial(read_new, rules, tuple(inputs), min_confidence, of_pixels)


def read_new(
    rules: Images, inputs: Sequence[Framing], min_confidence: float, of_pixels: bool, source: Source
) -> NewImage | RejectedImage:
    """Read one image, crop and resize it; the arguments are those of `reader`.

    Returns:
        The image, or the reason for its rejection; a bad image raises nothing.
    """
    try:
        if isinstance(source, np.ndarray):
            data, image = b"", accepted_array(source, rules)
        else:
            data, decoded = read_image(*source, rules)
            image = decoded.pixels
        box = confident_face(image, min_confidence) if any(framing.of_faces for framing in inputs) else None
        pixels = [cut(image, framing, box) for framing in inputs]
    except BadImage as bad:
        return RejectedImage(bad.reason, bad.message)
    except UserError as error:
        return RejectedImage("roi", str(error))
    if of_pixels or isinstance(source, np.ndarray):
        data = repr(image.shape).encode() + image.tobytes()
    return NewImage(hashlib.sha256(data).hexdigest(), pixels)


def faces_fault(results: Path, inputs: Iterable[Framing]) -> str | None:
    """Why the faces of new images cannot be found as the run found them, or None.

    Args:
        results: the folder of the run.
        inputs: how the pixels that its networks see are made.
    """
    boxes = results / "data/boxes/split=train/boxes.parquet"
    if not any(framing.of_faces for framing in inputs) or not boxes.is_file():
        return None
    if read_record(boxes).get("source") != "file":
        return None
    return (
        f"{boxes}: the networks were trained on faces of your own table (faces.file), which has none of new images; "
        "train with faces.file: null, whose detector finds them"
    )

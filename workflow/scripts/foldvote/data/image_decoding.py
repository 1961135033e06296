"""Strict decoding of one image file: the same array at every use, or the reason why it is rejected.

Pillow accepts some damage silently: a JPEG that was cut within its scan and closed by an end marker has a grey tail,
and missing pixels of a PNG are black. So completeness is checked as well, here and in `image_integrity`.
"""

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageFile

from foldvote.data.image_integrity import END, JUNK, LOOK_AHEAD, container_fault, has_every_scan, jpeg_end, other_format
from foldvote.data.image_rules import ImageRules
from foldvote.errors import UserError
from foldvote.io.paths import real_path_below

_OPENED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "PNG": {".png", ".apng"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
    "TIFF": {".tif", ".tiff"},
}
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_LOST_SHARE = 8  # a damaged JPEG that lost more than height / 8 rows counts as truncated


class BadImage(Exception):
    """An image that is rejected.

    Attributes:
        reason: a code: empty, truncated, damaged, not_an_image, format, too_large, too_small, animated, missing,
            outside, unreadable.
        message: what is wrong and what to do, in words.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type["BadImage"], tuple[str, str]]:
        return BadImage, (self.reason, self.message)


@dataclass(frozen=True)
class Decoded:
    """An accepted image.

    Attributes:
        pixels: uint8 array of shape (height, width, 3), RGB, C-contiguous, upright (EXIF orientation applied).
        width: in pixels, upright.
        height: in pixels, upright.
        format: the format by content, such as `PNG`.
        flags: what is unusual: extension (the file name has another format), tail (a JPEG without its end marker),
            garbled (a JPEG whose last rows are invented by the decoder), first_frame (one of several frames), warned
            (Pillow gave a warning).
    """

    pixels: np.ndarray
    width: int
    height: int
    format: str
    flags: tuple[str, ...] = ()


def decode(data: bytes, rules: ImageRules) -> Decoded:
    """Decode the bytes of one image file.

    Args:
        data: the whole file.
        rules: which images are accepted.

    Raises:
        BadImage: with a reason code and a message.
    """
    if not data:
        raise BadImage("empty", "the file has no bytes; copy it again")
    with _strict_pillow(rules), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            image = _open(data, rules)
            several = _check_header(image, rules)
            form = "JPEG" if image.format == "MPO" else str(image.format)
            if form == "JPEG":
                image, flags = _load_jpeg(image, data, rules)
            else:
                flags = ()
                fault = container_fault(form, data)
                if fault:
                    raise BadImage(*fault)
                image.load()
            orientation, exif_fault = _orientation(image)
            image = _rgb(image, data, rules)
            image = image.transpose(_TRANSPOSITIONS[orientation]) if orientation in _TRANSPOSITIONS else image
        except BadImage:
            raise
        except Image.DecompressionBombError as error:
            raise _too_large(str(error)) from error
        except Exception as error:
            raise _damaged(error) from error
    unusual = {"first_frame": several, "warned": bool(warned) or exif_fault}
    flags += tuple(name for name, holds in unusual.items() if holds)
    pixels = np.array(image, dtype=np.uint8, order="C")
    return Decoded(pixels, image.width, image.height, form, flags)


def read_image(root: str | Path, relative: str, rules: ImageRules) -> tuple[bytes, Decoded]:
    """Read and decode one regular file below the data folder.

    Args:
        root: the data folder.
        relative: the image's path below it.
        rules: which images are accepted.

    Returns:
        The file's bytes and the decoded image, with the flag `extension` if its name has another format.

    Raises:
        BadImage: with a reason code and a message.
    """
    data = _read_plain_file(root, relative, rules)
    decoded = decode(data, rules)
    suffix = PurePosixPath(relative).suffix.lower()
    if suffix and suffix not in _SUFFIXES[decoded.format]:
        decoded = replace(decoded, flags=("extension", *decoded.flags))
    return data, decoded


def accepted_array(image: np.ndarray, rules: ImageRules) -> np.ndarray:
    """An image given as an array, as a decoded file would be: contiguous.

    Args:
        image: what should be uint8 of shape (height, width, 3), RGB, upright.
        rules: which images are accepted.

    Raises:
        BadImage: if it is no RGB image, or a file of this size would be rejected.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BadImage(
            "format", f"is an array of {image.dtype} {image.shape}; give uint8 of shape (height, width, 3), RGB"
        )
    height, width = image.shape[:2]
    if min(height, width) < rules.min_side:
        raise BadImage(
            "too_small", f"is {width}x{height} pixels (width x height), and each side needs at least {rules.min_side}"
        )
    if height * width > rules.max_megapixels * 1e6:
        raise BadImage(
            "too_large",
            f"{width}x{height} pixels (width x height) are more than {rules.max_megapixels:g} megapixels; shrink it",
        )
    return np.ascontiguousarray(image)


def file_digest(root: str | Path, relative: str, rules: ImageRules) -> str:
    """SHA-256 of one regular file below a folder, without decoding it: 64 hex digits.

    Args:
        root: the folder.
        relative: the image's path below it.
        rules: which images are accepted; they limit the size of the file.

    Raises:
        BadImage: with a reason code and a message.
    """
    return hashlib.sha256(_read_plain_file(root, relative, rules)).hexdigest()


def read_unchanged(root: str | Path, relative: str, sha256: str, rules: ImageRules, image_id: str = "") -> np.ndarray:
    """Decode an image whose file must not have changed since the manifest was made.

    Args:
        root: the data folder.
        relative: the image's path below it.
        sha256: digest of the file in the manifest.
        rules: which images are accepted.
        image_id: its name in messages; if empty, its path.

    Returns:
        uint8 array of shape (height, width, 3), RGB.

    Raises:
        UserError: naming the image, if its file is missing, changed or unreadable.
    """
    name = image_id or relative
    remedy = "put the file back, or run your command again with `-R manifest` to read all images anew"
    try:
        data = _read_plain_file(root, relative, rules)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"image {name}: {relative} has changed since the manifest was made; {remedy}")
        return decode(data, rules).pixels
    except BadImage as bad:
        raise UserError(f"image {name}: {relative}: {bad.message}; {remedy}") from None


def _read_plain_file(root: str | Path, relative: str, rules: ImageRules) -> bytes:
    most = int(rules.max_megapixels * 8e6) + (16 << 20)  # 16-bit RGBA without compression, and some metadata
    try:
        real = real_path_below(root, relative)
        if not stat.S_ISREG(real.lstat().st_mode):
            raise BadImage("unreadable", "is not a plain file; replace it by one")
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadImage("unreadable", "is not a plain file; replace it by one")
            if status.st_size > most:
                raise _too_large(f"the file has {status.st_size:,} bytes")
            return file.read()
    except ValueError as error:
        raise BadImage("outside", str(error)) from error
    except FileNotFoundError as error:
        raise BadImage("missing", "no such file, or a symlink to nowhere; put it there") from error
    except OSError as error:
        raise BadImage("unreadable", f"cannot be read: {error.strerror or error}; mend or replace it") from error


@contextmanager
def _strict_pillow(rules: ImageRules) -> Iterator[None]:
    """Set two global switches of Pillow for strict decoding during the block."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, int(rules.max_megapixels * 1e6) + 1
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


def _open(data: bytes, rules: ImageRules) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_OPENED)
    except OSError:  # Pillow's message is not helpful here; the first bytes are
        pass
    form, known = other_format(data)
    if form is None:
        begin = data[:24].decode("ascii", errors="replace").encode("ascii", errors="replace").decode()
        raise BadImage("not_an_image", f"is no image of a known format (it begins with {begin!r}); replace it")
    if not known:
        raise BadImage("format", f"is {form}, accepted are {', '.join(rules.formats)}; convert it")
    fault = container_fault(form, data)
    if fault:
        raise BadImage(*fault)
    if jpeg_end(data) is None if form == "JPEG" else len(data) < 64:
        raise BadImage("truncated", f"the {form} file ends within its header; copy it again")
    raise BadImage("damaged", f"begins like {form}, but its header cannot be read; copy it again")


def _check_header(image: Image.Image, rules: ImageRules) -> bool:
    """Reject an image by its header, before its pixels are decoded. Returns whether it has several frames."""
    form = "JPEG" if image.format == "MPO" else image.format
    if form not in rules.formats:
        allowed = ", ".join(rules.formats)
        raise BadImage(
            "format", f"is {form} by its content, accepted are {allowed}; convert it or add to images.formats"
        )
    width, height = image.size
    if width * height > rules.max_megapixels * 1e6:
        raise _too_large(f"{width}x{height} pixels (width x height) are more than {rules.max_megapixels:g} megapixels")
    if min(width, height) < rules.min_side:
        raise BadImage(
            "too_small",
            f"is {width}x{height} pixels (width x height), and each side needs at least {rules.min_side}; "
            "replace it or lower images.min_side",
        )
    # The further images of an MPO file are previews or depth maps: it is a photograph, not an animation.
    several = image.format != "MPO" and bool(getattr(image, "is_animated", False))
    if several and rules.animated == "refuse":
        raise BadImage("animated", "has several frames; replace it or set images.animated: first_frame")
    if several:
        image.seek(0)
    return several


def _load_jpeg(image: Image.Image, data: bytes, rules: ImageRules) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a JPEG and check that its scan is complete.

    libjpeg silently fills missing data before an end marker with grey. Without an end marker it runs out of data, which
    Pillow reports. Only a progressive file cannot be decoded without one, so it is decoded twice instead.
    """
    end = jpeg_end(data)
    if end is None and not rules.tolerate_tail:
        raise BadImage(
            "truncated",
            "the JPEG lacks its end, so it was cut; copy it again (images.tolerate_tail: true accepts a file that "
            "lacks no more than its end marker)",
        )
    body = data[: len(data) if end is None else end].rstrip(b"\xff")
    if end is not None and "progressive" not in image.info:
        try:
            return _loaded(body + LOOK_AHEAD), ()
        except OSError:
            pass
    try:
        image = _loaded(body + END)
    except OSError as error:
        raise _damaged(error, "truncated" if end is None else "damaged") from error
    height = image.size[1]
    lost = _lost_rows(image, body)
    if (lost or end is None) and "progressive" in image.info and not has_every_scan(data):
        raise BadImage("truncated", "the progressive JPEG lacks its last scans; copy it again")
    if lost > (0 if end is None else height // _LOST_SHARE):
        raise BadImage("truncated", f"{lost} of {height} rows of the JPEG are not in the file; copy it again")
    return image, ("tail",) if end is None else ("garbled",) if lost else ()


def _lost_rows(image: Image.Image, body: bytes) -> int:
    """How many rows the decoder invented: all from the first row that depends on what follows the file's data."""
    other = np.asarray(_loaded(body + JUNK + END))
    differs = (np.asarray(image) != other).reshape(other.shape[0], -1).any(axis=1)
    return int(other.shape[0] - np.argmax(differs)) if differs.any() else 0


def _loaded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.load()
    return image


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """EXIF orientation (1 is upright), and whether the EXIF data could not be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1)), False
    except Exception:  # a damaged EXIF block raises errors of many kinds, and does not affect the pixels
        return 1, True


def _rgb(image: Image.Image, data: bytes, rules: ImageRules) -> Image.Image:
    """Convert any mode to RGB over the background colour. Of 16 bits per channel the upper 8 are kept."""
    info = dict(image.info)
    clear = info.get("transparency")
    if image.format == "PNG" and data[24] == 16 and clear is not None:
        info["transparency"] = clear >> 8 if isinstance(clear, int) else tuple(value >> 8 for value in clear)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImage("format", f"has pixels of 32 bits (mode {image.mode}) of unknown range; convert it to 8 bits")
    image.info = info
    if not (image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in info):
        return image if image.mode == "RGB" else image.convert("RGB")
    # La and RGBa, with premultiplied alpha, cannot be converted to RGBA directly.
    plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    over = (image.convert(plain) if plain else image).convert("RGBA")
    under = Image.new("RGBA", over.size, (*rules.background, 255))
    under.alpha_composite(over)
    return under.convert("RGB")


def _too_large(what: str) -> BadImage:
    return BadImage("too_large", f"{what}; replace it or raise images.max_megapixels")


def _damaged(error: Exception, reason: str = "damaged") -> BadImage:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, EOFError) or "truncated" in text.lower():
        reason = "truncated"
    return BadImage(reason, f"cannot be decoded ({text}); copy it again or replace it")

"""Checks of the bytes of an image file: its format, and whether it is complete.

Pillow's verify() is not enough for PNG: it compares the CRCs, but accepts a file with fewer pixels than its header
says.
"""

import re
import zlib
from collections.abc import Iterator, Sequence

END = b"\xff\xd9"
LOOK_AHEAD = bytes(8)  # libjpeg reads up to 8 bytes past the last one that it needs
JUNK = b"\x5a" * 64  # skipped after a complete scan, decoded as pixels within a scan

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SCAN = 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA}
_STANDALONE = {0x01, 0xD8}
_IN_HEADER = {0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # markers that may occur between two scans
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type
# Left, top, step across and step down of the seven grids of an interlaced PNG.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CHUNK = 1 << 20  # bytes
_PNG = b"\x89PNG\r\n\x1a\n"
_KNOWN = {b"\xff\xd8\xff": "JPEG", _PNG: "PNG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_FOREIGN = {b"%PDF": "PDF", b"8BPS": "PSD", b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"\0\0\1\0": "ICO"}


def jpeg_end(data: bytes) -> int | None:
    """Offset of the end marker of a JPEG, or None if the file ends before it.

    Segments are skipped by their length, so that the end of a preview inside EXIF data does not count.
    """
    return next((at for kind, at in _segments(data) if kind == END[1]), None)


def has_every_scan(data: bytes) -> bool:
    """Whether the scans of a progressive JPEG contain every coefficient of every component to its last bit."""
    components: set[int] = set()
    refined: set[tuple[int, int]] = set()
    for kind, at in _segments(data):
        if kind in _FRAMES:
            components = set(data[at + 10 : at + 10 + 3 * data[at + 9] : 3])
        elif kind == _SCAN:
            count = data[at + 4]
            first, last, bits = data[at + 5 + 2 * count : at + 8 + 2 * count]
            if bits & 15 == 0:
                own = data[at + 5 : at + 5 + 2 * count : 2]
                refined |= {(component, k) for component in own for k in range(first, last + 1)}
    return len(refined) == 64 * len(components)


def container_fault(form: str, data: bytes) -> tuple[str, str] | None:
    """Reason code and message if a PNG or WebP file is truncated or a PNG is damaged, otherwise None.

    Args:
        form: the format, such as `PNG`; other formats are not checked.
        data: the whole file.
    """
    if form == "PNG":
        return _png_fault(data)
    if form == "WEBP":
        size = int.from_bytes(data[4:8], "little") + 8
        if len(data) < size:
            return "truncated", f"the WebP file has {len(data):,} of {size:,} bytes; copy it again"
    return None


def other_format(data: bytes) -> tuple[str | None, bool]:
    """The format of a file that Pillow could not open, by its first bytes, and whether foldvote can read that format.

    (None, False) if it is not a known image format.
    """
    for begin, name in _KNOWN.items():
        if data.startswith(begin):
            return name, True
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP", True
    for begin, name in _FOREIGN.items():
        if data.startswith(begin):
            return name, False
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", errors="replace").strip()
        return {"avif": "AVIF", "avis": "AVIF"}.get(brand, f"HEIC or video ({brand})"), False
    return None, False


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker byte and offset of every segment of a JPEG, up to the end marker."""
    at, in_scan = 2, False
    while found := _MARKER.search(data, at):
        at, kind = found.start(), data[found.start() + 1]
        following = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        # Inside a scan, damaged bytes may look like a marker: one that cannot occur there, or points out of the file.
        real = kind not in _STANDALONE and (not in_scan or (kind in _IN_HEADER and following < len(data)))
        if kind == END[1] or (real and following <= len(data)):
            yield kind, at
        if kind == END[1]:
            return
        in_scan = in_scan or (real and kind == _SCAN)
        at = following if real else at + 2


def _png_fault(data: bytes) -> tuple[str, str] | None:
    at, view, packed = len(_PNG), memoryview(data), []
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            break
        stated = int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        content = view[at + 8 : at + 8 + length]
        if zlib.crc32(content, zlib.crc32(kind)) != stated:
            name = kind.decode("ascii", errors="replace")
            return "damaged", f"the PNG chunk {name} at byte {at} does not match its CRC; copy it again"
        if kind == b"IDAT":
            packed.append(content)
        if kind == b"IEND":
            return _png_pixel_fault(data, packed)
        at += 12 + length
    return "truncated", "the PNG file ends before its last chunk; copy it again"


def _png_pixel_fault(data: bytes, packed: Sequence[memoryview]) -> tuple[str, str] | None:
    """Whether the compressed data contains as many pixels as the header says, counted in chunks to save memory."""
    needed, count = _png_pixel_bytes(data), 0
    inflater = zlib.decompressobj()
    try:
        for piece in packed:
            left: bytes | memoryview = piece
            while len(left) and count < needed:
                count += len(inflater.decompress(left, _CHUNK))
                left = inflater.unconsumed_tail
        count += len(inflater.flush(_CHUNK)) if count < needed else 0
    except zlib.error as error:
        return "damaged", f"the PNG's pixels cannot be unpacked ({error}); copy it again"
    if count < needed:
        return "truncated", f"the PNG holds {count:,} of {needed:,} bytes of pixels; copy it again"
    return None


def _png_pixel_bytes(data: bytes) -> int:
    """Size of the uncompressed pixels of a PNG in bytes, with the filter byte of each line."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    bits = data[24] * _CHANNELS[data[25]]
    grids = _ADAM7 if data[28] else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in grids:
        columns, lines = -(-(width - left) // across), -(-(height - top) // down)
        total += lines * (1 + (columns * bits + 7) // 8) if columns > 0 and lines > 0 else 0
    return total

"""Files that are cut or damaged, or no images at all, are refused with the reason."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from foldvote.config.data import Images
from foldvote.data.image_decoding import decode
from support.data_folders import encoded, picture, png, png_chunk
from support.image_faults import RULES, TAIL, noisy, refused, scan_of


@pytest.mark.parametrize("progressive", [False, True])
def test_f02_a_jpeg_cut_anywhere_is_truncated(progressive):
    data = encoded(noisy(), progressive=progressive)
    assert refused(data[: len(data) // 2]).reason == "truncated"
    for cut in range(3, len(data) - 1, 97):
        assert refused(data[:cut]).reason == "truncated"
        assert refused(data[:cut], TAIL).reason == "truncated"


def test_f02_a_cut_jpeg_closed_by_an_end_marker_is_truncated():
    data = encoded(noisy())
    begin, end = scan_of(data)
    for share in (0.1, 0.5, 0.7):
        closed = data[: int(begin + share * (end - begin))] + b"\xff\xd9"
        Image.open(io.BytesIO(closed)).load()  # Pillow takes it, with a grey tail
        bad = refused(closed)
        assert bad.reason == "truncated" and "rows" in bad.message


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_f02_other_formats_cut_at_half_are_refused(form):
    data = encoded(noisy(), form)
    rules = Images(formats=["PNG", "WEBP", "GIF", "BMP", "TIFF"])
    assert decode(data, rules).format == form
    assert refused(data[: len(data) // 2], rules).reason in {"truncated", "damaged"}


def test_f02_a_png_or_webp_that_lacks_only_its_last_bytes_is_truncated():
    for form in ("PNG", "WEBP"):
        data = encoded(picture(), form, **({"lossless": True} if form == "WEBP" else {}))
        assert refused(data[:-5]).reason == "truncated"


def test_f03_a_progressive_jpeg_cut_between_two_scans_is_truncated():
    whole = encoded(noisy(), progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xc4"]
    assert len(scans) > 5
    for at in scans[1:]:
        assert refused(whole[:at], TAIL).reason == "truncated"


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html></html>", b"just text\n", b"\0" * 500, b"GARBAGE"])
def test_f05_html_or_text_is_not_an_image(content):
    assert refused(content).reason == "not_an_image"


def test_f11_a_bad_crc_in_any_chunk_is_damaged():
    data = encoded(picture(), "PNG", dpi=(72, 72))
    for kind in (b"IHDR", b"pHYs", b"IDAT", b"IEND"):
        at = data.index(kind)
        length = int.from_bytes(data[at - 4 : at], "big")
        crc = at + 4 + length
        broken = data[:crc] + bytes([data[crc] ^ 1]) + data[crc + 1 :]
        assert refused(broken).reason == "damaged"


def test_f11_pixels_too_short_for_the_header_are_refused():
    rows = (b"\0" + bytes(range(60))) * 20
    assert decode(png(20, 20, 8, 2, rows), RULES).flags == ()
    for lines in (19, 10, 1, 0):
        bad = refused(png(20, 20, 8, 2, rows[: 61 * lines]))
        assert bad.reason == "truncated" and f"{61 * lines:,} of 1,220 bytes" in bad.message


def test_f11_pixels_that_do_not_unpack_are_refused():
    packed = bytearray(zlib.compress((b"\0" + bytes(range(60))) * 20))
    packed[len(packed) // 2] ^= 255
    header = (20).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", bytes(packed)), png_chunk(b"IEND", b"")]
    assert refused(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).reason == "damaged"


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
def test_f11_whole_png_files_of_every_kind_pass(mode, interlaced):
    for width, height in ((16, 16), (17, 23), (33, 18)):
        pixels = picture(height, width)
        image = Image.fromarray(pixels).convert(mode)
        data = (
            interlace(np.asarray(image)) if interlaced and mode in ("L", "RGB", "RGBA", "LA") else encoded(image, "PNG")
        )
        expected = image.convert("RGBA").convert("RGB")
        assert np.array_equal(decode(data, RULES).pixels, np.asarray(expected))


def interlace(pixels: np.ndarray) -> bytes:
    """An interlaced 8-bit PNG."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    grids = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(
        b"\0" + line.tobytes() for left, top, across, down in grids for line in pixels[top::down, left::across]
    )
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    header = b"".join(side.to_bytes(4, "big") for side in (pixels.shape[1], pixels.shape[0])) + bytes(
        [8, colour, 0, 0, 1]
    )
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

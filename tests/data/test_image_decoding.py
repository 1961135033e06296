"""Strict decoding: accepted images are decoded correctly, refused ones have a reason."""

import io
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from foldvote.config.data import Images
from foldvote.data.image_decoding import BadImage, decode, read_image, read_unchanged
from foldvote.errors import UserError
from foldvote.io.files import sha256_bytes
from support.data_folders import encoded, picture, png, png16, png_chunk, put
from support.image_faults import RULES, TAIL, noisy, refused, scan_of


def test_a_good_image_is_an_upright_rgb_array():
    pixels = picture(30, 20)
    decoded = decode(encoded(pixels, "PNG"), RULES)
    assert (decoded.width, decoded.height, decoded.format, decoded.flags) == (20, 30, "PNG", ())
    assert decoded.pixels.dtype == np.uint8 and decoded.pixels.flags.c_contiguous and decoded.pixels.flags.writeable
    assert np.array_equal(decoded.pixels, pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("seed", range(5))
def test_a_whole_jpeg_has_no_flags_and_the_pixels_of_pillow(options, seed):
    data = encoded(picture(61, 47, seed), **options)
    decoded = decode(data, RULES)
    assert decoded.flags == ()
    assert np.array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(data))))


def test_bytes_after_the_end_marker_are_no_fault():
    decoded = decode(encoded(picture()) + b"trailer" * 9, RULES)
    assert decoded.flags == ()


def test_f01_an_empty_file_is_empty():
    assert refused(b"").reason == "empty"


def test_f02_strictness_does_not_hang_on_pillows_global_switch(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(noisy(), "PNG")
    assert refused(data[: len(data) // 2]).reason == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("lacking", [1, 2])
def test_f03_a_jpeg_without_its_end_marker_is_taken_only_if_tolerated(progressive, lacking):
    whole = encoded(noisy(), progressive=progressive)
    bad = refused(whole[:-lacking])
    assert bad.reason == "truncated" and "tolerate_tail" in bad.message
    decoded = decode(whole[:-lacking], TAIL)
    assert decoded.flags == ("tail",)
    assert np.array_equal(decoded.pixels, decode(whole, RULES).pixels)


def test_f03_tolerance_ends_at_the_end_marker():
    whole = encoded(noisy())
    for lacking in (4, 6, 12):
        assert refused(whole[:-lacking], TAIL).reason == "truncated"


def test_f04_garbled_bytes_that_still_decode_are_accepted():
    data = encoded(noisy(256, 192))
    begin, end = scan_of(data)
    rng = random.Random(3)
    for _ in range(40):
        at = rng.randrange(begin, (begin + end) // 2)
        garbled = data[:at] + bytes(rng.randrange(1, 255) for _ in range(16)) + data[at + 16 :]
        assert decode(garbled, RULES).pixels.shape == (256, 192, 3)


def test_f04_rows_that_the_decoder_made_up_are_flagged():
    data = encoded(noisy(256, 192))
    begin, end = scan_of(data)
    cuts = range(begin + 50, end - 400, (end - begin) // 40)
    flags = [decode(data[:at] + data[at + 300 :], RULES).flags for at in cuts]
    # Bytes left out in mid-scan put the decoder out of step: at the end it has too few pixels, or some to spare.
    assert set(flags) == {(), ("garbled",)}


def test_f06_the_real_format_counts_and_a_wrong_extension_is_flagged(tmp_path):
    put(tmp_path / "a.jpg", encoded(picture(), "PNG"))
    put(tmp_path / "b.JPEG", encoded(picture()))
    _, decoded = read_image(tmp_path, "a.jpg", RULES)
    assert (decoded.format, decoded.flags) == ("PNG", ("extension",))
    assert read_image(tmp_path, "b.JPEG", RULES)[1].flags == ()


def test_f06_formats_outside_the_list_are_refused_by_name():
    gif = refused(encoded(picture(), "GIF"))
    assert gif.reason == "format" and "GIF" in gif.message and "images.formats" in gif.message
    avif = refused(b"\0\0\0\x20ftypavif" + bytes(40))
    assert avif.reason == "format" and "AVIF" in avif.message


@pytest.mark.parametrize("progressive", [False, True])
def test_f07_a_cmyk_jpeg_has_the_right_colours(progressive):
    red_blue = np.zeros((32, 32, 3), dtype=np.uint8)
    red_blue[:, :16, 0] = 255
    red_blue[:, 16:, 2] = 255
    data = encoded(Image.fromarray(red_blue).convert("CMYK"), quality=100, progressive=progressive)
    assert b"Adobe" in data
    pixels = decode(data, RULES).pixels.astype(int)
    assert np.abs(pixels - red_blue).max() <= 6


def test_f08_grey_palette_and_alpha_become_rgb_over_the_background():
    grey = np.asarray(Image.fromarray(picture()).convert("L"))
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(decode(encoded(grey, "PNG"), RULES).pixels, expected)

    palette = Image.fromarray(picture()).quantize(16)
    assert np.array_equal(decode(encoded(palette, "PNG"), RULES).pixels, np.asarray(palette.convert("RGB")))
    clear = palette.getpixel((0, 0))
    pixels = decode(encoded(palette, "PNG", transparency=clear), Images(background=(1, 2, 3))).pixels
    assert (pixels[np.asarray(palette) == clear] == (1, 2, 3)).all()

    alpha = np.dstack([np.full((20, 20, 3), 200, np.uint8), np.full((20, 20), 128, np.uint8)])
    alpha[0, :, 3], alpha[1, :, 3] = 0, 255
    pixels = decode(encoded(alpha, "PNG"), Images(background=(0, 100, 255))).pixels
    assert (pixels[0] == (0, 100, 255)).all() and (pixels[1] == 200).all()
    assert np.abs(pixels[5].astype(int) - (100, 150, 227)).max() <= 1

    grey_alpha = Image.fromarray(alpha).convert("LA")
    assert (decode(encoded(grey_alpha, "PNG"), Images(background=(9, 8, 7))).pixels[0] == (9, 8, 7)).all()
    webp = decode(encoded(alpha, "WEBP", lossless=True, exact=True), Images(background=(9, 8, 7))).pixels
    assert (webp[0] == (9, 8, 7)).all()


def test_f08_one_bit_images_are_black_and_white():
    mask = np.asarray(picture())[:, :, 0] > 127
    pixels = decode(encoded(Image.fromarray(mask), "PNG"), RULES).pixels
    assert np.array_equal(pixels[:, :, 1], mask * np.uint8(255))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_f09_sixteen_bits_keep_their_upper_eight(channels):
    values = np.random.default_rng(1).integers(0, 65536, (20, 24, channels), dtype=np.uint16)
    if channels == 4:
        values[:, :, 3] = 65535
    pixels = decode(png16(values[:, :, 0] if channels == 1 else values), RULES).pixels
    expected = (values >> 8).astype(np.uint8)[:, :, : max(1, channels if channels < 4 else 3)]
    assert np.array_equal(pixels, np.broadcast_to(expected, pixels.shape))
    assert len(np.unique(pixels)) > 200


def test_f09_a_transparent_grey_of_sixteen_bits_shows_the_background():
    values = np.full((20, 20), 0x8000, dtype=np.uint16)
    values[:10] = 0x1234
    pixels = decode(png16(values, png_chunk(b"tRNS", b"\x12\x34")), Images(background=(7, 8, 9))).pixels
    assert (pixels[:10] == (7, 8, 9)).all() and (pixels[10:] == 0x80).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_f10_exif_orientation_is_applied(orientation, form):
    upright = picture(48, 32)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.ascontiguousarray(stored), form, exif=exif)
    decoded = decode(data, Images(formats=["PNG", "JPEG", "TIFF"]))
    assert (decoded.height, decoded.width) == (48, 32) == decoded.pixels.shape[:2]
    assert decoded.flags == ()
    if form == "JPEG":
        assert np.abs(decoded.pixels.astype(int) - upright).mean() < 4
    else:
        assert np.array_equal(decoded.pixels, upright)


def test_f10_a_damaged_exif_block_spoils_no_pixel_and_is_flagged():
    data = encoded(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode(data, RULES).flags == ("warned",)


# What the process may take is limited, not what it took: a child's peak, as the system counts it, is its parent's.
_BOMB = """
import resource, sys
import psutil
from foldvote.config.data import Images
from foldvote.data.image_decoding import BadImage, decode
data, rules = open(sys.argv[1], "rb").read(), Images(max_megapixels=float(sys.argv[2]))
most = psutil.Process().memory_info().vms + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    decode(data, rules)
except BadImage as bad:
    print(bad.reason)
"""


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_f12_a_huge_image_is_refused_from_its_header(tmp_path, form):
    if form == "PNG":
        data = png(40_000, 40_000, 8, 2, bytes(1000))
    else:
        data = encoded(picture())
        at = data.index(b"\xff\xc0") + 5
        data = data[:at] + (40_000).to_bytes(2, "big") * 2 + data[at + 4 :]
    path = put(tmp_path / "bomb", data)
    for most in ("50", "1000"):
        done = subprocess.run(
            [sys.executable, "-c", _BOMB, str(path), most],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "workflow/scripts")},
        )
        assert done.stdout.split() == ["too_large"]


def test_f12_more_than_pillows_own_limit_is_accepted_if_configured(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encoded(picture(), "PNG"), RULES).flags == ()
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 15)])
def test_f13_too_small_says_so_in_words(size):
    bad = refused(encoded(Image.new("RGB", size), "PNG"))
    assert bad.reason == "too_small"
    assert f"{size[0]}x{size[1]} pixels (width x height)" in bad.message and "at least 16" in bad.message


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_f14_an_animated_image_is_refused_or_gives_its_first_frame(form):
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    rules = {"formats": ["GIF", "WEBP", "PNG", "TIFF"]}
    assert refused(data, Images(**rules)).reason == "animated"
    decoded = decode(data, Images(**rules, animated="first_frame"))
    assert decoded.flags == ("first_frame",)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decoded.pixels, expected)


def test_f14_a_photograph_with_an_embedded_preview_is_no_animation():
    preview = Image.fromarray(picture(seed=9))
    data = encoded(picture(), "MPO", save_all=True, append_images=[preview], quality=95)
    decoded = decode(data, RULES)
    assert (decoded.format, decoded.flags) == ("JPEG", ())


def test_f15_an_image_gone_or_changed_names_its_id(tmp_path):
    data = encoded(picture())
    path = put(tmp_path / "a.jpg", data)
    digest = sha256_bytes(data)
    assert np.array_equal(read_unchanged(tmp_path, "a.jpg", digest, RULES, "person/7"), decode(data, RULES).pixels)
    path.write_bytes(encoded(picture(seed=1)))
    with pytest.raises(UserError, match=r"image person/7: a\.jpg has changed"):
        read_unchanged(tmp_path, "a.jpg", digest, RULES, "person/7")
    path.unlink()
    with pytest.raises(UserError, match=r"image person/7: a\.jpg: no such file"):
        read_unchanged(tmp_path, "a.jpg", digest, RULES, "person/7")
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"image a\.jpg: "):
        read_unchanged(tmp_path, "a.jpg", sha256_bytes(b""), RULES)


def reading(root: Path, relative: str) -> str:
    with pytest.raises(BadImage) as caught:
        read_image(root, relative, RULES)
    return caught.value.reason


def test_f16_pipes_loops_folders_and_ways_out_are_refused_without_hanging(tmp_path, monkeypatch):
    root = tmp_path / "data"
    put(root / "good.jpg", encoded(picture()))
    put(tmp_path / "outside.jpg", encoded(picture()))
    os.mkfifo(root / "pipe.jpg")
    (root / "folder.jpg").mkdir()
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "nowhere.jpg").symlink_to("gone.jpg")
    (root / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "way").symlink_to(tmp_path)
    (root / "within.jpg").symlink_to("good.jpg")
    assert read_image(root, "within.jpg", RULES)[1].flags == ()
    assert reading(root, "pipe.jpg") == "unreadable"
    assert reading(root, "folder.jpg") == "unreadable"
    assert reading(root, "loop.jpg") == "unreadable"
    assert reading(root, "nowhere.jpg") == "missing"
    assert reading(root, "out.jpg") == "outside"
    assert reading(root, "way/outside.jpg") == "outside"
    assert reading(root, "../outside.jpg") == "outside"
    assert reading(root, str(root / "good.jpg")) == "outside"

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert reading(root, "good.jpg") == "unreadable"


def test_f16_the_data_folder_itself_may_be_a_symlink(tmp_path):
    put(tmp_path / "real/a.jpg", encoded(picture()))
    (tmp_path / "link").symlink_to("real")
    assert read_image(tmp_path / "link", "a.jpg", RULES)[1].format == "JPEG"


def test_f53_unicode_names_with_spaces_are_read(tmp_path):
    name = "가나다 사진/내 얼굴 (1).jpg"
    put(tmp_path / name, encoded(picture()))
    data, decoded = read_image(tmp_path, name, RULES)
    assert data == (tmp_path / name).read_bytes() and decoded.flags == ()

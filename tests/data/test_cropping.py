"""Regions of interest and resizing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.config.image_size import Framing
from foldvote.data.cropping import crop_face, crop_region, cut, face_region, resize
from foldvote.errors import UserError

SIDES = st.integers(1, 40)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_centre_cut_is_in_the_middle_and_never_larger_than_the_image(
    height: int, width: int, cut_height: int, cut_width: int
) -> None:
    image = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    region = crop_region(image, f"centre-{cut_height}x{cut_width}")
    assert region.shape == (min(height, cut_height), min(width, cut_width), 3)
    assert np.shares_memory(region, image)
    top, left = np.argwhere((image == region[0, 0]).all(axis=-1))[0]
    assert abs(top - (height - top - region.shape[0])) <= 1
    assert abs(left - (width - left - region.shape[1])) <= 1


@given(SIDES, SIDES, st.integers(0, 50), st.integers(0, 50), st.integers(1, 50), st.integers(1, 50))
def test_a_box_is_cut_to_the_image_or_refused_where_it_lies_outside(
    height: int, width: int, left: int, top: int, more_width: int, more_height: int
) -> None:
    image = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    roi = f"box-{left}-{top}-{left + more_width}-{top + more_height}"
    rows, columns = range(top, min(top + more_height, height)), range(left, min(left + more_width, width))
    inside = [(y, x) for y in rows for x in columns]
    if inside:
        region = crop_region(image, roi)
        assert region.reshape(-1, 3).tolist() == [image[place].tolist() for place in inside]
    else:
        with pytest.raises(UserError, match=rf"roi {roi} lies outside an image of {width}x{height}"):
            crop_region(image, roi)


def test_no_region_is_the_whole_image() -> None:
    image = np.zeros((5, 4, 3), np.uint8)
    assert crop_region(image, "none") is image
    with pytest.raises(UserError, match="lies outside"):
        crop_region(image, f"box-{10**30}-0-{10**31}-5")


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 255))
def test_a_resize_has_the_asked_shape_and_keeps_a_plain_colour(
    height: int, width: int, new_height: int, new_width: int, level: int
) -> None:
    resized = resize(np.full((height, width, 3), level, np.uint8), new_height, new_width)
    assert resized.shape == (new_height, new_width, 3) and resized.dtype == np.uint8
    assert (resized == level).all()


def test_shrinking_averages_areas() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    wanted = image.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize(image, 2, 3) - wanted).max() <= 0.5


@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 60), st.integers(8, 60))
def test_a_padded_image_is_whole_in_its_own_aspect_ratio_between_grey_bars(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    image = np.full((height, width, 3), 40, np.uint8)
    image[:, :, 0] = 200
    framed = cut(image, Framing(f"{new_height}x{new_width}", "none", "pad"), None)
    assert framed.shape == (new_height, new_width, 3) and framed.dtype == np.uint8
    seen = (framed == image[0, 0]).all(axis=-1)
    assert (framed[~seen] == 128).all()
    rows, columns = seen.any(axis=1).sum(), seen.any(axis=0).sum()
    assert seen.sum() == rows * columns  # one rectangle, and nothing in it is a bar
    assert rows == new_height or columns == new_width
    assert abs(columns - rows * width / height) <= 0.5 + 0.5 * width / height  # each side is rounded by half a pixel
    top, left = np.argwhere(seen)[0]
    assert abs(top - (new_height - top - rows)) <= 1 and abs(left - (new_width - left - columns)) <= 1


def test_every_corner_of_a_padded_image_is_seen_and_none_of_a_cropped_one() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    for corner in (np.s_[:8, :8], np.s_[:8, -8:], np.s_[-8:, :8], np.s_[-8:, -8:]):
        image[corner] = 255
    padded, cropped = (cut(image, Framing("50x50", "none", fit), None) for fit in ("pad", "crop"))
    assert all((padded[row, column] == 255).all() for row in (15, 34) for column in (0, 49))
    assert (padded[[14, 35]] == 128).all() and not cropped.any()


@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 60), st.integers(8, 60))
def test_a_cropped_image_keeps_the_aspect_ratio_and_loses_one_pair_of_edges_only(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    image = np.concatenate([places, places[..., :1]], axis=-1).astype(np.uint8)
    left, top, right, bottom = face_region(None, 0, (height, width), (new_height, new_width))
    rows, columns = bottom - top, right - left
    assert rows == height or columns == width
    assert abs(columns - rows * new_width / new_height) <= 0.5 + 0.5 * new_width / new_height
    assert abs(top - (height - bottom)) <= 1 and abs(left - (width - right)) <= 1
    found = cut(image, Framing(f"{new_height}x{new_width}", "none", "crop"), None)
    assert np.array_equal(found, resize(image[top:bottom, left:right], new_height, new_width))


@given(st.sampled_from(["squash", "pad", "crop"]), st.integers(1, 9))
def test_an_image_of_the_outputs_aspect_ratio_is_the_same_in_every_fit(fit: str, times: int) -> None:
    image = np.random.default_rng(times).integers(256, size=(8 * times, 6 * times, 3), dtype=np.uint8)
    assert np.array_equal(cut(image, Framing("16x12", "none", fit), None), resize(image, 16, 12))


def test_a_region_fits_and_a_face_has_the_aspect_ratio_already() -> None:
    image = np.random.default_rng(0).integers(256, size=(60, 80, 3), dtype=np.uint8)
    for fit in ("squash", "pad", "crop"):
        found = cut(image, Framing("20x20", "box-10-20-50-40", fit), None)
        assert np.array_equal(found, cut(image[20:40, 10:50], Framing("20x20", "none", fit), None))
        face = cut(image, Framing("20x20", "face-0.30", fit), (20, 10, 40, 50))
        assert np.array_equal(face, cut(image, Framing("20x20", "face-0.30"), (20, 10, 40, 50)))


LONG = st.integers(1, 900)


@st.composite
def boxed(draw: st.DrawFn) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """A box within an image, and the image's height and width."""
    height, width = draw(LONG), draw(LONG)
    across = sorted(draw(st.tuples(*[st.floats(0, width, width=32)] * 2)))
    down = sorted(draw(st.tuples(*[st.floats(0, height, width=32)] * 2)))
    return (across[0], down[0], across[1], down[1]), (height, width)


@given(boxed(), st.floats(0, 3), SIDES, SIDES)
def test_a_face_region_lies_in_the_image_around_the_boxs_centre_in_the_outputs_aspect(
    given_box: tuple[tuple[float, float, float, float], tuple[int, int]], margin: float, tall: int, wide: int
) -> None:
    box, (height, width) = given_box
    left, top, right, bottom = face_region(box, margin, (height, width), (tall, wide))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert left <= (box[0] + box[2]) / 2 <= right and top <= (box[1] + box[3]) / 2 <= bottom
    rows, columns = bottom - top, right - left
    if min(rows, columns) > 1:  # each side is rounded by half a pixel
        assert abs(columns - rows * wide / tall) <= 0.5 + 0.5 * wide / tall
    # Where it is smaller than the box with its margin, the image has no more in this aspect ratio.
    lacks = columns + 0.5 < (box[2] - box[0]) * (1 + 2 * margin) or rows + 0.5 < (box[3] - box[1]) * (1 + 2 * margin)
    assert not lacks or columns == width or rows == height


@given(boxed(), SIDES, SIDES)
def test_a_face_region_holds_the_box_wherever_it_fits(
    given_box: tuple[tuple[float, float, float, float], tuple[int, int]], tall: int, wide: int
) -> None:
    box, image = given_box
    left, top, right, bottom = face_region(box, 0.25, image, (tall, wide))
    if right - left < image[1] and bottom - top < image[0]:
        assert left <= box[0] + 1 and top <= box[1] + 1 and right >= box[2] - 1 and bottom >= box[3] - 1


@pytest.mark.parametrize(
    ("box", "margin", "shape", "wanted"),
    [
        ((40, 50, 60, 70), 0.0, (10, 10), (40, 50, 60, 70)),
        ((40, 50, 60, 70), 0.5, (10, 10), (30, 40, 70, 80)),  # a half of 20 pixels on each side
        ((40, 50, 60, 70), 0.0, (20, 10), (40, 40, 60, 80)),  # the shorter side grows
        ((40, 50, 60, 70), 0.0, (10, 20), (30, 50, 70, 70)),
        ((0, 0, 20, 20), 0.5, (10, 10), (0, 0, 40, 40)),  # moved inwards
        ((80, 130, 100, 150), 0.5, (10, 10), (60, 110, 100, 150)),
        ((10, 20, 90, 140), 0.0, (10, 10), (0, 30, 100, 130)),  # no more than the image has, and not stretched
        (None, 0.3, (10, 10), (0, 25, 100, 125)),
        (None, 0.3, (30, 10), (25, 0, 75, 150)),
    ],
)
def test_margin_aspect_and_border(
    box: tuple[float, float, float, float] | None,
    margin: float,
    shape: tuple[int, int],
    wanted: tuple[int, int, int, int],
) -> None:
    assert face_region(box, margin, (150, 100), shape) == wanted
    image = np.arange(150 * 100 * 3, dtype=np.uint16).reshape(150, 100, 3)
    region = crop_face(image, box, margin, shape)
    assert np.shares_memory(region, image)
    assert np.array_equal(region, image[wanted[1] : wanted[3], wanted[0] : wanted[2]])

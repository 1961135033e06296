"""Regions of interest and resizing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.data.cropping import crop_face, crop_region, face_region, resize
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

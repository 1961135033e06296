"""Brightness and colour of images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.data.image_statistics import (
    IMAGE_STATISTICS,
    MEASURES,
    cohens_d,
    eta_squared,
    image_statistics,
    measure_images,
)
from foldvote.errors import UserError
from foldvote.io.parquet import read_record, read_table
from support.tiny_member import make_tiny


def plain(*colour: int) -> np.ndarray:
    return np.full((4, 5, 3), colour, np.uint8)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (plain(0, 0, 0), (0, 0, 0, 0, 0, 0)),
        (plain(255, 255, 255), (255, 0, 0, 255, 255, 255)),
        (plain(255, 0, 0), (76, 0, 1, 255, 0, 0)),  # luma of BT.601: 0.299 R + 0.587 G + 0.114 B
        (plain(0, 255, 0), (150, 0, 1, 0, 255, 0)),
        (plain(100, 50, 50), (65, 0, 0.5, 100, 50, 50)),
        (np.concatenate([plain(0, 0, 0), plain(200, 200, 200)]), (100, 100, 0, 100, 100, 100)),
    ],
)
def test_the_measures_of_plain_colours(image: np.ndarray, expected: tuple[float, ...]) -> None:
    assert image_statistics(image) == pytest.approx(expected, abs=0.51 / 128)


def test_the_table_follows_the_packed_file_and_says_what_was_measured(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    path = tmp_path / "light.parquet"
    measure_images(tiny.pixels, path)
    light = read_table(path, IMAGE_STATISTICS, key=("image_id",))
    assert light["image_id"].tolist() == read_table(tiny.manifest)["image_id"].tolist()
    assert read_record(path) == {
        "data_sha256": read_record(tiny.manifest)["data_sha256"],
        "size": "32x24",
        "roi": "none",
    }
    brightest = light[["red", "green", "blue"]].to_numpy().argmax(axis=1)  # OpenCV drew them as BGR
    assert (2 - brightest == read_table(tiny.manifest)["label"]).all()
    assert np.isfinite(light[list(MEASURES)].to_numpy()).all()
    tiny.pixels.write_bytes(tiny.pixels.read_bytes()[:-2000])
    with pytest.raises(UserError, match="damaged"):
        measure_images(tiny.pixels, path)


def test_the_share_that_parts_explain() -> None:
    parts = pd.Series(["a", "a", "b", "b"])
    assert eta_squared(pd.Series([1, 1, 3, 3]), parts) == 1
    assert eta_squared(pd.Series([1, 3, 1, 3]), parts) == 0
    assert eta_squared(pd.Series([0, 2, 2, 4]), parts) == pytest.approx(0.5)  # 4 of 8
    assert eta_squared(pd.Series([5, 5, 5, 5]), parts) == 0


def test_the_shift_between_two_sets() -> None:
    assert cohens_d(pd.Series([0.0, 2.0]), pd.Series([1.0, 3.0])) == pytest.approx(1)
    assert cohens_d(pd.Series([1.0, 3.0]), pd.Series([0.0, 2.0])) == pytest.approx(-1)
    assert cohens_d(pd.Series([1.0]), pd.Series([1.0])) == 0
    assert cohens_d(pd.Series([1.0]), pd.Series([2.0])) == float("inf")

"""Brightness and colour of images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.errors import Refusal
from foldvote.light import LIGHT, MEASURES, explained, light_of, measure_light, shift
from foldvote.tables import read_record, read_table
from tiny import make_tiny


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
    assert light_of(image) == pytest.approx(expected, abs=0.51 / 128)


def test_the_table_follows_the_packed_file_and_says_what_was_measured(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    path = tmp_path / "light.parquet"
    measure_light(tiny.pixels, path)
    light = read_table(path, LIGHT, key=("image_id",))
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
    with pytest.raises(Refusal, match="damaged"):
        measure_light(tiny.pixels, path)


def test_the_share_that_parts_explain() -> None:
    parts = pd.Series(["a", "a", "b", "b"])
    assert explained(pd.Series([1, 1, 3, 3]), parts) == 1
    assert explained(pd.Series([1, 3, 1, 3]), parts) == 0
    assert explained(pd.Series([0, 2, 2, 4]), parts) == pytest.approx(0.5)  # 4 of 8
    assert explained(pd.Series([5, 5, 5, 5]), parts) == 0


def test_the_shift_between_two_sets() -> None:
    assert shift(pd.Series([0.0, 2.0]), pd.Series([1.0, 3.0])) == pytest.approx(1)
    assert shift(pd.Series([1.0, 3.0]), pd.Series([0.0, 2.0])) == pytest.approx(-1)
    assert shift(pd.Series([1.0]), pd.Series([1.0])) == 0
    assert shift(pd.Series([1.0]), pd.Series([2.0])) == float("inf")

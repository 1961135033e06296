"""Which folder an image of a manifest lies below."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.data.image_folders import ImageFolders, block_of, external_path, image_folders, image_place
from foldvote.io.paths import tidy

FOLDERS = ImageFolders(Path("data"), {"web": "far/web", "b": "b"})


@given(st.sampled_from(["", "web", "b"]), st.text("ab:/. ", min_size=1).map(tidy))
def test_every_path_is_below_one_folder_and_no_path_of_the_data_looks_external(block: str, path: str) -> None:
    named = external_path(block, path) if block else path
    folder = Path(FOLDERS.external[block]) if block else FOLDERS.own
    assert image_place(FOLDERS, named) == (folder, path)
    assert block_of(pd.Series([named])).tolist() == [block]


def test_the_parameters_of_a_rule_and_a_single_folder() -> None:
    assert image_folders("data", '{"b":"b","web":"far/web"}') == FOLDERS
    assert image_place(Path("d"), "a/b.jpg") == (Path("d"), "a/b.jpg")
    with pytest.raises(KeyError):
        image_place(FOLDERS, "gone://a.jpg")

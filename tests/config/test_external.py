"""The section `external`: what no block can have, and what depends on the blocks."""

from pathlib import Path

import pytest

from foldvote.config.experiment import Config
from foldvote.data.file_listing import listing_digest
from foldvote.errors import UserError
from foldvote.io.files import canonical
from support.data_folders import class_folders, config_for, encoded, picture, put, table_folder
from support.layouts import TABLE

FACTORS = {"label": None, "factors": {"wear": ["yes", "no"], "sex": ["m", "f"]}}
EVERY_FILE = {"layout": "folders", "train": ".", "group_pattern": "^(.*)$"}


def with_block(folder: Path, own: dict[str, object] | None = None, **block: object) -> Config:
    return config_for(folder, TABLE | (own or {}), external={"web": {"data_root": "w", "data": EVERY_FILE} | block})


def test_what_no_block_can_have_is_refused_with_its_place(tmp_path: Path) -> None:
    one_factor = TABLE | {"label": None, "factors": {"sex": ["f", "m"]}}
    for block, told in (
        (
            {"data": TABLE | {"role": "role"}},
            "external: web.data.role: all images of external data are only trained on",
        ),
        ({"data": {"layout": "demo"}}, "external.web.data: no 'demo'"),
        ({"weight": 0}, "external.web.weight: "),
        ({"class": {}}, "external.web.class: unknown key; did you mean 'classes'?"),
        (
            {"data": one_factor},
            "external: web.data: has no wear, and a class of the data is made of wear x sex; add the",
        ),
        ({"classes": {"a": 1}}, "external.web.classes.a: "),
    ):
        with pytest.raises(UserError) as caught:
            with_block(tmp_path, FACTORS, **block)
        (fault,) = caught.value.faults
        assert fault.startswith(f"config: {told}")
    assert with_block(tmp_path, FACTORS).external["web"].same_groups  # whole classes, whose names the folders are


def test_names_of_classes_are_read_in_their_plain_spelling(tmp_path: Path) -> None:
    assert with_block(tmp_path, classes={" cat ": " dog", "owl ": None}).external["web"].classes == {
        "cat": "dog",
        "owl": None,
    }


def test_without_blocks_nothing_is_another_and_test_images_depend_on_none(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "d", [("a.jpg", "g", "x", "train"), ("b.jpg", "", "", "test")], (*"pgls",))
    data = {"path": "p", "group": "g", "label": "l", "split": "s"}
    class_folders(tmp_path / "web", ["x/q_a.jpg"])
    plain, blocks = config_for(root, TABLE | data), with_block(root, data, data_root=str(tmp_path / "web"))
    assert "external" not in canonical(plain.for_split("train"))
    assert plain.for_split("test") == blocks.for_split("test") and plain.for_split("train") != blocks.for_split("train")
    assert plain.external_folders("train") == blocks.external_folders("test") == {}
    assert blocks.external_folders("train") == {"web": str(tmp_path / "web")} and blocks.external_tables("train") == []
    before = listing_digest(blocks, "train")
    assert listing_digest(plain, "train") != before
    put(tmp_path / "web/x/r_a.jpg", encoded(picture()))
    assert listing_digest(blocks, "train") != before and listing_digest(blocks, "test") == listing_digest(plain, "test")

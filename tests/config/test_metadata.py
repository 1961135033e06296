"""Metadata in a configuration: which models and votes may see it."""

from pathlib import Path

import pytest

from foldvote.config.experiment import Config
from foldvote.config.metadata import Metadata
from foldvote.config.recipe import Recipe
from foldvote.errors import UserError
from support.data_folders import config_for
from support.layouts import TABLE

NET = {"net": "test_resnet", "size": "32x24"}
BOTH = {"age": "number", "site": "category"}


def configured(root: Path, metadata: object, known: object = None, **others: object) -> Config:
    models = {"one": NET | {"metadata": metadata}}
    return config_for(root, TABLE | {"metadata": known or {}}, models=models, **others)


def test_a_recipe_names_all_metadata_or_some() -> None:
    for written, found in (
        (None, None),
        (False, None),
        (True, Metadata()),
        (["age"], Metadata(columns=["age"])),
        ({"columns": ["age"], "dropped": 0}, Metadata(columns=["age"], dropped=0)),
    ):
        recipe = Recipe.model_validate(NET | {"metadata": written})
        assert recipe.metadata == found
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    for wrong in ([], ["age", "age"], {"dropped": 1}, "age"):
        with pytest.raises(ValueError, match="metadata"):
            Recipe.model_validate(NET | {"metadata": wrong})


@pytest.mark.parametrize(
    ("metadata", "known", "others", "words"),
    [
        (True, {}, {}, "models.one.metadata: the data names none"),
        (["aeg"], BOTH, {}, "models.one.metadata: data.metadata has no 'aeg'; did you mean 'age'?"),
        (None, {}, {"vote": {"use": "stacking_metadata"}}, "vote.use: stacking_metadata learns from metadata"),
        (None, {}, {"vote": {"use": "lightgbm_metadata+offsets"}}, "vote.use: lightgbm_metadata+offsets learns"),
    ],
)
def test_metadata_that_is_not_there_is_refused(
    tmp_path: Path, metadata: object, known: object, others: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        configured(tmp_path, metadata, known, **others)
    assert words in str(caught.value)


def test_what_has_no_place_for_metadata_refuses_it_by_name(tmp_path: Path) -> None:
    assert configured(tmp_path, None, BOTH).bundle_refusals() == []
    (told,) = configured(tmp_path, True, BOTH).bundle_refusals()
    assert told.startswith("bundle: models.one sees metadata")
    given = NET | {"kind": "probe", "pretrained": "given.safetensors", "metadata": True}
    with pytest.raises(ValueError, match="metadata: a probe"):
        Recipe.model_validate(given)

"""Recipes that inherit from others, in one file or from another."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from foldvote.config.experiment import check_config, load_config
from foldvote.config.recipe_resolution import with_bases
from foldvote.errors import UserError

MODEL = {"net": "test_resnet", "size": "32x24", "loss": "focal", "augment": {"hflip": 0.5, "crop": 0.1}, "epochs": 4}
CONFIG = {"data": {"layout": "demo"}, "folds": {"k": 3}, "models": {"tiny": MODEL}}


# --- bases


def test_a_key_is_taken_from_the_nearest_base_that_has_it() -> None:
    recipes = {"common": {"net": "resnet18", "lr": 0.1, "augment": {"hflip": 0.5}}}
    models = {"a": {"base": "common", "lr": 0.2}, "b": {"base": "a", "augment": {"crop": 0.1}}}
    resolved, faults = with_bases(models, recipes)
    assert faults == []
    assert resolved == {
        "a": {"net": "resnet18", "lr": 0.2, "augment": {"hflip": 0.5}},
        "b": {"net": "resnet18", "lr": 0.2, "augment": {"crop": 0.1}},  # mappings are replaced as a whole
    }


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"a": {"base": "comon"}}, "models.a.base: no model or recipe 'comon'; did you mean 'common'?"),
        ({"a": {"base": "b"}, "b": {"base": "a"}}, "models.a.base: a -> b -> a is a circle; break it"),
        ({"a": {"base": "a"}}, "models.a.base: a -> a is a circle; break it"),
        ({"a": {"base": ["common"]}}, "models.a.base: no model or recipe ['common']; did you mean 'common'?"),
        ({"a": {"base": {"common": 1}}}, "models.a.base: no model or recipe {'common': 1}"),
        ({"common": {"net": "resnet18"}}, "models.common: recipes has an entry of this name too; rename one"),
    ],
)
def test_f29_f177_a_base_that_cannot_be_is_told(models: dict[str, Any], told: str) -> None:
    assert with_bases(models, {"common": {"net": "resnet18"}})[1][0].startswith(told)


# --- recipes of other files


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_model_builds_on_a_recipe_of_an_included_file(tmp_path: Path) -> None:
    best = write(tmp_path / "best.yaml", {"recipes": {"tuned": MODEL | {"lr": 0.5}}})
    models = {"small": {"base": "tuned", "epochs": 7}}
    given = write(tmp_path / "c.yaml", CONFIG | {"include": [str(best)], "models": models})
    small = load_config(given).models["small"]
    assert (small.lr, small.epochs, small.net) == (0.5, 7, "test_resnet")


def test_f28_f29_an_included_file_is_read_strictly_and_named(tmp_path: Path) -> None:
    wrong = write(tmp_path / "wrong.yaml", {"recipes": {"tuned": {"lrr": 1}, "tiny": {}}, "seed": 3})
    (tmp_path / "trap.yaml").write_text("recipes: {a: {epochs: 010}}\n", encoding="utf-8")
    include = [str(wrong), str(tmp_path / "trap.yaml"), str(tmp_path / "best.yaml")]
    with pytest.raises(UserError) as error:
        check_config(CONFIG | {"include": include}, "c.yaml")
    assert [fault.replace(f"{tmp_path}/", "") for fault in error.value.faults] == [
        "wrong.yaml: seed: an included file holds recipes alone; drop it",
        "wrong.yaml: recipes.tuned.lrr: unknown key; did you mean 'lr'?",
        "wrong.yaml: recipes.tiny: c.yaml has a recipe or model of this name; rename one",
        "trap.yaml, line 1: recipes.a.epochs: YAML reads 010 as an octal number; write 10, or '010' in quotes for a "
        "text",
        "c.yaml: include: best.yaml is not there; the target `tune` makes it, with this line left out until then",
    ]
    assert "include: must be a list" in "\n".join(_refused({"include": "best.yaml"}))


def _refused(changes: dict) -> tuple[str, ...]:
    with pytest.raises(UserError) as error:
        check_config(CONFIG | changes, "c.yaml")
    return error.value.faults

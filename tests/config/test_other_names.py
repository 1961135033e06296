"""What was meant by a key that does not exist."""

import pytest

from foldvote.config import other_names
from foldvote.config.experiment import Config
from foldvote.config.other_names import meant_key
from foldvote.config.recipe import Recipe
from foldvote.config.search_space import Dimension, space_faults

FOLDS, RUNTIME, PREDICT = (
    Config.model_fields[name].annotation.model_fields for name in ("folds", "runtime", "predict")
)


@pytest.mark.parametrize(
    ("key", "known", "meant"),
    [
        ("learning_rate", Recipe.model_fields, "lr"),
        ("Learning-Rate", Recipe.model_fields, "lr"),
        ("bs", Recipe.model_fields, "batch_size"),
        ("image_size", Recipe.model_fields, "size"),
        ("imgsz", Recipe.model_fields, "size"),
        ("backbone", Recipe.model_fields, "net"),
        ("dropout", Recipe.model_fields, "drop_rate"),
        ("warmup", Recipe.model_fields, "warmup_epochs"),
        ("wd", Recipe.model_fields, "weight_decay"),
        ("num_epochs", Recipe.model_fields, "epochs"),
        ("epochz", Recipe.model_fields, "epochs"),
        ("n_splits", FOLDS, "k"),
        ("kk", FOLDS, "k"),
        ("tta", PREDICT, "views"),
        ("num_workers", RUNTIME, "workers"),
    ],
)
def test_another_name_is_known_and_no_other_key_is_guessed(key: str, known: dict, meant: str) -> None:
    assert meant_key(key, known, Config) == f"; did you mean {meant!r}?"


def test_every_other_name_is_of_a_key_that_there_is() -> None:
    keys = set(other_names._places(Config))
    assert set(other_names._MEANINGS) <= keys and not set(other_names._ADVICE) & keys


def test_keys_of_other_sections_are_told_with_their_place() -> None:
    assert meant_key("group", FOLDS, Config) == "; did you mean data.group (layout: table)?"
    assert (
        meant_key("seed", Recipe.model_fields, Config) == "; did you mean seed at the top of the file, in no section?"
    )
    assert meant_key("learning_rate", Config.model_fields, Config) == "; did you mean models.NAME.lr?"
    assert "--resources gpu=2" in meant_key("gpus", RUNTIME, Config)


def test_without_a_near_name_the_keys_of_a_short_section_are_listed() -> None:
    assert meant_key("zzz", PREDICT, Config) == "; the keys here: views"
    assert meant_key("zzz", FOLDS, Config).startswith("; the keys here: method, k, repeats,")
    assert meant_key("zzz", Recipe.model_fields, Config) == "; docs/config.md has all keys"


def test_a_search_knows_the_other_names_too() -> None:
    (fault,) = space_faults({"learning_rate": Dimension(float=(0.1, 1))})
    assert fault.endswith("only recipes are searched; did you mean 'lr'?")

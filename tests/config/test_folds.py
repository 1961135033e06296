"""The settings of the split."""

import pytest
from pydantic import ValidationError

from foldvote.config.folds import Folds
from foldvote.io.files import canonical


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({}, 5),
        ({"k": 3, "repeats": 2}, 6),
        ({"method": "holdout"}, 1),
        ({"method": "file", "file": "f.csv", "k": 4}, 4),
    ],
)
def test_settings_survive_the_way_to_a_job(values: dict, count: int) -> None:
    settings = Folds.model_validate(values)
    assert settings.count == count
    assert Folds.model_validate_json(canonical(settings.model_dump(mode="json"))) == settings


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"k": 1}, "k: 1 is no cross-validation; for a single validation part say method: holdout"),
        ({"method": "holdout", "k": 5}, "method: holdout has one fold, k is 5; set k: 1 or drop k"),
        ({"method": "holdout", "repeats": 2}, "repeats: 2 needs method: kfold; drop it"),
        ({"method": "file"}, "method: file and file: <path> go together; set both or neither"),
        ({"file": "f.csv"}, "method: file and file: <path> go together; set both or neither"),
        ({"k": 64, "repeats": 2}, "64 folds x 2 repeats are more than 127 members; lower one"),
    ],
)
def test_f23_settings_that_contradict_each_other_are_refused(values: dict, told: str) -> None:
    with pytest.raises(ValidationError) as error:
        Folds.model_validate(values)
    assert str(error.value.errors()[0]["ctx"]["error"]) == told

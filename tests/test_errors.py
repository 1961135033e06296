"""Errors for the user: all faults at once, a long list cut, the nearest name."""

import pytest

from foldvote.errors import UserError, did_you_mean, raise_all


def test_a_long_list_of_faults_is_cut_and_counted() -> None:
    raise_all([])
    with pytest.raises(UserError) as error:
        raise_all(f"fault {number}" for number in range(25))
    assert len(error.value.faults) == 21 and error.value.faults[-1] == "... and 5 more of this kind"


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("epochz", ["epoch", "epochs"], "epochs"),  # as many letters to change, and the same length
        ("adamm", ["adamw", "adam"], "adam"),  # a doubled letter
        ("acc", ["mcc", "accuracy"], "accuracy"),  # it begins so
        ("Gendr", ["age", "Gender"], "Gender"),
        ("hflp", ["vflip", "hflip"], "hflip"),
    ],
)
def test_the_nearest_name_is_told(name: str, known: list[str], meant: str) -> None:
    assert did_you_mean(name, known) == f"; did you mean {meant!r}?"


def test_no_name_is_told_that_is_not_near() -> None:
    assert did_you_mean("tta", ["views", "fold"]) == "" == did_you_mean("learning_rate", ["drop_rate"], 0.7)

"""Names, order and number of classes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.data.label_space import factor_label_space, in_order, is_number, named_label_space
from foldvote.errors import UserError


@given(st.lists(st.integers(-(10**20), 10**20), min_size=2, unique=True))
def test_whole_numbers_stand_by_their_value(numbers):
    assert in_order(map(str, numbers)) == [str(number) for number in sorted(numbers)]


def test_decimals_and_signs_are_numbers_and_one_text_makes_all_of_them_texts():
    assert in_order(["10", "2", "-1.5", "+3", ".5", "007"]) == ["-1.5", ".5", "2", "+3", "007", "10"]
    assert in_order(["01", "1", "2"]) == ["01", "1", "2"]  # equal values: as texts
    assert in_order(["10", "2", "old"]) == ["10", "2", "old"]
    assert named_label_space(None, {"10", "9", "1"}).classes == ("1", "9", "10")
    assert named_label_space(["10", "9"], {"10", "9"}).classes == ("10", "9")  # the user's own order stays
    assert not [text for text in ("1e5", "1-2", "", "-", ".", "1,5", "٣", "nan", "0x1") if is_number(text)]


@given(st.lists(st.lists(st.text("1-a", min_size=1, max_size=3), min_size=1, max_size=3, unique=True), max_size=3))
def test_joined_levels_make_different_class_names_or_are_refused(levels):
    factors = {f"factor{number}": tuple(own) for number, own in enumerate(levels)}
    names = ["-".join(parts) for parts in itertools.product(*factors.values())]
    if len(set(names)) == len(names):
        assert factor_label_space(factors).classes == tuple(names)
    else:
        with pytest.raises(UserError, match="both make the name"):
            factor_label_space(factors)


def test_the_levels_of_a_collision_are_named_with_a_remedy():
    with pytest.raises(UserError) as error:
        factor_label_space({"grade": ("1", "1-2"), "side": ("2-a", "a")})
    assert str(error.value) == (
        "data.factors: the levels '1' + '2-a' and '1-2' + 'a' both make the name '1-2-a' (grade x side); rename a "
        "level that holds `-`, such as 1-2 to 1to2"
    )


def test_more_classes_than_a_code_can_count_are_refused():
    levels = tuple(f"level{number}" for number in range(182))
    with pytest.raises(UserError, match="33,124 classes, more than 32,767"):
        factor_label_space({"a": levels, "b": levels})
    with pytest.raises(UserError, match="is the label an id"):
        named_label_space(None, {str(number) for number in range(2**15)})

"""Answers: one rule for the sample, the true answers and what is handed in."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.data.label_space import is_number
from foldvote.errors import UserError
from foldvote.io.names import plain_name
from foldvote.submission.answers import answer_codes, answer_forms, answer_texts, class_codes, read_answers
from foldvote.submission.sample_matching import class_columns, matched_ids
from support.data_folders import put

GRADES = ("1", "2", "3", "4", "5")


def wide_columns(columns, classes):
    return class_columns(columns, answer_forms(classes, "probabilities"), "sample.csv")


def test_numbers_of_the_data_are_handed_in_as_they_are_and_read_back_as_such(tmp_path: Path) -> None:
    assert answer_texts([0, 4], GRADES, "code") == ["1", "5"]
    assert answer_texts([0, 1], ["-1", "007"], "code") == ["-1", "007"]
    path = put(tmp_path / "truth.csv", "ImageID,ans\nb,5\na,1\n")
    for answer in ("code", "name", "probabilities"):
        codes = read_answers(path, ["a", "b"], "the test images", GRADES, answer=answer)
        assert codes.tolist() == [0, 4]
    put(path, "ImageID,ans\nb,0\na,1\n")
    with pytest.raises(UserError, match=r"not a number of the data .1, 2, 3, 4, 5.*'0' in row 2"):
        read_answers(path, ["a", "b"], "the test images", GRADES)


def test_class_names_keep_their_positions_as_codes() -> None:
    assert answer_texts([2, 0], ["cat", "dog", "owl"], "code") == ["2", "0"]
    assert class_codes(["0", "1", "other"]) == ["0", "1", "2"]  # no number is written as another one


def test_positions_that_contradict_the_numbers_of_the_data_are_refused() -> None:
    with pytest.raises(UserError, match=r"'1' as 0, '2' as 1, because not every.*set submission.answer: name"):
        answer_texts([0], ["1", "2", "unknown"], "code")
    assert answer_texts([0], ["1", "2", "unknown"], "name") == ["1"]
    assert answer_codes(["1", "0"], ["1", "2", "unknown"], "probabilities").tolist() == [0, -1]


@given(st.lists(st.text("012-.a", min_size=1, max_size=3), min_size=2, max_size=6, unique=True))
def test_an_answer_is_read_as_the_class_that_was_written_and_no_number_becomes_another(classes: list[str]) -> None:
    codes = np.arange(len(classes))
    for answer in ("code", "name"):
        try:
            texts = answer_texts(codes, classes, answer)
        except UserError:
            assert answer == "code" and any(map(is_number, classes))
            continue
        assert answer_codes(texts, classes, answer).tolist() == codes.tolist()
        assert answer_codes(texts, classes, "probabilities").tolist() == codes.tolist()
        assert all(text == name for text, name in zip(texts, classes, strict=True) if is_number(name))


def test_columns_of_probabilities_follow_the_same_rule() -> None:
    assert wide_columns(["5", "4", "3", "2", "1"], GRADES) == {"5": 4, "4": 3, "3": 2, "2": 1, "1": 0}
    with pytest.raises(UserError, match="1 columns are no class: 0; 1 classes have no column: 5"):
        wide_columns(["0", "1", "2", "3", "4"], GRADES)
    assert wide_columns(["1", "0"], ["cat", "dog"]) == {"1": 1, "0": 0}
    assert wide_columns(["probability"], ["cat", "dog"]) == {"probability": 1}
    assert wide_columns(["cat"], ["cat", "dog"]) == {"cat": 0}  # not the probability of the dog


def test_ids_may_lack_extension_or_folder_where_that_names_one_image() -> None:
    images = ["t/00ab.png", "t/01.b.jpg"]
    assert matched_ids(["t/01.b.jpg"], images) == (["t/01.b.jpg"], "")
    assert matched_ids(["t/01.b", "t/00ab"], images) == (["t/01.b.jpg", "t/00ab.png"], "without extension")
    assert matched_ids(["00ab.png", "new"], images) == (["t/00ab.png", "new"], "without folder")
    assert matched_ids(["00ab"], images) == (["t/00ab.png"], "without folder and extension")
    assert matched_ids(["t/00ab.png", "t/01.b"], images)[1] == ""  # one id is exact: so are all
    assert matched_ids(["00ab"], ["00ab.png", "00ab.jpg"]) == (["00ab"], "")
    assert matched_ids(["x"], []) == (["x"], "")
    assert matched_ids([" t/00ab.png\u00a0", "mo\u0308we"], [*images, "m\u00f6we"]) == (["t/00ab.png", "m\u00f6we"], "")


PLAIN = st.text(min_size=1, max_size=6).map(plain_name).filter(bool)


@given(st.lists(st.text(min_size=1, max_size=6), max_size=8), st.lists(PLAIN, max_size=8))
def test_every_id_stays_or_becomes_one_image(ids: list[str], images: list[str]) -> None:
    found, how = matched_ids(ids, images)
    plain = list(map(plain_name, ids))
    assert len(found) == len(ids)
    assert all(new == old or (how and new in images) for old, new in zip(plain, found, strict=True))
    if set(plain) & set(images):
        assert (found, how) == (plain, "")

"""One spelling of a name, names that look the same, and files that the disk spells otherwise."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.io.names import alike, look, paths_on_disk, plain_name, spelled

JOSE = "Jos\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", JOSE)


@pytest.mark.parametrize("text", ["p01", "p01 ", "\tp01", "p01\u00a0", "\u3000p01\u200b", "\ufeffp01", "p01\u2060\r"])
def test_what_stands_around_a_name_is_no_part_of_it(text):
    assert plain_name(text) == "p01"


@pytest.mark.parametrize("text", ["P01", "p 01", "p\u00a001", "p\u200b01", "", "-Kz", "\uff50"])
def test_what_stands_inside_a_name_stays(text):
    assert plain_name(text) == text


@given(text=st.text(max_size=8))
def test_the_plain_spelling_is_composed_and_final(text):
    plain = plain_name(text)
    assert plain == plain_name(plain) == unicodedata.normalize("NFC", plain)
    assert look(plain) == look(plain_name(unicodedata.normalize("NFD", plain)))


def test_names_that_a_reader_takes_for_one_are_found():
    one = ["p01", "P01", "p\u200b01", "\uff50\uff10\uff11", "\u043001".replace("\u0430", "\u0440")]
    two = ["p 01", "p  01", "p\u00a001"]
    three = ["a-1", "a\u20131"]
    assert alike([*one, *two, *three, "p02", "p1", "p-01"]) == sorted(map(sorted, (one, two, three)))
    assert alike(["-Kz", "-kz", "a b"], case=True) == []
    assert alike(["a b", "a\u00a0b", "A b"], case=True) == [["a b", "a\u00a0b"]]


def test_a_message_shows_what_a_reader_cannot_see():
    assert [spelled(name) for name in ("p01", "p01\u00a0", "\u0440", "\uac00", JOSE)] == [
        "'p01'",
        r"'p01\xa0'",
        r"'\u0440'",
        "'\uac00'",
        f"'{JOSE}'",
    ]


@pytest.mark.parametrize(("disk", "asked"), [(JOSE, DECOMPOSED), (DECOMPOSED, JOSE)])
def test_files_are_found_in_either_unicode_form(tmp_path, disk, asked):
    (tmp_path / disk).mkdir()
    (tmp_path / disk / f"{disk}.png").touch()
    found = paths_on_disk(tmp_path, [f"{asked}/{asked}.png", f"{asked}/none.png", f"{disk}/{disk}.png"])
    assert found == [f"{disk}/{disk}.png", f"{asked}/none.png", f"{disk}/{disk}.png"]


def test_a_file_whose_name_is_there_in_both_forms_is_the_one_that_was_asked_for(tmp_path: Path):
    for name in (JOSE, DECOMPOSED):
        (tmp_path / name).touch()
    assert paths_on_disk(tmp_path, [JOSE, DECOMPOSED, f"{JOSE} "]) == [JOSE, DECOMPOSED, f"{JOSE} "]

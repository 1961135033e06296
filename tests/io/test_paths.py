"""Paths of users: none leads out of the data folder."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.io.paths import real_path_below, relative_fault, tidy
from support.data_folders import (
    put,
)


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b c", "가", "", "\\", "..\\", "~", "a.jpg"]), max_size=6).map("/".join)
)
def test_f17_a_path_that_passes_stays_below_the_root(text):
    if relative_fault(text) is None:
        whole = os.path.normpath(f"/data/root/{text}")
        assert whole == "/data/root" or whole.startswith("/data/root/")
        assert os.path.normpath(f"/data/root/{tidy(text)}") == whole
    else:
        assert not text.strip() or text.startswith("/") or ".." in text or "\\\\" in text


def test_f17_a_symlink_is_followed_before_the_path_is_judged(tmp_path):
    put(tmp_path / "d/a.jpg", b"x")
    (tmp_path / "d/up").symlink_to("..")
    assert real_path_below(tmp_path / "d", "up/d/a.jpg") == (tmp_path / "d/a.jpg").resolve()
    put(tmp_path / "d2/a.jpg", b"x")
    with pytest.raises(ValueError, match="out of the data folder"):
        real_path_below(tmp_path / "d", "up/d2/a.jpg")

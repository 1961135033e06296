"""Paths of users: none leads out of the data folder."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.io.paths import one_data_path, one_folder, one_path, real_path_below, relative_fault, tidy
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


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a folder, a link to a folder elsewhere, and a home folder."""
    for folder in ("here/runs/a", "disk/big/a", "home"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here/results").symlink_to(tmp_path / "disk/big")
    (tmp_path / "here/latest").symlink_to("runs")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("spelled", "once"),
    [
        (["out", "out/", "./out", "out//", "x/../out", "{}/here/out", "//{}/here/out/", "../here/out"], "out"),
        (["~/out", "~/out/", "{}/home/out", "../home/./out", "~/x/../out"], "{}/home/out"),
        (["../data", "{}/data", "{}/here/../data//"], "{}/data"),
        ([".", "./", "{}/here", "../here"], "."),
        (["results", "results/", "{}/disk/big", "{}/here/results", "../disk/big/a/.."], "results"),
        (["results/a", "{}/disk/big/a", "results/a/../a"], "results/a"),
        (["runs/a", "latest/a", "{}/here/latest/a"], "runs/a"),
        (["/", "/.", "//", "//.", "../" * 40, "../" * 40 + "."], "/"),
    ],
)
def test_a_folder_has_one_spelling_however_it_is_typed(here, spelled, once):
    assert {one_folder(text.format(here)) for text in spelled} == {once.format(here)}


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "results", "latest", "runs"]), min_size=1, max_size=7))
def test_a_spelling_means_the_same_place_and_is_its_own_spelling(tmp_path_factory, parts):
    top = tmp_path_factory.getbasetemp() / "spelling"
    if not top.exists():
        (top / "here/runs").mkdir(parents=True)
        (top / "disk/deep").mkdir(parents=True)
        (top / "here/results").symlink_to(top / "disk/deep")
        (top / "here/latest").symlink_to("runs")
    before = Path.cwd()
    os.chdir(top / "here")
    try:
        text = "/".join(parts) if parts[0] else f"{top}/here{'/'.join(parts)}"
        if text.strip():
            for spell in (one_path, one_folder):
                assert os.path.realpath(spell(text)) == os.path.realpath(text)
                assert spell(spell(text)) == spell(text)
    finally:
        os.chdir(before)


def test_a_file_keeps_its_links_a_url_stays_and_an_unknown_home_is_refused(here):
    assert one_path(f"{here}/here/results/w.safetensors") == "results/w.safetensors"
    assert one_path("latest/../folds.csv") == "folds.csv" and one_path("results/../x.csv") == f"{here}/disk/x.csv"
    assert one_path("docker://a//b:1/") == one_folder("docker://a//b:1/") == "docker://a//b:1/"
    assert one_path("") == "" and one_data_path("") == ""
    assert one_data_path("a//./b/../c/") == "a/c" and one_data_path("~/t.csv") == f"{here}/home/t.csv"
    for spell in (one_path, one_folder, one_data_path):
        with pytest.raises(ValueError, match=r"no home folder ~nobody-here; write \./~nobody-here"):
            spell("~nobody-here/out")
        assert not spell("./~nobody-here").startswith("./") and "~nobody-here" in spell("./~nobody-here")

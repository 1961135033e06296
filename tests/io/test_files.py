"""Files that appear whole, JSON and checksums."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.errors import UserError
from foldvote.io import files
from foldvote.io.files import (
    canonical,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_lines,
    whole_file,
    write_bytes,
    write_json,
)
from foldvote.runtime.locks import try_lock
from support.processes import python


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.bin"
    with whole_file(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_bytes(b"first")
        assert not path.exists()
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["c.bin"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), UserError("x")])
def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "c.bin"
    write_bytes(path, b"old")
    with pytest.raises(type(error)), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.bin"]


def test_f37_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.bin"
    write_bytes(path, b"old")
    code = """
        import os, signal, sys
        from foldvote.io.files import whole_file
        with whole_file(sys.argv[1]) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, path).wait() == -signal.SIGKILL
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES])
def test_f45_f46_a_place_that_takes_no_bytes_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "c.bin"
    write_bytes(path, b"old")

    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fails)
    with pytest.raises(UserError) as error:
        write_bytes(path, b"new")
    assert error.value.faults == (
        f"{path}: cannot be written: {os.strerror(number)}; free space or choose another `results`",
    )
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.bin"]


@pytest.mark.parametrize("below", ["results", "results/oof/model=a", "results/" + "n" * 300])
def test_f46_results_below_a_regular_file_are_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match="cannot be written") as error:
        write_json(tmp_path / below / "x.json", {})
    assert str(tmp_path / below) in str(error.value)
    with pytest.raises(UserError, match="cannot be written"):
        try_lock(tmp_path / below / "lock")
    assert (tmp_path / "results").read_text() == "a file"


def test_a_file_over_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "x.json", {})


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2], "a": "가"})
    write_json(tmp_path / "b.json", {"a": "가", "b": [1, 2]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": "가", "b": [1, 2]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"{'a': 1}"])
def test_what_is_no_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match="not readable as JSON") as error:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: missing; run your command again"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"none\.pth: cannot be read \(No such file"):
        sha256_file(tmp_path / "none.pth")


def test_digests_are_sha256(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path / "x").write_bytes(b"a\nb\n")
    assert sha256_bytes(b"") == sha256_lines(iter(())) == empty
    assert sha256_file(tmp_path / "x") == sha256_bytes(b"a\nb\n") == sha256_lines(iter(["a", "b"]))


JSON = st.recursive(
    st.none() | st.integers() | st.text(st.characters(blacklist_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def turned(content: object) -> object:
    """The same content with the keys of every mapping in the other order."""
    if isinstance(content, dict):
        return {key: turned(content[key]) for key in reversed(content)}
    return [turned(item) for item in content] if isinstance(content, list) else content


@given(JSON, JSON)
def test_canonical_texts_are_equal_exactly_where_contents_are(first: object, second: object) -> None:
    assert canonical(first) == canonical(turned(first))
    assert json.loads(canonical(first)) == first
    assert (canonical(first) == canonical(second)) == (first == second)

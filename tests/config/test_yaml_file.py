"""Strict YAML: what its writer meant, or an error that names the trap, the key and the line."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.config.yaml_file import load_yaml
from foldvote.errors import UserError


def loaded(tmp_path: Path, text: str | bytes) -> dict:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_yaml(path)


def yaml_faults(tmp_path: Path, text: str | bytes) -> list[str]:
    with pytest.raises(UserError) as error:
        loaded(tmp_path, text)
    return list(error.value.faults)


# --- F28: the traps of YAML


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", ".1e-3", "+1e-4", "0.0001"])
def test_f28_a_number_in_scientific_form_is_a_number(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, f"lr: {text}") == {"lr": pytest.approx(1e-4)}


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-12, max_value=1e12))
def test_f28_every_way_to_print_a_float_reads_back(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    path = tmp_path_factory.getbasetemp() / "number.yaml"
    path.write_text(f"a: {number!r}\nb: {number:e}\nc: {number:.17E}\n")
    read = load_yaml(path)
    assert read["a"] == number and read["c"] == number
    assert read["b"] == pytest.approx(number, rel=1e-6)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("seed: 010", "line 2: seed: YAML reads 010 as an octal number; write 10"),
        ("seed: -010", "YAML reads -010 as an octal number; write -10"),
        ("seed: 00", "YAML reads 00 as an octal number; write 0,"),
        ("flag: no", "flag: YAML reads no as true or false; write true or false, or 'no' in quotes"),
        ("flag: Off", "flag: YAML reads Off as true or false"),
        ("time: 12:30", "time: YAML reads 12:30 as a time or date; write it in quotes"),
        ("day: 2024-01-31", "day: YAML reads 2024-01-31 as a time or date"),
        ("first: 3", "first: the key stands twice"),
        ("a: {b: {c: 1, c: 2}}", "a.b.c: the key stands twice"),
        ("a: [1, {b: 010}]", "a[1].b: YAML reads 010"),
        ("a: 0x_", "'0x_' is not what its form or tag says"),
        ("a: !!int foo", "'foo' is not what its form or tag says"),
        ("? [a, b]\n: 1", "a list or mapping cannot be a key"),
        ("<<: 3", "<< takes a mapping"),
    ],
)
def test_f28_a_trap_names_itself_its_key_and_its_line(tmp_path: Path, line: str, told: str) -> None:
    (fault,) = yaml_faults(tmp_path, f"first: 1\n{line}\n")
    assert "c.yaml, line 2" in fault and told in fault


def test_f28_all_traps_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    told = yaml_faults(tmp_path, "a: 010\nb: yes\na: 1\nc: !!python/tuple [1]\n")
    assert [fault.split(": ")[0].rsplit(", ", 1)[1] for fault in told] == ["line 1", "line 2", "line 3", "line 4"]


def test_quotes_anchors_and_merges_mean_what_they_say(tmp_path: Path) -> None:
    text = "a: '010'\nb: \"no\"\nbase: &base {x: 1, y: 2}\nc: {<<: *base, y: 3}\n"
    text += "d: {<<: [*base, {y: 9, z: 4}]}\ne: *base\n"
    assert loaded(tmp_path, text) == {
        "a": "010",
        "b": "no",
        "base": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 1, "y": 2, "z": 4},
        "e": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    "text", ["", "- 1\n- 2", "just words", "a: 1\n---\nb: 2", "a: [1", "a: \0", "a: *unknown", "\tb: 1"]
)
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (fault,) = yaml_faults(tmp_path, text)
    assert fault.startswith(str(tmp_path / "c.yaml")) and "\n" not in fault


def test_a_missing_directory_or_huge_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=r"no such file|cannot be read"):
            load_yaml(path)
    assert "larger than 1 MB" in yaml_faults(tmp_path, "a: " + "x" * 1_000_001)[0]
    assert "cannot be read" in yaml_faults(tmp_path, "a: 가".encode("cp949"))[0]


# --- F27 and F30: nothing of a file is executed, and nothing in it makes the reader run for ever


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.mkdir, (self.target,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_f27_a_pickle_given_as_configuration_is_not_executed(tmp_path: Path, protocol: int) -> None:
    yaml_faults(tmp_path, pickle.dumps(Malicious(tmp_path / "executed"), protocol=protocol))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.mkdir [executed]",
        "a: !!python/object/new:os.mkdir [executed]",
        "!!python/object/apply:os.mkdir [executed]: 1",
        "? !!python/name:os.mkdir\n: 1",
        "a: !!python/module:os",
        "a: !own {b: 1}",
        "a: !!set {b}",
        "a: !!binary aGVsbG8=",
        "!!python/object:object {a: 1}",
    ],
)
def test_f30_tags_are_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert any("not allowed" in fault or "cannot be a key" in fault for fault in yaml_faults(tmp_path, text))
    assert not (tmp_path / "executed").exists()


def bomb(levels: int) -> str:
    """Aliases that stand for 9 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(9),
        f"z: !own\n  - &a0 [x, x]\n{chr(10).join(f'  - &a{i} [*a{i - 1}, *a{i - 1}]' for i in range(1, 40))}",
        "a:\n  ? [&a0 [x, x], " + ", ".join(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)) + "]\n  : 1",
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a {<<: *a}",
        "a: &a [b, {c: [*a]}]",
        "a: " + "[" * 20_000,
        "a: " + "{b: " * 20_000,
    ],
    ids=["nested", "under_a_tag", "in_a_key", "list_of_itself", "mapping_of_itself", "merge", "deep", "open", "braces"],
)
def test_f30_aliases_and_nesting_without_end_are_refused(tmp_path: Path, text: str) -> None:
    told = yaml_faults(tmp_path, text)  # unguarded, most of these take hours or all memory
    assert len(told) == 1 and len(told[0]) < 2000

"""Every path of the configuration has one spelling, however it was typed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foldvote.config.experiment import check_config, load_config
from support.config_faults import BASE, faults


def spelled(spell: Callable[[str], str], inside: Callable[[str], str], layout: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration with every path key, each path in the same manner."""
    return {
        "data": layout | {key: inside(str(path)) for key, path in layout.items() if key in DATA_PATHS},
        "results": spell("out"),
        "data_root": spell("data"),
        "corrections": spell("fixes.csv"),
        "answers": spell("answers.csv"),
        "metric": spell("mine.py"),
        "submission": {"sample": spell("sample.csv")},
        "include": [spell("more.yaml")],
        "folds": {"method": "file", "file": spell("folds.csv")},
        "faces": {"file": spell("faces.csv")},
        "models": {"a": {"net": "resnet18", "pretrained": spell("w.safetensors")}},
        "runtime": {"state_dir": spell("state"), "container": spell("env.sif")},
    }


DATA_PATHS = {"train_table", "train_images", "test_table", "test_images", "table", "train", "test"}
LAYOUTS: list[dict[str, Any]] = [
    {"layout": "maskbase", **dict.fromkeys(sorted(DATA_PATHS - {"table", "train", "test"}), "sub/x")},
    {"layout": "table", "table": "sub/t.csv"},
    {"layout": "folders", "train": "sub/train", "test": "sub/test", "group_pattern": "(.)"},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout["layout"])
def test_every_path_key_has_one_spelling_however_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any]
) -> None:
    here = tmp_path / "here"
    for folder in ("here/data", "here/x", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    (here / "link").symlink_to(".")
    (here / "more.yaml").write_text("recipes: {r: {net: resnet18}}")
    (here / "fixes.csv").write_text("id")
    plain = check_config(spelled(str, str, layout))
    manners: list[Callable[[str], str]] = [
        lambda path: f"./{path}",
        lambda path: f"x/..//{path}",
        lambda path: f"~/{path}",
        lambda path: f"{here}/{path}",
        lambda path: f"../here/{path}",
    ]
    for spell in manners:
        config = check_config(spelled(spell, lambda path: path.replace("/", "//./") + "/", layout))
        assert config.model_dump(mode="json") == plain.model_dump(mode="json")
        assert config.for_split("train") == plain.for_split("train")
    linked = check_config(spelled(str, str, layout) | {"results": "link/out/", "data_root": "link/data"})
    assert linked == plain
    away = {check_config(BASE | {"data_root": text}).data_root for text in ("../elsewhere", f"{tmp_path}/elsewhere/")}
    assert away == {f"{tmp_path}/elsewhere"}


def test_a_value_of_the_command_line_is_spelled_like_one_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: {layout: maskbase}\ndata_root: data/\nmodels: {a: {net: resnet18}}\nresults: out/")
    assert load_config(file) == load_config(file, {"results": "./out", "data_root": "data/."})


def test_a_file_below_the_data_folder_or_by_its_whole_path_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "fixes.csv").write_text("id")
    root = BASE | {"data_root": str(tmp_path)}
    below, whole = (check_config(root | {"corrections": text}) for text in ("fixes.csv", str(tmp_path / "fixes.csv")))
    assert below.for_split("train") == whole.for_split("train")


def test_a_home_folder_that_is_not_there_is_refused_for_every_key() -> None:
    told = faults(
        BASE | {"results": "~nobody-here/out", "answers": "~nobody-here/a.csv", "include": ["~nobody-here/b"]}
    )
    assert told == [
        "config: include: there is no home folder ~nobody-here; write ./~nobody-here for a folder of that name "
        "(it is '~nobody-here/b')"
    ]
    told = faults(BASE | {"results": "~nobody-here/out", "answers": "~nobody-here/a.csv"})
    assert [line.split(": there is")[0] for line in told] == ["config: results", "config: answers"]

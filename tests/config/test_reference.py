"""The schema that editors read, and the page of all keys."""

import json
from pathlib import Path

from foldvote.config.reference import reference, schema, write_all

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_schema_and_the_page_of_all_keys_are_current(tmp_path: Path) -> None:
    for name in ("config", "docs"):
        (tmp_path / name).mkdir()
    write_all(tmp_path)
    for name in ("config/schema.json", "docs/config.md"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"{name} is out of date: run make schema"
    assert json.loads((ROOT / "config/schema.json").read_text()) == schema()


def test_every_key_is_explained_in_the_schema() -> None:
    whole = schema()
    unexplained = [
        f"{name}.{key}"
        for name, section in {**whole["$defs"], "Config": whole}.items()
        for key, entry in section["properties"].items()
        if "description" not in entry and "$ref" not in entry and "const" not in entry and "discriminator" not in entry
    ]
    assert not unexplained


def test_the_page_lists_every_mapping_and_every_key_once() -> None:
    page, whole = reference(schema()), schema()
    for name, section in whole["$defs"].items():
        assert page.count(f"\n## {name}\n") == 1
        table = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] == [*section["properties"]]


def test_defaults_bounds_and_links_are_told() -> None:
    page = reference(schema())
    assert "| `k` | whole number from 1 to 100 | `5` |" in page
    assert "| `folds` | [Folds](#folds) |  |" in page
    assert "| `net` | text | required | Any name known to timm. |" in page

"""docs/config.md and config/schema.json, generated from the models that check the configuration."""

import ast
import json
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import cleandoc, getsource
from itertools import pairwise
from pathlib import Path
from typing import Any

from foldvote.config.base import Section
from foldvote.config.experiment import Config
from foldvote.io.files import whole_file, write_json

_HEAD = """# Every key of the configuration

Written by `make schema` from the models that check the configuration; [config/README.md](../config/README.md) is the
manual, with examples. A linked name is a mapping: its keys and their defaults are in the table of that name.
"""
_NUMBERS = {"integer": "whole number", "number": "number"}
_BOUNDS = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}", "exclusiveMaximum": "below {}"}
_PLAIN = {"string": "text", "boolean": "`true` or `false`", "null": "`null`", "object": "mapping", "array": "list"}


def write_reference(schema: Mapping[str, Any], path: str | Path) -> None:
    """Write the page of all keys.

    Args:
        schema: JSON schema of the configuration, as `schema()` gives it.
        path: of the Markdown file.
    """
    with whole_file(path) as temporary:
        temporary.write_text(reference(schema), encoding="utf-8")


def reference(schema: Mapping[str, Any]) -> str:
    """The page of all keys as Markdown: a table of the file itself, then one of each kind of mapping, in order of use.

    Args:
        schema: JSON schema of the configuration, as `schema()` gives it.
    """
    parts = [_HEAD, "## The file\n", _table(schema)]
    for name in _in_order_of_use(schema):
        own = schema["$defs"][name]
        parts += [f"## {name}\n", f"{_in_a_line(own.get('description', ''))}\n", _table(own)]
    return "\n".join(parts)


def _in_order_of_use(schema: Mapping[str, Any]) -> list[str]:
    """Names of the mappings, each after the first one that contains it."""
    known: dict[str, None] = {}
    waiting = list(_named(schema["properties"]))
    while waiting:
        name = waiting.pop(0)
        if name not in known:
            known[name] = None
            waiting = [*_named(schema["$defs"][name].get("properties", {})), *waiting]
    return list(known)


def _named(value: Any) -> Iterator[str]:
    """Names of the mappings that a part of the schema refers to, in order."""
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        for key, inner in value.items():
            if key != "discriminator":
                yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)


def _table(own: Mapping[str, Any]) -> str:
    if not own.get("properties"):
        return ""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, about in own["properties"].items():
        default = _default(about, key in own.get("required", ()))
        rows.append(f"| `{key}` | {_cell(_kind(about))} | {_cell(default)} | {_cell(about.get('description', ''))} |")
    return "\n".join(rows) + "\n"


def _default(about: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    if "default" not in about or "$ref" in about or about["default"] in ({}, []):
        return ""
    return f"`{json.dumps(about['default'], ensure_ascii=False)}`"


def _kind(about: Mapping[str, Any]) -> str:
    """The type of a value, in words."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return ", ".join(f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in about["enum"])
    for several in ("anyOf", "oneOf"):
        if several in about:
            return " or ".join(dict.fromkeys(map(_kind, about[several])))
    kind = about.get("type", "anything")
    if kind in _NUMBERS:
        bounds = [words.format(f"{about[name]:,}") for name, words in _BOUNDS.items() if name in about]
        return " ".join([_NUMBERS[kind], *bounds])
    if kind == "array" and about.get("items"):
        return f"list of: {_kind(about['items'])}"
    if kind == "array" and about.get("prefixItems"):
        return f"list of {len(about['prefixItems'])}: {_kind(about['prefixItems'][0])}"
    inner = next(iter(about.get("patternProperties", {}).values()), about.get("additionalProperties"))
    if kind == "object" and isinstance(inner, Mapping):
        return f"names with: {_kind(inner)}"
    return _PLAIN.get(kind, kind)


def _in_a_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _in_a_line(text).replace("|", "\\|")


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of `config/*.yaml`, with the default and the meaning of every key."""
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Config.model_json_schema()
    for section in _sections(Section):
        for key, about in _properties(whole, section).items():
            if "description" not in about and (text := _explanation(section, key)):
                about["description"] = text
    return whole


def _sections(kind: type[Section]) -> Iterator[type[Section]]:
    """All kinds of mappings of the configuration, the file itself among them."""
    for one in kind.__subclasses__():
        yield one
        yield from _sections(one)


def _properties(whole: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """The keys of one kind of mapping in the schema of the file; none if the file cannot hold it."""
    own = whole if section is Config else whole["$defs"].get(section.__name__, {})
    return own.get("properties", {})


def _explanation(section: type[Section], key: str) -> str | None:
    """The text below a key in the source of its class, or of the class that it is inherited from."""
    return next((texts[key] for one in section.__mro__ if key in (texts := _texts(one))), None)


@cache
def _texts(kind: type) -> dict[str, str]:
    """The texts below the annotated names of a class, by name; none for classes of other packages."""
    if not kind.__module__.startswith("foldvote."):
        return {}
    texts: dict[str, str] = {}
    for written in ast.parse(getsource(kind)).body:
        for statement, after in pairwise(written.body if isinstance(written, ast.ClassDef) else []):
            match statement, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = cleandoc(text)
    return texts


def write_all(root: str | Path) -> None:
    """Write `config/schema.json` and `docs/config.md` below a folder."""
    write_json(Path(root, "config/schema.json"), schema())
    write_reference(schema(), Path(root, "docs/config.md"))

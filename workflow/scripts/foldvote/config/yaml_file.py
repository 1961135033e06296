"""Reads a YAML file strictly: values that YAML 1.1 would silently change are errors.

YAML 1.1, which PyYAML and Snakemake read, takes `010` as 8, `no` as False, `1e-4` as a text, and keeps the last of two
equal keys. Here `1e-4` is a number, as in YAML 1.2. What YAML 1.1 and 1.2 read differently otherwise is refused, since
Snakemake reads the same file as YAML 1.1. Tags other than those of plain values are refused, and nothing is executed.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from foldvote.errors import UserError, raise_all

_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_SEXAGESIMAL = re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}.*")
_SWITCHES = {"yes", "no", "on", "off", "y", "n"}
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
_TOO_DEEP = "an alias holds itself, or the nesting is too deep; write the values out"
MOST_NODES = 20_000


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML file that holds a mapping.

    Args:
        path: a UTF-8 file, at most 1 MB.

    Returns:
        The mapping, with texts as keys and plain Python values; aliases and merge keys (`<<`) are resolved.

    Raises:
        UserError: with one line for each fault, which names file, line and key.
    """
    path = Path(path)
    try:
        if path.stat().st_size > 1_000_000:
            raise UserError(f"{path}: larger than 1 MB, which no configuration is; give the right file")
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give an existing one with --configfile") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{path}: {_TOO_DEEP}") from error
    reader = _Reader(path)
    try:
        value = reader.value(node, "") if node is not None else None
    except RecursionError as error:
        raise UserError(f"{path}: {_TOO_DEEP}") from error
    raise_all(reader.faults)
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold `key: value` lines")
    return value


class _Reader:
    """Turns nodes of YAML into values and collects the faults of the whole file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self.nodes = 0

    def value(self, node: yaml.Node, where: str) -> Any:
        """The value of any node; None for a faulty one.

        Args:
            node: as PyYAML composed it.
            where: the dotted key at which it stands, for the error.
        """
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise UserError(f"{self.path}: aliases expand to more than {MOST_NODES} values; write them out")
        if not self.plain(node, where):
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{where}[{index}]") for index, item in enumerate(node.value)]
        return self.scalar(node, where)

    def mapping(self, node: yaml.MappingNode, where: str) -> dict[str, Any]:
        """The value of a mapping; its own keys come before those that it merges."""
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag.endswith(":merge"):
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in reversed(sources):
                    inherited = self.value(source, where)
                    if isinstance(inherited, dict):
                        merged.update(inherited)
                    else:
                        self.fault(source, where, "<< takes a mapping, such as *an_anchored_one; correct it")
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(key_node, where, "a list or mapping cannot be a key; write a text")
            if not isinstance(key_node, yaml.ScalarNode) or not self.plain(key_node, where):
                continue
            key = key_node.value
            place = f"{where}.{key}".lstrip(".")
            if key in own:
                self.fault(key_node, place, "the key stands twice, and YAML would silently keep the last; delete one")
            own[key] = self.value(value_node, place)
        return merged | own

    def scalar(self, node: yaml.ScalarNode, where: str) -> Any:
        """The value of a scalar: a quoted text, a number, a boolean, null, or a text without quotes."""
        text = node.value
        if node.style is not None:
            return text
        if _FLOAT.fullmatch(text):
            return float(text)
        if _OCTAL.fullmatch(text):
            meant = text[0].strip("+0_") + (text.replace("_", "").lstrip("+-0") or "0")
            self.fault(
                node,
                where,
                f"YAML reads {text} as an octal number; write {meant}, or '{text}' in quotes for a text",
            )
        elif text.lower() in _SWITCHES:
            self.fault(
                node,
                where,
                f"YAML reads {text} as true or false; write true or false, or '{text}' in quotes for a text",
            )
        elif _SEXAGESIMAL.fullmatch(text) or _DATE.fullmatch(text):
            self.fault(node, where, f"YAML reads {text} as a time or date; write it in quotes")
        else:
            try:
                return yaml.SafeLoader("").construct_object(node)
            except (ValueError, KeyError, yaml.YAMLError):
                self.fault(node, where, f"{text!r} is not what its form or tag says; write it in quotes for a text")
        return None

    def plain(self, node: yaml.Node, where: str) -> bool:
        """Whether a node has the tag of a plain value; it is a fault if not."""
        # Only the value of a scalar is used: the text of a collection would write out all its aliases.
        allowed = node.tag in _PLAIN_TAGS or (isinstance(node, yaml.ScalarNode) and _DATE.fullmatch(node.value))
        if not allowed:
            self.fault(node, where, f"the tag {node.tag!r} is not allowed; write plain values")
        return bool(allowed)

    def fault(self, node: yaml.Node, where: str, text: str) -> None:
        """Add a fault, with the file, the line of the node and its key."""
        self.faults.append(f"{self.path}, line {node.start_mark.line + 1}: {where or 'the top level'}: {text}")

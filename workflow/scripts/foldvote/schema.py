"""The JSON schema of the configuration, for editors: it lists, explains and checks the keys while one types."""

from pathlib import Path
from typing import Any

from foldvote.config import Config
from foldvote.configreference import write_reference
from foldvote.files import write_json


def schema() -> dict[str, Any]:
    """The schema of `config/*.yaml` (JSON Schema 2020-12), with every key's default and explanation."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Config.model_json_schema()


def write_all(root: str | Path) -> None:
    """Write `config/schema.json` and `docs/config.md` below a folder."""
    write_json(Path(root, "config/schema.json"), schema())
    write_reference(schema(), Path(root, "docs/config.md"))

"""The JSON schema of the configuration, for editors: it lists, explains and checks the keys while one types."""

from pathlib import Path
from typing import Any

from foldvote.config import Config
from foldvote.files import write_json


def schema() -> dict[str, Any]:
    """The schema of `config/*.yaml` (JSON Schema 2020-12), with every key's default and explanation."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Config.model_json_schema()


def write_schema(path: str | Path) -> None:
    """Write `config/schema.json`."""
    write_json(path, schema())

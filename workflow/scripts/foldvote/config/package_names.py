"""Names that installed packages know, from a list that `make schema` writes.

Importing timm takes six seconds and albumentations two, at every start of the Snakefile; the list is read at once. It
holds the names of the locked versions. Where another version is installed, a name that is not listed counts as known
if it occurs as a word anywhere in that package's source, and the job that uses it has the last word.
"""

import json
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("package_names.json")


@cache
def listed() -> dict[str, Any]:
    """The list: for each package its `version` and its names.

    timm: `nets`, a list of names; `optimizers`, the names of arguments by optimizer; `patches`, by net the stride of
    its patches, where it has any; `weights`, by net and tag the licence of pretrained weights, "" where timm does not
    know it; `default_tags`, by net the tag that timm takes by itself; `weights_from`, by NET.TAG the repository of
    Hugging Face or the URL that they come from, where that is not the repository timm/NET.TAG.
    albumentations: `transforms`, the names of arguments by transform.
    """
    return json.loads(LIST.read_text(encoding="utf-8"))


@cache
def may_know(package: str, name: str) -> bool:
    """Whether an installed package may know a name that is not listed.

    Args:
        package: its name, such as timm.
        name: of a net, an optimizer, a transform or an argument.

    Returns:
        False where the listed version is installed; True where the package is not installed; for another version,
        whether the name occurs as a word in one of its Python files.
    """
    try:
        if version(package) == listed()[package]["version"]:
            return False
    except PackageNotFoundError:
        return True
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return True
    word = re.compile(rf"\b{re.escape(name)}\b")
    return any(word.search(path.read_text(encoding="utf-8")) for path in Path(spec.origin).parent.rglob("*.py"))

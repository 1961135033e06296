"""Names known to timm, from its source text: importing timm would cost six seconds at every start."""

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from foldvote.errors import did_you_mean


def known_name(given: str, name: str, known: frozenset[str], complaint: str) -> str:
    """`given`, or a ValueError where `name` is not known (nothing is known where timm is not installed)."""
    if known and name not in known:
        raise ValueError(f"{complaint} {given!r}{did_you_mean(given, known)}")
    return given


@cache
def net_names() -> frozenset[str]:
    """Names of timm's nets."""
    pattern = re.compile(r"^@register_model\s*\ndef (\w+)", re.MULTILINE)
    return _timm_names("models", "*.py", pattern.findall)


@cache
def optimizer_names() -> frozenset[str]:
    """Names of timm's optimizers that need no further package and no second derivative."""
    pattern = re.compile(r"""\bname=['\"](\w+)['\"]""")
    names = _timm_names("optim", "_optim_factory.py", pattern.findall)
    return frozenset(name for name in names if not name.startswith(("fused", "bnb")) and name != "adahessian")


def _timm_names(folder: str, files: str, find: Callable[[str], list[str]]) -> frozenset[str]:
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    sources = (Path(spec.origin).parent / folder).glob(files)
    return frozenset(name for source in sources for name in find(source.read_text(encoding="utf-8")))

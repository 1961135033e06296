"""Names known to timm: its nets and its optimizers."""

from functools import cache

from foldvote.config.package_names import listed, may_know
from foldvote.errors import did_you_mean


def known_name(given: str, name: str, known: frozenset[str], complaint: str) -> str:
    """`given`, or a ValueError where timm does not know `name`.

    Args:
        given: as it is written in the configuration.
        name: the part of it that must be known.
        known: the listed names.
        complaint: the beginning of the error, such as "timm knows no net".
    """
    if name not in known and not may_know("timm", name):
        raise ValueError(f"{complaint} {given!r}{did_you_mean(given, known)}")
    return given


@cache
def net_names() -> frozenset[str]:
    """Names of timm's nets."""
    return frozenset(listed()["timm"]["nets"])


@cache
def optimizer_names() -> frozenset[str]:
    """Names of timm's optimizers that need no further package and no second derivative."""
    return frozenset(listed()["timm"]["optimizers"])

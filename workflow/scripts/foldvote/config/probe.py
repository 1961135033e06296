"""Probes, models whose network is not trained: which keys of a recipe they have, and the section of the leak check."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from foldvote.config.base import Name, Section

_OWN = frozenset({"kind", "net", "pretrained", "size", "roi", "factors", "heads"})
# They would change what is learnt; a probe with them is refused, for these reasons. All other keys, which say how a
# network is trained, are ignored, so that a probe can inherit from a network's recipe.
REFUSED = dict.fromkeys(
    ("class_weights", "sampler", "labels", "pseudo", "distill"), "learns from each image once, as it is labelled"
) | dict.fromkeys(("fit", "pack"), "has features of images that are squashed to its size")
REFUSED |= {"metadata": "learns from features of images alone"}
# Values of ignored keys that later stages read.
_FIXED = {"epochs": 1, "warmup_epochs": 0.0, "label_smoothing": 0.0, "augment": "none", "precision": "fp32"}


def as_probe(values: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The keys of a recipe as a probe has them: those of training are replaced by fixed values.

    Args:
        values: the recipe as written.
        known: the keys of a recipe; an unknown one is left in place, and reported later.
    """
    ignored = set(known) - _OWN - set(REFUSED)
    return {key: value for key, value in values.items() if key not in ignored} | _FIXED


class LeakCheck(Section):
    """What the target `leak_check` compares."""

    model: Name | None = None
    """The model whose pretrained net makes the features; null: the first one with pretrained weights."""
    columns: list[Name] = Field(default=[])
    """Columns of the manifest or of the layout's table, such as site, camera or date: each is scored as a split that
    keeps the images of one value together."""

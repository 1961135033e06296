"""foldvote: an honest K-fold ensemble for image classification, as functions over paths, arrays and tables."""

from typing import Any

__version__ = "0.3.0"


def __getattr__(name: str) -> Any:
    """`from foldvote import Ensemble`, which imports torch only then."""
    if name == "Ensemble":
        from foldvote.deployment.ensemble import Ensemble

        return Ensemble
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

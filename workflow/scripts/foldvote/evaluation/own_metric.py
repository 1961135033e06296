"""The user's own metric: a Python file with one function of labels, probabilities and class names."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.config.metric_names import metric_key
from foldvote.errors import UserError

Function = Callable[[npt.NDArray[np.integer], npt.NDArray[np.floating], list[str]], float]
_FORM = "one function of (labels, probabilities, class names) that returns a number, higher for better predictions"


def read_own_metric(path: Path) -> tuple[str, Function]:
    """Run the file and take its function, whatever its name; those that begin with `_` are helpers.

    Args:
        path: the file.

    Returns:
        The metric's name, that of the file; and the function, which gets int64 (images,), float64 (images, classes) and
        a list of texts.

    Raises:
        UserError: if the file cannot be run or does not hold one function. The function returned raises it as well, if
            the user's fails or returns no number.
    """
    try:
        content = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise UserError(f"metric: {path} cannot be run: {_in_a_line(error)}; correct the file") from error
    own = {
        name: value
        for name, value in content.items()
        if isinstance(value, FunctionType) and not name.startswith("_") and value.__code__.co_filename == str(path)
    }
    if len(own) != 1:
        found = ", ".join(own) or "none"
        raise UserError(f"metric: {path} must hold {_FORM}; found {found} (helpers begin with _)")
    return metric_key(path.name), _checked(next(iter(own.values())), path)


def try_own_metric(path: Path) -> None:
    """Call the function of the file once, with drawn predictions of three classes.

    Args:
        path: the file.

    Raises:
        UserError: if it fails or does not return a finite number.
    """
    _, function = read_own_metric(path)
    labels = np.arange(12) % 3
    probabilities = np.full((12, 3), 0.2)
    probabilities[np.arange(12), (labels + (np.arange(12) > 8)) % 3] = 0.6
    if not np.isfinite(function(labels, probabilities, ["a", "b", "c"])):
        raise UserError(f"metric: {path} returned no finite number for 12 images of 3 classes; it must hold {_FORM}")


def _checked(function: FunctionType, path: Path) -> Function:
    def score(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating], names: list[str]) -> float:
        try:
            value: Any = function(np.array(labels, np.int64), np.array(probabilities, np.float64), list(names))
        except Exception as error:
            raise UserError(f"metric: {path} failed: {_in_a_line(error)}; it must hold {_FORM}") from error
        if isinstance(value, bool) or not isinstance(value, int | float | np.number | np.ndarray) or np.ndim(value):
            raise UserError(f"metric: {path} returned {type(value).__name__}; it must hold {_FORM}")
        return float(value)

    return score


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")

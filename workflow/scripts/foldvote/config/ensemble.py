"""The ensemble of all members, and the submission file."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from foldvote.config.base import Section, different
from foldvote.config.metric_names import MetricName

METHOD_NAMES = (  # from the simplest on; foldvote.ensemble.methods.METHODS says what each does
    "mean",
    "geometric",
    "best_model",
    "majority",
    "rank",
    "tempered",
    "greedy",
    "weights",
    "factor_weights",
    "class_weights",
    "stacking",
    "lightgbm",
)
OFFSETS = "+offsets"
_NOT_BY_DEFAULT = ("lightgbm",)  # its package is an extra
_DEFAULT_METHODS = [name for name in METHOD_NAMES if name not in _NOT_BY_DEFAULT] + ["mean+offsets", "greedy+offsets"]


def _known_method(kind: str) -> str:
    if kind.removesuffix(OFFSETS) not in METHOD_NAMES:
        known = ", ".join(METHOD_NAMES)
        raise ValueError(f"no ensemble method {kind!r}; choose one of {known}, each also with {OFFSETS}")
    return kind


MethodName = Annotated[str, AfterValidator(_known_method)]


class Vote(Section):
    """Ensemble methods: how the members' probabilities are combined.

    All are scored nested: on other people than they were fitted on.
    """

    use: MethodName | Literal["auto"] = "auto"
    """The method that is used; auto: the simplest one within one standard error of the best."""
    kinds: Annotated[list[MethodName], AfterValidator(different)] = Field(default=_DEFAULT_METHODS)
    """The methods that are compared; the mean always is. `+offsets`: an offset per class, fitted to raise macro-F1, is
    added before the class is chosen."""
    score: MetricName = "macro_f1"
    """The score by which `auto` chooses; by default that of `metric`."""
    fit_by: Literal["log_loss", "macro_f1"] = "log_loss"
    """What greedy and best_model optimize."""
    calibration: Literal["auto", "none", "temperature", "vector"] = "auto"
    """Calibration of the ensemble's probabilities, fitted on the reserve where there is one; predictions stay the same.
    Without a reserve, `auto` derives the temperature of the mean of all members from that of single ones, while
    `temperature` and `vector` scaling are fitted on out-of-fold predictions, which are of single members."""
    draws: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap draws of people for every interval."""


SubmissionAnswer = Literal["code", "name", "probabilities"]


class Submission(Section):
    """The submission file."""

    sample: str | None = None
    """Sample file whose ids, order and columns are kept, relative to data_root; null: the layout's own test table
    (maskbase, demo) or every test image in the manifest's order."""
    id_column: str = "ImageID"
    """Column of the image ids."""
    answer_column: str = "ans"
    """Column of the answers."""
    answer: SubmissionAnswer = "code"
    """Write the class as its code, as its name, or a column of probabilities for each class."""

"""The ensemble of all members, and the submission file."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from foldvote.config.base import FilePath, Section, different
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
    "stacking_metadata",
    "lightgbm_metadata",
)
OFFSETS, EXPECTED = "+offsets", "+expected"  # ends of a method's name: how the classes are chosen
_NOT_BY_DEFAULT = ("lightgbm", "lightgbm_metadata")  # its package is an extra
OF_METADATA = ("stacking_metadata", "lightgbm_metadata")  # which are compared where the data names metadata
_DEFAULT_METHODS = [
    *(name for name in METHOD_NAMES if name not in _NOT_BY_DEFAULT),
    *(name + end for end in (EXPECTED, OFFSETS) for name in ("mean", "greedy")),
]


def _known_method(kind: str) -> str:
    if split_end(kind)[0] not in METHOD_NAMES:
        known = ", ".join(METHOD_NAMES)
        raise ValueError(f"no ensemble method {kind!r}; choose one of {known}, each also with {EXPECTED} or {OFFSETS}")
    return kind


def split_end(kind: str) -> tuple[str, str]:
    """The name of a method, and how it chooses classes: mean and `+offsets` of `mean+offsets`, mean and "" of mean."""
    name, plus, end = kind.partition("+")
    return (name, plus + end) if plus + end in (OFFSETS, EXPECTED) else (kind, "")


MethodName = Annotated[str, AfterValidator(_known_method)]


class Budget(Section):
    """What the submitted vote may cost to apply; the best mean of some models, views and folds that fits is submitted.

    Give one of the keys, or both.
    """

    ms_per_image: float | None = Field(default=None, gt=0)
    """Milliseconds for one image, over all members and views, as measured when the members predicted."""
    megabytes: float | None = Field(default=None, gt=0)
    """Megabytes of the weights of all members."""

    @model_validator(mode="after")
    def _limits_something(self) -> "Budget":
        if self.ms_per_image is None and self.megabytes is None:
            raise ValueError("names no limit; give ms_per_image or megabytes, or drop it")
        return self


class Vote(Section):
    """Ensemble methods: how the members' probabilities are combined.

    All are scored nested: on other people than they were fitted on.
    """

    use: MethodName | Literal["auto"] = "auto"
    """The method that is used; auto: the mean, or the simplest within one standard error of the best of those that are
    better than it in 97.5 % of the bootstrap draws."""
    kinds: Annotated[list[MethodName], AfterValidator(different)] = Field(default=_DEFAULT_METHODS)
    """The methods that are compared; the mean always is. `+expected`: an offset per class is added before the class is
    chosen, which raises the macro-F1 that the probabilities themselves promise; `+offsets`: that of the labels."""
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
    coverage: float = Field(default=0.9, ge=0.5, le=0.999)
    """How often the set of classes of an image in `ensemble/review.csv` contains the true one."""
    covers: Literal["image", "group"] = "image"
    """What is covered: a random image of a new person, or all images of a new person at once."""
    budget: Budget | None = None
    """What the submitted vote may cost; null: all members and views are used."""

    @property
    def asked(self) -> list[str]:
        """The methods that are compared where data and models have what they need: the mean, `kinds` and `use`."""
        return list(dict.fromkeys(["mean", *self.kinds, *([] if self.use == "auto" else [self.use])]))

    @model_validator(mode="after")
    def _budget_takes_the_mean(self) -> "Vote":
        if self.budget is not None and self.use not in ("auto", "mean"):
            raise ValueError(f"budget: submits a mean of members, and use asks for {self.use}; drop one of the two")
        return self


SubmissionAnswer = Literal["code", "name", "probabilities"]
Unit = Literal["image", "group"]
Pooling = Literal["mean", "geometric", "maximum", "noisy_or", "weighted"]


class Submission(Section):
    """The submission file."""

    sample: FilePath | None = None
    """Sample file whose ids, order and columns are kept, relative to data_root; null: the layout's own test table
    (maskbase, demo) or every test image in the manifest's order."""
    id_column: str = "ImageID"
    """Column of the ids: of images, or with `unit: group` names of groups."""
    answer_column: str = "ans"
    """Column of the answers."""
    answer: SubmissionAnswer = "code"
    """Write the class as its code, as its name, or a column of probabilities for each class. Where all class names are
    numbers, such as grades 1 to 5, the code is this number; otherwise codes count from 0 in the order of classes."""
    unit: Unit = "image"
    """What has one answer: an image, or a group (a patient, a study, a lesion, a person), from all of its images."""
    pooling: Pooling | Literal["auto"] = "auto"
    """With `unit: group`: how the probabilities of a group's images become one. auto: the simplest within one standard
    error of the best, by `vote.score` over groups; without a reserve the mean, unless another is surely better."""

    @property
    def columns(self) -> dict[str, Any]:
        """The form of a file with answers: id_column, answer_column and answer."""
        return self.model_dump(include={"id_column", "answer_column", "answer"})

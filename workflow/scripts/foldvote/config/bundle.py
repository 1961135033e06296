"""The finished ensemble as a folder of ONNX files that predicts without this workflow."""

from collections.abc import Collection, Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from foldvote.config.base import Section, different

Precision = Literal["fp32", "fp16", "int8"]
NOT_EXPORTED = ("lightgbm", "stacking_metadata", "lightgbm_metadata")  # ensemble methods without a form in ONNX


class Bundle(Section):
    """What the target `bundle` exports; nothing else depends on it."""

    folds: list[int] | None = Field(default=None, min_length=1)
    """Folds whose members are exported, such as [0, 2]; null: all. Fewer are faster, and their vote is worth less."""
    views: Annotated[list[str], AfterValidator(different)] | None = Field(default=None, min_length=1)
    """Test-time views that are exported, such as [identity]; null: all that the vote uses."""
    budget: bool = True
    """Where there is a `vote.budget`: export the vote that fits it, which is submitted; false: the whole vote."""
    precision: Precision = "fp32"
    """Of the networks. fp32 predicts as the workflow does; with fp16 and int8 the loss in score is measured and written
    to the bundle."""

    def faults(self, folds: int, views: Collection[str]) -> Iterator[str]:
        """One line for each fold or view that does not exist.

        Args:
            folds: number of folds.
            views: names of the views in `predict.views`.
        """
        for fold in self.folds or []:
            if not 0 <= fold < folds:
                yield f"bundle.folds: there is no fold {fold}; the last one is {folds - 1}"
        for view in self.views or []:
            if view not in views:
                yield f"bundle.views: there is no view {view!r} in predict.views ({', '.join(views)})"

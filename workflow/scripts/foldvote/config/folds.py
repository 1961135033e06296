"""How groups are split into folds, and where face boxes come from."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foldvote.config.base import FilePath, Name, Section, Share


class Folds(Section):
    """How groups are split into folds."""

    method: Literal["kfold", "holdout", "file"] = "kfold"
    """kfold: K-fold cross-validation; holdout: one validation part only; file: your own folds."""
    k: int = Field(default=5, ge=1, le=100)
    """Number of folds."""
    repeats: int = Field(default=1, ge=1, le=20)
    """Independent K-fold splits; folds are numbered consecutively: two repeats of five folds are folds 0 to 9."""
    fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Validation share of the groups, for holdout; rounded to one in n (0.2 is one in five)."""
    reserve: float = Field(default=0, ge=0, le=0.5)
    """Share of the groups that is kept out of every fold. All members predict them as they predict test images: the
    submitted vote is scored and calibrated on them. 0: none."""
    file: FilePath | None = None
    """CSV or parquet table with columns group and fold (or image_id and fold), for method file."""
    stratify: Annotated[list[Name], Field(min_length=1)] | Literal["label"] = "label"
    """What the folds are balanced on: the class, or a list of factors."""
    on_rare: Literal["warn", "error"] = "warn"
    """What to do when some fold has no group of a class or stratum to learn from or to be scored on."""
    duplicates: Literal["merge", "error"] = "merge"
    """What to do when two groups contain an identical file: merge them into one group, or stop with an error."""
    near_duplicate_bits: int = Field(default=4, ge=0, le=16)
    """Largest Hamming distance between two 64-bit perceptual hashes for which images are listed as near-duplicates."""

    @model_validator(mode="before")
    @classmethod
    def _one_fold_held_out(cls, values: Any) -> Any:
        held_out = isinstance(values, dict) and values.get("method") == "holdout"
        return {"k": 1} | values if held_out else values

    @model_validator(mode="after")
    def _consistent(self) -> "Folds":
        faults = []
        if self.method != "holdout" and self.k == 1:
            faults.append("k: 1 is no cross-validation; for a single validation part say method: holdout")
        if self.method == "holdout" and self.k != 1:
            faults.append(f"method: holdout has one fold, k is {self.k}; set k: 1 or drop k")
        if (self.method == "file") != (self.file is not None):
            faults.append("method: file and file: <path> go together; set both or neither")
        if self.method != "kfold" and self.repeats != 1:
            faults.append(f"repeats: {self.repeats} needs method: kfold; drop it")
        if self.count > 127:
            faults.append(f"{self.k} folds x {self.repeats} repeats are more than 127 members; lower one")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def count(self) -> int:
        """Number of members of each model: one per fold and repeat."""
        return 1 if self.method == "holdout" else self.k * self.repeats


class Faces(Section):
    """Where face boxes come from, for models with `roi: face-MARGIN`."""

    file: FilePath | None = None
    """Your own boxes (CSV or parquet): image_id, left, top, right, bottom in pixels, and confidence if you have it;
    null: the face detector finds them."""
    min_confidence: Share = 0.5
    """Boxes of lower confidence are not used: the centre is cut out instead; the number of such images is reported."""

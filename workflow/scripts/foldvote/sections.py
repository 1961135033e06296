"""The sections of the configuration, key by key: the reference of every one; `config/schema.json` is made from them.

They import no torch: the Snakefile reads them at every start.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from foldvote.viewnames import checked_views


def different(values: list[str]) -> list[str]:
    """The values, or a ValueError that names those that stand twice."""
    doubled = sorted({value for value in values if values.count(value) > 1})
    if doubled:
        raise ValueError(f"{', '.join(doubled)} stands twice; name each once")
    return values


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[
    str, Field(pattern=r"^[1-9]\d{0,3}x[1-9]\d{0,3}$", description="height x width in pixels, such as 128x96")
]
Classes = Annotated[list[str], Field(min_length=2), AfterValidator(different)]
Roi = Annotated[
    str,
    Field(
        pattern=r"^(none|centre-[1-9]\d{0,3}x[1-9]\d{0,3}|box-\d+-\d+-\d+-\d+|face-\d\.\d{1,2})$",
        description="cut out before the resize: none, centre-HxW, box-LEFT-TOP-RIGHT-BOTTOM (pixels), or face-MARGIN "
        "such as face-0.30 (the margin as a share of the face box's sides)",
    ),
]


class Section(BaseModel):
    """A part of the configuration: unknown keys, NaN and infinity are faults."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=False, use_attribute_docstrings=True
    )


class MaskbaseLayout(Section):
    """The home task's folders: a table of persons, a folder of seven shots for each, a table of test images."""

    layout: Literal["maskbase"]
    train_table: str = "train/train.csv"
    """Table of persons with columns id, gender, age, path; relative to data_root."""
    train_images: str = "train/images"
    """Folder that holds one folder a person."""
    test_table: str | None = "eval/info.csv"
    """Table of test images with a column ImageID, in the order of the submission; null when there is none."""
    test_images: str = "eval/images"
    """Folder of the test images."""
    group_pattern: str = r"^(\d{6})"
    """Regular expression on `id`; its first group names the person that must not be on both sides of a split."""
    age_borders: tuple[int, int] = (30, 60)
    """First age of the middle band and first age of the oldest band, in years."""

    @field_validator("age_borders")
    @classmethod
    def _rising(cls, borders: tuple[int, int]) -> tuple[int, int]:
        if not 0 < borders[0] < borders[1]:
            raise ValueError(f"must be two rising ages above 0 (it is {list(borders)})")
        return borders


class DemoLayout(MaskbaseLayout):
    """Drawn faces in the home task's folders, made by the workflow itself under `results`."""

    layout: Literal["demo"]  # type: ignore[assignment]
    profiles: int = Field(default=60, ge=10, le=100_000)
    """Persons to train on, seven pictures each."""
    test_profiles: int = Field(default=20, ge=1, le=100_000)
    """Persons to predict, seven pictures each."""
    picture_size: Size = "256x192"
    """Height x width of the drawn pictures."""


class TableLayout(Section):
    """Any images listed in a CSV or parquet table."""

    layout: Literal["table"]
    table: str
    """The table, relative to data_root; paths inside it are relative to data_root as well."""
    path: str = "path"
    """Column with the image's path."""
    id: str | None = None
    """Column with a unique name of the image; null: its path."""
    group: str = "group"
    """Column with the group: what must not be on both sides of a split."""
    label: str | None = "label"
    """Column with the class name; null when the class is made up of `factors`."""
    classes: Classes | None = None
    """Class names in the order of their codes; null: the sorted names found in the training rows."""
    factors: dict[Name, Classes] = {}
    """Columns that make up the class and their levels in order; the class is their product in this order."""
    split: str | None = None
    """Column that says train or test; null: every row is for training."""

    @model_validator(mode="after")
    def _label_or_factors(self) -> "TableLayout":
        if (self.label is None) == (not self.factors):
            raise ValueError(
                "give either label (a column) or factors (columns and levels), not both: set label: null with factors"
            )
        return self


class FoldersLayout(Section):
    """One folder a class."""

    layout: Literal["folders"]
    train: str = "train"
    """Folder with one folder a class, relative to data_root."""
    test: str | None = None
    """Folder of images to predict; null when there is none."""
    classes: Classes | None = None
    """Class folders in the order of their codes; null: the sorted folder names."""
    group_pattern: str
    r"""Regular expression on the image's path below its class folder; its first group names the image's group.
    `^(.*)$` makes every image its own group."""


Layout = Annotated[DemoLayout | MaskbaseLayout | TableLayout | FoldersLayout, Field(discriminator="layout")]


class Images(Section):
    """What counts as a readable image."""

    on_bad: Literal["error", "quarantine"] = "error"
    """error: stop and list the bad images; quarantine: leave them out, listed in data/quarantine."""
    formats: list[Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]] = ["JPEG", "PNG", "WEBP"]
    """Formats that are accepted, by content and not by file name."""
    tolerate_tail: bool = False
    """Accept a JPEG that lacks no more than its end marker (flagged in the manifest)."""
    animated: Literal["refuse", "first_frame"] = "refuse"
    """What to do with an image of several frames."""
    background: tuple[
        Annotated[int, Field(ge=0, le=255)],
        Annotated[int, Field(ge=0, le=255)],
        Annotated[int, Field(ge=0, le=255)],
    ] = (255, 255, 255)
    """RGB colour put behind transparent pixels."""
    min_side: int = Field(default=16, ge=1, le=10_000)
    """Smallest accepted height and width in pixels."""
    max_megapixels: float = Field(default=50, gt=0, le=1000)
    """Largest accepted area, checked in the header before any pixel is decoded."""


class Folds(Section):
    """How groups are split."""

    method: Literal["kfold", "holdout", "file"] = "kfold"
    """kfold; holdout: one validation part only; file: your own folds."""
    k: int = Field(default=5, ge=1, le=100)
    """Number of folds."""
    repeats: int = Field(default=1, ge=1, le=20)
    """Independent K-fold splits; folds are numbered through, so two repeats of five give folds 0 to 9."""
    fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Validation share of the groups, for holdout; rounded to one in n (0.2 is one in five)."""
    file: str | None = None
    """CSV or parquet table with columns group and fold (or image_id and fold), for method file."""
    stratify: Annotated[list[Name], Field(min_length=1)] | Literal["label"] = "label"
    """What the folds are balanced on: the class, or a list of factors."""
    on_rare: Literal["warn", "error"] = "warn"
    """What to do when a stratum or class has fewer groups than folds."""
    duplicates: Literal["merge", "error"] = "merge"
    """Same bytes under two groups: merge makes them one group, error stops."""
    near_duplicate_bits: int = Field(default=4, ge=0, le=16)
    """Largest Hamming distance of two 64-bit perceptual hashes that is listed as a near-duplicate."""

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
        """Number of members a model has: one a fold and repeat."""
        return 1 if self.method == "holdout" else self.k * self.repeats


class Faces(Section):
    """Where the faces are, for models with `roi: face-MARGIN`."""

    file: str | None = None
    """Your own boxes (CSV or parquet): image_id, left, top, right, bottom in pixels, and confidence if you have it;
    null: the detector finds them."""
    min_confidence: Share = 0.5
    """Boxes below it are not used: the centre is cut out instead, and counted."""


class Predict(Section):
    """How members predict."""

    views: Annotated[list[str | dict[str, Any]], Field(min_length=1), BeforeValidator(checked_views)] = [
        "identity",
        "hflip",
    ]
    """Test-time transforms; their probabilities are averaged. Names: `identity`, `hflip`, `vflip`; `rotate+8` turns by
    8 degrees anticlockwise, `rotate-8` clockwise (mirrored at the edges; quarter turns of square images only);
    `crop-centre-90` cuts out 90 % of both sides, so does `crop-top-left-90` at that corner (any corner, or top,
    bottom, left, right), and `five_crops` or `five_crops-80` stands for the centre and the corners, five views;
    `scale-115` zooms in to 115 %, `scale-85` out; `brighter-20`, `darker-20`, `contrast+20`, `contrast-20` are in
    percent; `clahe` or `clahe-4` (its clip limit). `+` joins, as in `hflip+crop-centre-90`: pixels are changed first,
    then moved, in the order written. Steps as in a recipe's `augment` are a mapping,
    `{name: gamma, steps: [{RandomGamma: {gamma_limit: [80, 80], p: 1}}]}`, with `then: hflip` where a named view is to
    follow; what they draw depends on the view's name and the image alone."""


VOTE_KINDS = (  # in order of simplicity
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


def _known_kind(kind: str) -> str:
    if kind.removesuffix(OFFSETS) not in VOTE_KINDS:
        raise ValueError(f"no vote {kind!r}; choose of {', '.join(VOTE_KINDS)}, each also with {OFFSETS}")
    return kind


VoteKind = Annotated[str, AfterValidator(_known_kind)]


class Vote(Section):
    """How members' probabilities become one. All is scored nested: on persons that a vote was not fitted on."""

    use: VoteKind | Literal["auto"] = "auto"
    """The vote that is used; auto: the simplest one within one standard error of the best."""
    kinds: Annotated[list[VoteKind], AfterValidator(different)] = [
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
        "mean+offsets",
        "greedy+offsets",
    ]
    """The votes that are compared; the mean always is. `+offsets`: classes are chosen after an offset for each, which
    raises macro-F1."""
    score: Literal["macro_f1", "accuracy", "log_loss"] = "macro_f1"
    """The nested score that chooses."""
    fit_by: Literal["log_loss", "macro_f1"] = "log_loss"
    """What greedy and best_model improve."""
    calibration: Literal["none", "temperature", "vector"] = "temperature"
    """How the vote's probabilities are brought to the share of right answers; predictions stay as they are."""
    draws: int = Field(default=2000, ge=100, le=100_000)
    """Draws of persons behind every interval."""


SubmissionAnswer = Literal["code", "name", "probabilities"]


class Submission(Section):
    """The file that is handed in."""

    sample: str | None = None
    """Sample file whose ids, order and columns are kept, relative to data_root; null: the layout's own test table
    (maskbase, demo) or every test image in the manifest's order."""
    id_column: str = "ImageID"
    """Column of the image ids."""
    answer_column: str = "ans"
    """Column of the answers."""
    answer: SubmissionAnswer = "code"
    """Write the class as its code, as its name, or a column of probabilities for each class."""


class Tracking(Section):
    """Where the course of a training is sent, beside history.parquet. None of it can fail a run."""

    tensorboard: bool = True
    """Scalars, learning rate, a grid of pictures with truth and prediction, the graph: <results>/tensorboard."""
    wandb: str | None = None
    """Project at Weights & Biases; offline unless WANDB_MODE says otherwise. Needs `pip install wandb`."""
    mlflow: str | None = None
    """Experiment of MLflow, in <results>/mlruns unless MLFLOW_TRACKING_URI is set. Needs `pip install mlflow`."""


class Runtime(Section):
    """Settings that change no result, so that changing them reruns nothing."""

    workers: int | None = Field(default=None, ge=0, le=256)
    """Processes that load images, for each one that trains; null: as the threads of the job allow."""
    gpus_per_member: int = Field(default=1, ge=1, le=64)
    """GPUs of one machine that train a member together; --resources gpu=N must offer as many."""
    cpu_processes: int = Field(default=1, ge=1, le=64)
    """Processes that train a member together where it has no GPU; they share the threads of the job."""
    predict_batch: int = Field(default=256, ge=1, le=65_536)
    """Images in one batch of predictions."""
    checkpoint_minutes: float = Field(default=5, gt=0)
    """Longest time between two saves of the training state; each epoch's end saves as well."""
    state_dir: str | None = Field(default=None, min_length=1)
    """Folder for what a training writes while it is under way: its saved state and TensorBoard; null: `results`."""
    container: str | None = Field(default=None, min_length=1)
    """Image that rules run in with `--sdm apptainer`: docker://registry/name:tag, or a .sif file."""
    tracking: Tracking = Tracking()


def parse_size(size: str) -> tuple[int, int]:
    """`"128x96"` -> (128, 96): height and width in pixels."""
    height, width = size.split("x")
    return int(height), int(width)

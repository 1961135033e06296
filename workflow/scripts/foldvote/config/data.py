"""Where the data lies and what it means: everything of the configuration that a data stage reads."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from foldvote.config.base import (
    Classes,
    DataPath,
    FilePath,
    FolderPath,
    Name,
    Section,
    Size,
    factor_name_faults,
    joined_levels_fault,
)
from foldvote.config.layout_facts import DrawnData, ImageList, NumericFactor
from foldvote.config.layout_section import LayoutSection
from foldvote.config.metadata import MetadataKind, metadata_faults


class MaskbaseLayout(LayoutSection):
    """The home task's folders: a table of persons, one folder of seven images per person, a table of test images."""

    layout: Literal["maskbase"]
    train_table: DataPath = "train/train.csv"
    """Table of persons with columns id, gender, age, path; relative to data_root."""
    train_images: DataPath = "train/images"
    """Folder that holds one folder per person."""
    test_table: DataPath | None = "eval/info.csv"
    """Table of test images with a column ImageID, in the order of the submission; null when there is none."""
    test_images: DataPath = "eval/images"
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

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Mask state, gender and age band."""
        return ("mask", "gender", "age")

    @property
    def numeric_factor(self) -> NumericFactor:
        """The age band, and the age in years behind it."""
        near = ((27, 32), (55, 62))
        return NumericFactor(name="age", column="age_years", borders=self.age_borders, detail=near, unit="years")

    @property
    def has_test(self) -> bool:
        """Whether there is a table of test images."""
        return self.test_table is not None

    @property
    def submission_table(self) -> str | None:
        """The table of test images."""
        return self.test_table

    def tables(self, split: str) -> list[str]:
        """The table of persons, or that of test images."""
        table = self.train_table if split == "train" else self.test_table
        return [table] if table else []

    def image_folder(self, split: str) -> str:
        """The folder of persons' folders, or that of the test images."""
        return self.train_images if split == "train" else self.test_images

    def image_list(self, split: str) -> ImageList | None:
        """The table of persons, or that of test images."""
        if split == "train":
            return ImageList(self.train_table, "path", folder=self.train_images, persons=True)
        return ImageList(self.test_table, "ImageID", folder=self.test_images) if self.test_table else None


class DemoLayout(MaskbaseLayout):
    """Drawn faces in the home task's folders, made by the workflow itself under `results`."""

    layout: Literal["demo"]  # type: ignore[assignment]
    profiles: int = Field(default=60, ge=10, le=100_000)
    """Persons to train on, seven pictures each."""
    test_profiles: int = Field(default=20, ge=1, le=100_000)
    """Persons to predict, seven pictures each."""
    picture_size: Size = "256x192"
    """Height x width of the drawn pictures."""

    @property
    def drawn(self) -> DrawnData:
        """Seven pictures of each person."""
        persons = self.profiles + self.test_profiles
        return DrawnData("demo", persons, 7 * persons)


class TableLayout(LayoutSection):
    """Any images listed in a CSV or parquet table."""

    layout: Literal["table"]
    table: DataPath
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
    """Class names in the order of their codes; null: the names found in the training rows, sorted; numbers by their
    value, so that 2 comes before 10."""
    factors: dict[Name, Classes] = Field(default={})
    """Columns that make up the class and their levels in order; the class is their product in this order."""
    split: str | None = None
    """Column that says train or test; null: every row is for training."""
    role: str | None = None
    """Column that says train_only for images that are learnt from and never scored, such as data from elsewhere; train
    or empty for all others. A member learns from none whose group it is validated on."""
    weight: str | None = None
    """Column with the weight of a training image in the loss, from 1e-6 to 1e6; empty: 1. Scores have no weights."""
    metadata: dict[str, MetadataKind] = Field(default={})
    """Columns that models may learn from beside the image, each a number or a category, such as {age: number,
    site: category}; filled for test images too, and empty where unknown."""

    @model_validator(mode="after")
    def _label_or_factors(self) -> "TableLayout":
        if (self.label is None) == (not self.factors):
            raise ValueError(
                "give either label (a column) or factors (columns and levels), not both: set label: null with factors"
            )
        faults = factor_name_faults(self.factors)
        if fault := self.joined_levels_fault(list(self.factors)):
            faults.append(f"factors: {fault}")
        own = {name: getattr(self, name) for name in ("path", "id", "group", "label", "split", "role", "weight")}
        faults += metadata_faults(self.metadata, own, self.factors)
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def joined_levels_fault(self, factors: Sequence[str]) -> str | None:
        """Why the levels of some factors, joined by `-`, make no names of classes or strata; None if they do."""
        return joined_levels_fault({name: levels for name, levels in self.factors.items() if name in factors})

    @property
    def metadata_columns(self) -> dict[str, MetadataKind]:
        """The columns of `metadata`."""
        return dict(self.metadata)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The columns of `factors`."""
        return tuple(self.factors)

    @property
    def classes_found(self) -> bool:
        """Whether neither classes nor factors are given."""
        return self.classes is None and not self.factors

    @property
    def has_test(self) -> bool:
        """Whether a column says which rows are to predict."""
        return self.split is not None

    @property
    def has_test_groups(self) -> bool:
        """The column of groups may be filled for test rows as well."""
        return True

    def image_list(self, split: str) -> ImageList:  # noqa: ARG002 - one table holds both
        """The table itself."""
        return ImageList(self.table, self.path, self.split)

    def tables(self, split: str) -> list[str]:  # noqa: ARG002 - one table holds both
        """The table."""
        return [self.table]


class FoldersLayout(LayoutSection):
    """One folder per class."""

    layout: Literal["folders"]
    train: DataPath = "train"
    """Folder with one folder a class, relative to data_root; `.` if they lie in data_root itself."""
    test: DataPath | None = None
    """Folder of images to predict; null when there is none."""
    classes: Classes | None = None
    """Class folders in the order of their codes; null: the sorted folder names; numbers by their value."""
    group_pattern: str
    r"""Regular expression on the image's path below its class folder; its first group names the image's group.
    `^(.*)$` makes every image its own group."""

    @property
    def classes_found(self) -> bool:
        """Whether the classes are the folders found."""
        return self.classes is None

    @property
    def has_test(self) -> bool:
        """Whether there is a folder of images to predict."""
        return self.test is not None

    @property
    def has_test_groups(self) -> bool:
        """Their names may be like those of training images."""
        return True

    @property
    def test_group_pattern(self) -> str:
        """The same as for training images, applied to the path below the test folder."""
        return self.group_pattern

    def image_folder(self, split: str) -> str | None:
        """The folder of class folders, or that of the test images."""
        return self.train if split == "train" else self.test


Layout = Annotated[DemoLayout | MaskbaseLayout | TableLayout | FoldersLayout, Field(discriminator="layout")]


class Images(Section):
    """What counts as a readable image."""

    on_bad: Literal["error", "quarantine"] = "error"
    """error: stop and list the bad images; quarantine: leave them out, listed in data/quarantine."""
    formats: list[Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]] = Field(default=["JPEG", "PNG", "WEBP"])
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


class DataSettings(Section):
    """Where the data lies and what it means: all that the data stages depend on."""

    results: FolderPath = "results"
    """Folder of everything that is made; two experiments live side by side in two folders."""
    data: Layout
    data_root: Annotated[FolderPath | None, Field(validate_default=True)] = None
    """Folder of the data; every path of `data` is relative to it. Not for the demo, which draws its own."""
    corrections: FilePath | None = None
    """CSV of label corrections: id, field, from, to, source, certainty. Looked for here, then below data_root."""
    corrections_certainty: list[str] = Field(default=["certain"])
    """Which values of the column certainty are applied."""
    leave_out: list[str] = Field(default=[])
    """Training images that are left out, each with all its copies, such as a picture that says that there is none:
    image ids, or paths below data_root."""
    images: Images = Images()

    @property
    def factor_names(self) -> frozenset[str]:
        """Names of the factors that make up the class; none where the class is one column or folder."""
        return frozenset(self.data.factor_names)

    @property
    def root(self) -> Path:
        """The data folder; data that the workflow draws lies under results."""
        drawn = self.data.drawn
        return Path(self.results) / drawn.folder if drawn else Path(str(self.data_root))

    @property
    def has_test(self) -> bool:
        """Whether there are images to predict and so a submission to write."""
        return self.data.has_test

    def tables(self, split: str) -> list[Path]:
        """The user's tables that a split (train or test) is read from; a folder of classes has none."""
        return [self.root / table for table in self.data.tables(split)]

    def for_split(self, split: str) -> dict[str, Any]:
        """All that a manifest depends on, as plain JSON values: a test manifest not on the corrections."""
        values = self.model_dump(mode="json", include=set(DataSettings.model_fields))
        if self.data.drawn is None:  # in one spelling, wherever it was found; drawn corrections always lie in the root
            values["corrections"] = self.corrections_path and str(self.corrections_path)
        if split == "train":
            return values
        values["data"]["similar_groups"] = "refuse"  # test images are in no group
        values["data"] |= dict.fromkeys({"role", "weight"} & set(values["data"]))  # nor learnt from
        return values | {"corrections": None, "corrections_certainty": [], "leave_out": []}

    @property
    def corrections_path(self) -> Path | None:
        """The corrections file, or None."""
        return self.found(self.corrections)

    def found(self, path: str | None) -> Path | None:
        """A file of the user's: relative to the working directory if it is there, else below the data folder."""
        if path is None:
            return None
        here = Path(path)
        return here if self.data.drawn is None and (here.is_absolute() or here.exists()) else self.root / here

    @field_validator("results")
    @classmethod
    def _plain_folder(cls, results: str) -> str:
        if re.search(r"[<>{}*?\[\]]|^\s*$", results):
            raise ValueError(f"must be a plain folder name without <>{{}}*?[] (it is {results!r})")
        return results

    @field_validator("data_root")
    @classmethod
    def _rooted(cls, data_root: str | None, info: ValidationInfo) -> str | None:
        data: Layout | None = info.data.get("data")
        if data is not None and data.drawn and data_root is not None:
            raise ValueError(
                f"is not used by data.layout: {data.layout}, which draws its own; set data.layout: maskbase"
            )
        if data is not None and not data.drawn and not data_root:
            raise ValueError("missing: the folder of the data; add --config data_root=FOLDER")
        return data_root


def layout_section(values: Any) -> Layout:
    """The section `data` of its plain values, as a rule or a report's settings hold it."""
    return TypeAdapter(Layout).validate_python(values)


def numeric_factor_of(text: str) -> NumericFactor | None:
    """A numeric factor of its JSON; None of `null`."""
    return TypeAdapter(NumericFactor | None).validate_json(text)

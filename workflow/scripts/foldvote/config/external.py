"""Data from elsewhere, each block with a layout of its own, whose images are only trained on."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from foldvote.config.base import FolderPath, Name, Section
from foldvote.config.data import DataSettings, FoldersLayout, Layout, MaskbaseLayout, TableLayout
from foldvote.io.names import plain_name


class External(Section):
    """Images that every member learns from and none is scored on; their names begin with that of the block."""

    data_root: FolderPath = Field(min_length=1)
    """Folder of these images; every path of `data` is relative to it."""
    data: Annotated[MaskbaseLayout | TableLayout | FoldersLayout, Field(discriminator="layout")]
    """Their layout, with keys as in the section `data`; only its training images are read."""
    classes: dict[str, str | None] = Field(default={})
    """The data's names of classes that are called otherwise here, `theirs: ours`; null leaves their images out."""
    weight: float = Field(default=1, ge=1e-6, le=1_000_000)
    """Weight of each of these images in the loss; a column of weights is multiplied by it."""
    same_groups: bool = True
    """Whether a group with the name of a group of the data is the same one. true: no member learns from it that is
    scored on it; false: their groups are others."""

    @field_validator("classes")
    @classmethod
    def _plain_names(cls, classes: dict[str, str | None]) -> dict[str, str | None]:
        return {plain_name(theirs): ours and plain_name(ours) for theirs, ours in classes.items()}


class AllData(DataSettings):
    """The data, and data from elsewhere that is only trained on: all that the data stages depend on."""

    external: dict[Name, External] = Field(default={})
    """Data from elsewhere that is only trained on: blocks under names of your choice, each with its own layout."""

    @field_validator("external")
    @classmethod
    def _fits_the_data(cls, external: dict[str, External], info: ValidationInfo) -> dict[str, External]:
        data: Layout | None = info.data.get("data")
        faults = [f"{name}.{fault}" for name, block in external.items() for fault in _misfits(block, data)]
        if faults:
            raise ValueError("\n".join(faults))
        return external

    def for_split(self, split: str) -> dict[str, Any]:
        """All that a manifest depends on, as plain JSON values: only that of train on data from elsewhere."""
        values = super().for_split(split)
        if split == "train" and self.external:
            values["external"] = self.model_dump(mode="json", include={"external"})["external"]
        return values

    @property
    def blocks(self) -> dict[str, DataSettings]:
        """Each block of data from elsewhere as data of its own, by name."""
        return {
            name: DataSettings(results=self.results, data=block.data, data_root=block.data_root, images=self.images)
            for name, block in self.external.items()
        }

    def external_folders(self, split: str) -> dict[str, str]:
        """The folders of data from elsewhere by name; none for test images."""
        return {name: block.data_root for name, block in self.external.items()} if split == "train" else {}

    def external_tables(self, split: str) -> list[Path]:
        """The tables of data from elsewhere that a split is read from."""
        return [table for block in self.blocks.values() for table in block.tables(split) if split == "train"]


def _misfits(block: External, data: Layout | None) -> list[str]:
    """What of a block does not fit the section `data`; None: that section has faults of its own."""
    faults = []
    if isinstance(block.data, TableLayout) and block.data.role is not None:
        faults.append("data.role: all images of external data are only trained on; drop it")
    kinds = data.metadata_columns if data else {}
    faults += [
        f"data.metadata.{name}: is a {kind} here and a {kinds[name]} in the data; make them one"
        for name, kind in block.data.metadata_columns.items()
        if kinds.get(name, kind) != kind
    ]
    own, theirs = (data.factor_names if data else ()), block.data.factor_names
    missing = [name for name in own if name not in theirs]
    if theirs and missing:
        faults.append(
            f"data: has no {', '.join(missing)}, and a class of the data is made of {' x '.join(own)}; add the missing "
            "columns to its table, or give whole classes in one column (data.label)"
        )
    return faults

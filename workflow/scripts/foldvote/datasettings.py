"""Where the data lies and what it means: the part of the configuration that the data stages depend on.

It is a module of its own so that a change of what is trained or voted on reruns no data stage.
"""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from foldvote.sections import FoldersLayout, Images, Layout, MaskbaseLayout, Section, TableLayout


class DataSettings(Section):
    """Where the data lies and what it means: all that the data stages depend on."""

    results: str = "results"
    """Folder of everything that is made; two experiments live side by side in two folders."""
    data: Layout
    data_root: Annotated[str | None, Field(validate_default=True)] = None
    """Folder of the data; every path of `data` is relative to it. Not for the demo, which draws its own."""
    corrections: str | None = None
    """CSV of label corrections: id, field, from, to, source, certainty. Looked for here, then below data_root."""
    corrections_certainty: list[str] = Field(default=["certain"])
    """Which values of the column certainty are applied."""
    images: Images = Images()

    @property
    def factor_names(self) -> frozenset[str]:
        """Names of the factors that make up the class; none where the class is one column or folder."""
        return factor_names_of(self.data)

    @property
    def root(self) -> Path:
        """The data folder; the demo's lies under results."""
        return Path(self.results) / "demo" if self.data.layout == "demo" else Path(str(self.data_root))

    @property
    def has_test(self) -> bool:
        """Whether there are images to predict and so a submission to write."""
        data = self.data
        if isinstance(data, TableLayout):
            return data.split is not None
        if isinstance(data, FoldersLayout):
            return data.test is not None
        return data.test_table is not None

    def tables(self, split: str) -> list[Path]:
        """The user's tables that a split (train or test) is read from; a folder of classes has none."""
        data = self.data
        if isinstance(data, TableLayout):
            return [self.root / data.table]
        if isinstance(data, MaskbaseLayout):
            table = data.train_table if split == "train" else data.test_table
            return [self.root / table] if table else []
        return []

    def for_split(self, split: str) -> dict[str, Any]:
        """All that a manifest depends on, as plain JSON values: a test manifest not on the corrections."""
        values = self.model_dump(mode="json", include=set(DataSettings.model_fields))
        return values if split == "train" else values | {"corrections": None, "corrections_certainty": []}

    @property
    def corrections_path(self) -> Path | None:
        """The corrections file, or None."""
        return self.found(self.corrections)

    def found(self, path: str | None) -> Path | None:
        """A file of the user's: relative to the working directory if it is there, else below the data folder."""
        if path is None:
            return None
        here = Path(path)
        return here if self.data.layout != "demo" and (here.is_absolute() or here.exists()) else self.root / here

    @field_validator("results")
    @classmethod
    def _plain_folder(cls, results: str) -> str:
        if re.search(r"[<>{}*?\[\]]|^\s*$", results):
            raise ValueError(f"must be a plain folder name without <>{{}}*?[] (it is {results!r})")
        return results

    @field_validator("data_root")
    @classmethod
    def _rooted(cls, data_root: str | None, info: ValidationInfo) -> str | None:
        layout = getattr(info.data.get("data"), "layout", None)
        if layout == "demo" and data_root is not None:
            raise ValueError("is not used by data.layout: demo, which draws its own; set data.layout: maskbase")
        if layout not in (None, "demo") and not data_root:
            raise ValueError("missing: the folder of the data; add --config data_root=FOLDER")
        return data_root


def factor_names_of(data: Layout | None) -> frozenset[str]:
    """Names of the factors that make up the class; none where it is one column or folder, or no data is known."""
    return frozenset({"mask", "gender", "age"} if isinstance(data, MaskbaseLayout) else getattr(data, "factors", {}))

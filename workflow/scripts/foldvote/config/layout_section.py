"""What every layout of the data says of itself."""

from collections.abc import Sequence
from typing import Literal

from foldvote.config.base import Section
from foldvote.config.layout_facts import DrawnData, ImageList, NumericFactor
from foldvote.config.metadata import MetadataKind


class LayoutSection(Section):
    """What every layout says of itself; each overrides what is different for it. Paths are relative to `data_root`."""

    similar_groups: Literal["refuse", "join", "keep"] = "refuse"
    """Groups whose names look the same, such as `p01`, `P01` and `p 01` with two spaces. refuse: stop and name them;
    join: they are one group; keep: they are different groups, as where ids are random letters of both cases."""

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The factors that make up the class, in order; none where the class is one column or folder."""
        return ()

    @property
    def metadata_columns(self) -> dict[str, MetadataKind]:
        """Names and kinds of the columns of metadata."""
        return {}

    @property
    def classes_found(self) -> bool:
        """Whether the classes are the names found in the training rows, and not listed by the user or the layout."""
        return False

    @property
    def numeric_factor(self) -> NumericFactor | None:
        """The factor that has a number behind its levels, where there is one."""
        return None

    def joined_levels_fault(self, factors: Sequence[str]) -> str | None:  # noqa: ARG002 - for levels of the user's
        """Why the levels of some factors, joined by `-`, make no names of classes or strata; None if they do."""
        return None

    @property
    def has_test(self) -> bool:
        """Whether there are images to predict."""
        return False

    @property
    def has_test_groups(self) -> bool:
        """Whether it can say of which group a test image is."""
        return False

    @property
    def test_group_pattern(self) -> str | None:
        """What finds the group in the id of a test image; None: it is in the manifest."""
        return None

    @property
    def submission_table(self) -> str | None:
        """The table whose ids and order a submission keeps where the user names no sample."""
        return None

    @property
    def drawn(self) -> DrawnData | None:
        """What the workflow draws; None where the data is the user's."""
        return None

    def image_list(self, split: str) -> ImageList | None:  # noqa: ARG002 - other layouts have one for each split
        """The table that names the images of a split; None: every file of the folder is one."""
        return None

    def tables(self, split: str) -> list[str]:  # noqa: ARG002 - other layouts have one for each split
        """The tables that a split (train or test) is read from."""
        return []

    def image_folder(self, split: str) -> str | None:  # noqa: ARG002 - other layouts have one for each split
        """The folder that holds the images of a split and nothing else; None: they may be anywhere."""
        return None

"""Types that several sections of the configuration share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from foldvote.io.paths import one_data_path, one_folder, one_path


def different(values: list[str]) -> list[str]:
    """The values, or a ValueError that names those that occur more than once."""
    doubled = sorted({value for value in values if values.count(value) > 1})
    if doubled:
        raise ValueError(f"{', '.join(doubled)} stands twice; name each once")
    return values


# Every path of the configuration is one of these, so that a file or folder has one spelling, however it was typed.
FilePath = Annotated[str, AfterValidator(one_path)]
FolderPath = Annotated[str, AfterValidator(one_folder)]
DataPath = Annotated[str, AfterValidator(one_data_path)]  # relative to data_root

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
    """A section of the configuration: unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=False, use_attribute_docstrings=True
    )


def parse_size(size: str) -> tuple[int, int]:
    """`"128x96"` -> (128, 96): height and width in pixels."""
    height, width = size.split("x")
    return int(height), int(width)

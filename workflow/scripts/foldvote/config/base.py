"""Types that several sections of the configuration share."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from foldvote.io.names import plain_name
from foldvote.io.paths import one_data_path, one_folder, one_path


def different(values: list[str]) -> list[str]:
    """The values, or a ValueError that names those that occur more than once."""
    doubled = sorted({value for value in values if values.count(value) > 1})
    if doubled:
        raise ValueError(f"{', '.join(doubled)} stands twice; name each once")
    return values


def each_fold_once(folds: list[int]) -> list[int]:
    """The folds, or a ValueError if one occurs more than once."""
    if len(set(folds)) < len(folds):
        raise ValueError(f"a fold stands twice in {folds}; name each once")
    return folds


def named(value: Any) -> Any:
    """`focal` or `{name: focal, gamma: 2}`, as a mapping."""
    return {"name": value} if isinstance(value, str) else value


def each_named(value: Any) -> Any:
    """`focal`, `{name: focal, gamma: 2}` or a list of these, as a list of mappings."""
    return [named(one) for one in (value if isinstance(value, list) else [value])]


def plain(values: list[str]) -> list[str]:
    """The names in the spelling that tables are read in, see `names.plain_name`."""
    return list(map(plain_name, values))


# Columns and slices of foldvote's own beside which factors stand, so that no factor can have their names. Compared
# without regard to upper and lower case, because DuckDB and others read columns so.
_OF_MANIFEST = (
    *("image_id", "path", "profile", "group", "label", "class_name", "width", "height", "format", "bytes", "sha256"),
    *("phash", "corrected", "flags", "split", "train_only", "sample_weight"),
)
OUR_NAMES = frozenset([*_OF_MANIFEST, "class", "stratum", "fold", "size", "low", "high"])
MOST_CLASSES = 2**15 - 1  # tables hold the codes in 16 bits
_READS_AS_NO_TEXT = re.compile(
    r"[0-9][0-9._-]*([eE][-+]?[0-9]+)?|0x[0-9a-f]+|true|false|null|none|nan|nat|na|inf|infinity", re.IGNORECASE
)


def factor_name_faults(names: Iterable[str]) -> list[str]:
    """One line for each factor whose name is one of OUR_NAMES, or differs from another only in upper and lower case."""
    faults, seen = [], dict[str, str]()
    for name in names:
        lower = name.casefold()
        if lower in OUR_NAMES:
            faults.append(
                f"factors.{name}: foldvote has a column or slice {lower} of its own; rename the column of your table, "
                f"such as {name}_level"
            )
        elif seen.setdefault(lower, name) != name:
            faults.append(f"factors.{name}: differs from {seen[lower]} only in upper and lower case; rename one")
    return faults


def model_name_faults(names: Iterable[str]) -> list[str]:
    """One line for each name of a model that readers of the results would not read as this text.

    A model is a folder `model=<name>`, which pandas, Polars and DuckDB read as a column: a number, date or truth value
    changes its type there (`007` becomes 7). Some file systems keep no case and no dot at the end.
    """
    faults, seen = [], dict[str, str]()
    for name in names:
        lower = name.casefold()
        if _READS_AS_NO_TEXT.fullmatch(name):
            faults.append(
                f"{name}: is read as a number or a value in model={name}; put a letter first, such as m{name}"
            )
        elif lower == "ensemble":
            faults.append(f"{name}: the scores call the ensemble of all models so; choose another name")
        elif name.endswith("."):
            faults.append(f"{name}: ends with a dot, which Windows drops from a folder's name; choose another name")
        elif seen.setdefault(lower, name) != name:
            faults.append(
                f"{name}: differs from {seen[lower]} only in upper and lower case, which are one folder on Windows and "
                "macOS; rename one"
            )
    return faults


def joined_levels_fault(factors: Mapping[str, Sequence[str]]) -> str | None:
    """Why levels joined by `-` make no class names: two are the same, or there are too many; or None."""
    number = prod(len(levels) for levels in factors.values())
    if number > MOST_CLASSES:
        return f"{' x '.join(factors)} are {number:,} classes, more than {MOST_CLASSES:,}; make fewer levels"
    first: dict[str, tuple[str, ...]] = {}
    for levels in product(*factors.values()):
        other = first.setdefault("-".join(levels), levels)
        if other != levels:
            return (
                f"the levels {' + '.join(map(repr, other))} and {' + '.join(map(repr, levels))} both make the name "
                f"{'-'.join(levels)!r} ({' x '.join(factors)}); rename a level that holds `-`, such as 1-2 to 1to2"
            )
    return None


# Every path of the configuration is one of these, so that a file or folder has one spelling, however it was typed.
FilePath = Annotated[str, AfterValidator(one_path)]
FolderPath = Annotated[str, AfterValidator(one_folder)]
DataPath = Annotated[str, AfterValidator(one_data_path)]  # relative to data_root

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[
    str, Field(pattern=r"^[1-9]\d{0,3}x[1-9]\d{0,3}$", description="height x width in pixels, such as 224x224")
]
Classes = Annotated[list[str], Field(min_length=2), AfterValidator(plain), AfterValidator(different)]
Roi = Annotated[
    str,
    Field(
        pattern=r"^(none|centre-[1-9]\d{0,3}x[1-9]\d{0,3}|box-\d+-\d+-\d+-\d+|face-\d\.\d{1,2})$",
        description="what is cut out before the resize: none, centre-HxW, box-LEFT-TOP-RIGHT-BOTTOM (pixels), or "
        "face-MARGIN such as face-0.30 (the margin as a share of the face box's sides)",
    ),
]

Fit = Literal["squash", "pad", "crop"]


class Section(BaseModel):
    """A section of the configuration: unknown keys, NaN and infinity are errors.

    The text below a key explains it. Only the schema needs these texts (foldvote.config.reference), so that no start of
    the workflow has to read them from the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=False)

"""Metadata: columns of the user's table that networks and second models learn from beside the images."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from foldvote.config.base import Section, different
from foldvote.errors import did_you_mean

MetadataKind = Literal["number", "category"]


class Metadata(Section):
    """Which metadata a network learns from. `true` is all of it; a list names some columns."""

    columns: Annotated[list[str], AfterValidator(different)] | None = Field(default=None, min_length=1)
    """Names of `data.metadata`; null: all."""
    dropped: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training images whose metadata is hidden, drawn anew in every epoch: so the network learns what to
    do where metadata is missing."""


def _written(value: Any) -> Any:
    """The section of what may stand in its place."""
    if isinstance(value, bool):
        return {} if value else None
    return {"columns": value} if isinstance(value, list) else value


UsedMetadata = Annotated[Metadata | None, BeforeValidator(_written)]


def metadata_misfits(wanted: Metadata | None, known: Mapping[str, MetadataKind]) -> Iterator[str]:
    """Metadata that a recipe names and the data does not.

    Args:
        wanted: the recipe's `metadata`.
        known: names and kinds of `data.metadata`.
    """
    if wanted is not None and not known:
        yield "metadata: the data names none; name columns of your table in data.metadata, or drop it"
    elif wanted is not None:
        unknown = [name for name in wanted.columns or [] if name not in known]
        yield from (f"metadata: data.metadata has no {name!r}{did_you_mean(name, known)}" for name in unknown)


def metadata_faults(
    columns: Mapping[str, MetadataKind], taken: Mapping[str, str | None], factors: Iterable[str]
) -> list[str]:
    """One line for each column of `data.metadata` that has another meaning already.

    Args:
        columns: names and kinds of the columns.
        taken: columns of the table that mean something else, by what they mean; None where there is none.
        factors: the factors, whose columns stand beside those of the metadata.
    """
    meanings = {column: meaning for meaning, column in taken.items() if column is not None}
    meanings |= dict.fromkeys(factors, "factors")
    faults = [
        f"metadata.{name}: is the column of {meanings[name]}; name another column, or drop it"
        for name in columns
        if name in meanings
    ]
    return faults + [
        f"factors.{name}: foldvote has a column {name} of its own, of metadata; rename the column of your table"
        for name in factors
        if name.removeprefix("meta_") in columns and name not in columns
    ]

"""How labels are changed in training: moved borders of the age bands, and labels that are soft near a border."""

from typing import Annotated

from pydantic import Field, field_validator

from foldvote.config.base import Section

SoftYears = Annotated[float, Field(ge=0, le=20)]


class Treatment(Section):
    """Changes to the labels in training only; scores always use the true labels."""

    age_borders: tuple[float, float] | None = None
    """Borders of the age bands in training, such as [30, 58]; home task only."""
    soft_years: SoftYears | tuple[SoftYears, SoftYears] = 0.0
    """Within this many years of a border, the target is divided between the two bands: one number, or one for each
    border, such as [3, 0]; home task only."""

    @field_validator("age_borders")
    @classmethod
    def _rising(cls, borders: tuple[float, float] | None) -> tuple[float, float] | None:
        if borders is not None and not 0 < borders[0] < borders[1]:
            raise ValueError(f"must be two rising ages above 0 (it is {list(borders)})")
        return borders

    @property
    def active(self) -> bool:
        """Whether labels are changed at all."""
        return self.age_borders is not None or any(self.soft)

    @property
    def soft(self) -> tuple[float, float]:
        """Years at the lower border and at the upper one."""
        return self.soft_years if isinstance(self.soft_years, tuple) else (self.soft_years, self.soft_years)

"""The labels of the home task: mask states, genders, the seven shots of a person, and age bands."""

import re
from bisect import bisect_right

MASKS = ("wear", "incorrect", "not-wear")
GENDERS = ("male", "female")
SHOTS = {
    **{f"mask{number}": MASKS[0] for number in range(1, 6)},
    "incorrect_mask": MASKS[1],
    "normal": MASKS[2],
}
OLDEST = 120  # years
_YEARS = re.compile(r"(\d{1,3})(\.0+)?")


def age_levels(borders: tuple[int, int]) -> tuple[str, str, str]:
    """Names of the age bands: (30, 60) gives under30, 30to59, 60plus."""
    first, second = borders
    return f"under{first}", f"{first}to{second - 1}", f"{second}plus"


def age_band(age: float, borders: tuple[int, int]) -> str:
    """The name of the band of an age in years; a border belongs to the older band."""
    return age_levels(borders)[bisect_right(borders, age)]


def age_in_years(text: str) -> int | None:
    """Parse an age in whole years from 0 to 120; None for any other text."""
    match = _YEARS.fullmatch(text.strip())
    return int(match.group(1)) if match and int(match.group(1)) <= OLDEST else None

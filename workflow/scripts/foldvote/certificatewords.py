"""The certificate of a split, read out in plain sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from foldvote.counts import stratum_balance

_SIDES = {"images": "image", "profiles": "person", "groups": "group", "bytes": "file content"}


def certificate_in_words(certificate: Mapping[str, Any]) -> list[str]:
    """What a certificate proves and what it does not, a sentence or two an item.

    Args:
        certificate: `folds/certificate.json`.
    """
    return list(_sentences(certificate))


def _sentences(certificate: Mapping[str, Any]) -> Iterator[str]:
    folds = certificate["folds"]
    yield (
        f"{certificate['images']:,} images of {certificate['profiles']:,} persons in {certificate['groups']:,} groups "
        f"were split into {len(folds)} {'fold' if len(folds) == 1 else 'folds'} by {certificate['method']}, "
        f"seed {certificate['seed']}."
    )
    shared = {what: sum(fold["shared"][what] for fold in folds) for what in _SIDES}
    if any(shared.values()):
        found = ", ".join(f"{number} of {_SIDES[what]}" for what, number in shared.items() if number)
        yield f"The split leaks: on both sides of some fold stand {found}."
    else:
        yield (
            "For every fold the two sides were compared anew: no image, no person, no group and no file content "
            "stands in training and in validation."
        )
    balance = stratum_balance(certificate)
    if balance["departure"].notna().any():
        worst = balance.loc[balance["departure"].idxmax()]
        yield (
            f"Each fold should have an equal share of each of {len(balance)} strata. The farthest from it is "
            f"{worst['stratum']}: {worst['departure']:.1f} groups from {worst['groups'] / _folds(balance):.1f}."
        )
    merged = certificate["merged_groups"]
    if merged:
        sets = f"{len(merged)} set{'s' * (len(merged) != 1)}"
        yield f"{sets} of groups with a photograph in common, joined before the split."
    near = certificate["near_duplicates"]
    pairs = near["pairs"]
    found = f"{pairs:,} pair{'s' * (pairs != 1)}" if pairs else "No pair"
    yield (
        f"Not proved: that a person has only one id. {found} of pictures in different groups "
        f"{'are' if pairs > 1 else 'is'} alike to {near['bits']} of 64 bits."
    )


def _folds(balance: Any) -> int:
    return sum(name.startswith("fold ") for name in balance.columns)

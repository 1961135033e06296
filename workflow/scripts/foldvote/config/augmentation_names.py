"""Whether the names and arguments of an augmentation exist; what they do is in foldvote.data.augmentation."""

import re
from collections.abc import Iterator, Sequence
from functools import cache

from foldvote.config.augment import AUTO_AUGMENTS, POLICIES, SHORT_STEPS, AugmentStep
from foldvote.config.package_names import listed, may_know
from foldvote.errors import did_you_mean

_NUMBER = r"\d+(\.\d+)?"
_OF_TIMM = re.compile(
    rf"rand(-(m\d+|n\d+|p{_NUMBER}|mstd{_NUMBER}|mmax\d+|inc[01]|t(weights|3a|3aw)))+"
    rf"|augmix(-(m\d+|w\d+|d\d+|a{_NUMBER}|b[01]|mstd{_NUMBER}))+"
)


def transform_faults(steps: Sequence[AugmentStep]) -> list[str]:
    """What is wrong with the names and arguments of an augmentation, as far as names tell.

    Args:
        steps: the recipe's `augment` section.

    Returns:
        One line for each fault, such as "CLAHE: no argument 'clip'; did you mean 'clip_limit'?". Values of arguments
        are not checked here (`augmentation.check_steps` does that). Where albumentations is not installed, every name
        of a transform and of an argument counts as known.
    """
    return [fault for step in steps for fault in _step_faults(step)]


@cache
def transform_arguments() -> dict[str, frozenset[str]]:
    """The transforms of albumentations and the names of their arguments."""
    return {name: frozenset(own) for name, own in listed()["albumentations"]["transforms"].items()}


def _step_faults(step: AugmentStep) -> Iterator[str]:
    name, strength, arguments = step.name, step.strength, step.arguments
    known = {**transform_arguments(), **{name: frozenset(own) for name, own in AUTO_AUGMENTS.items()}}
    if name in POLICIES:
        if strength is not None or arguments:
            yield f"{name}: is a policy, which takes neither strength nor arguments; write its name alone"
    elif name in SHORT_STEPS:
        if strength is None:
            yield f"{name}: its strength from 0 to 1 is missing; write `{name}: 0.5` or the like"
        if arguments:
            yield f"{name}: takes a strength from 0 to 1 and no arguments; write `{name}: 0.5` or the like"
    elif step.automatic and "-" in name:
        if not _OF_TIMM.fullmatch(name):
            yield f"{name}: is not written as timm writes it, such as rand-m9-mstd0.5-inc1 or augmix-m3-w3-d2"
        if strength is not None or set(arguments or {}) - {"p"}:
            yield f"{name}: its settings are in its name; write that alone, or `{name}: {{p: 0.5}}`"
    elif name not in known and not may_know("albumentations", name):
        yield f"{name}: no such policy, step or transform{did_you_mean(name, {*known, *POLICIES, *SHORT_STEPS})}"
    else:
        if strength is not None:
            yield f"{name}: is a transform, which takes arguments and no strength; write `{name}: {{p: {strength:g}}}`"
        own = known.get(name, frozenset())
        for argument in arguments or {} if own else {}:
            if argument not in own and not may_know("albumentations", argument):
                yield f"{name}: no argument {argument!r}{did_you_mean(argument, own)}"

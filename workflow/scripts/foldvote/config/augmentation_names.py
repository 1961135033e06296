"""What albumentations has, by name, from its source text: importing it would cost two seconds at every start.

What the names do is in foldvote.data.augmentation.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from foldvote.config.augment import POLICIES, SHORT_STEPS, AugmentStep
from foldvote.errors import did_you_mean

_BASES = frozenset({"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"})
_CLASS = re.compile(r"^class (\w+)\(([\w., ]+)[^)]*\):$", re.MULTILINE)
_INIT = re.compile(r"^    (def __init__\(.*?\)(?: -> None)?:)$", re.MULTILINE | re.DOTALL)
_EXPORTED = re.compile(r"^__all__ = (\[.*?\])$", re.MULTILINE | re.DOTALL)


def transform_faults(steps: Sequence[AugmentStep]) -> list[str]:
    """What is wrong with the names and arguments of an augmentation, as far as names tell.

    Args:
        steps: the recipe's `augment` section.

    Returns:
        A line for each fault, such as "CLAHE: no argument 'clip'; did you mean 'clip_limit'?". Values of arguments
        are not looked at (`augmentation.check_steps` does that). Where albumentations is not installed, any name of a
        transform and of an argument is taken.
    """
    return [fault for step in steps for fault in _step_faults(step)]


@cache
def transform_arguments() -> dict[str, frozenset[str]]:
    """The transforms of albumentations and the names of their arguments; empty where it is not installed."""
    spec = importlib.util.find_spec("albumentations")
    if spec is None or spec.origin is None:
        return {}
    bases: dict[str, str] = {}
    own: dict[str, frozenset[str]] = {}
    exported: set[str] = set()
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if (names := _EXPORTED.search(text)) is None:
            continue
        exported |= set(ast.literal_eval(names[1]))
        for name, base, body in _classes(text):
            bases[name] = base
            if (init := _INIT.search(body)) is not None:
                own[name] = _argument_names(init[1])

    def line(name: str) -> list[str]:
        return [name, *(line(bases[name]) if name in bases else ())]

    return {
        name: next((own[one] for one in line(name) if one in own), frozenset()) | {"p"}
        for name in sorted(exported - _BASES)
        if _BASES & set(line(name))
    }


def _step_faults(step: AugmentStep) -> Iterator[str]:
    name, strength, arguments = step.name, step.strength, step.arguments
    known = transform_arguments()
    if name in POLICIES:
        if strength is not None or arguments:
            yield f"{name}: is a policy, which takes neither strength nor arguments; write its name alone"
    elif name in SHORT_STEPS:
        if strength is None:
            yield f"{name}: its strength from 0 to 1 is missing; write `{name}: 0.5` or the like"
        if arguments:
            yield f"{name}: takes a strength from 0 to 1 and no arguments; write `{name}: 0.5` or the like"
    elif known and name not in known:
        yield f"{name}: no such policy, step or transform{did_you_mean(name, {*known, *POLICIES, *SHORT_STEPS})}"
    else:
        if strength is not None:
            yield f"{name}: is a transform, which takes arguments and no strength; write `{name}: {{p: {strength:g}}}`"
        for argument in arguments or {} if known else {}:
            if argument not in known[name]:
                yield f"{name}: no argument {argument!r}{did_you_mean(argument, known[name])}"


def _classes(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, first base and body of each class of a module."""
    found = list(_CLASS.finditer(text))
    borders = [*(one.start() for one in found), len(text)]
    for one, end in zip(found, borders[1:], strict=True):
        yield one[1], one[2].split(",")[0].strip().split(".")[-1], text[one.end() : end]


def _argument_names(signature: str) -> frozenset[str]:
    function = ast.parse(f"{signature} pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    return frozenset(one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)) - {"self"}

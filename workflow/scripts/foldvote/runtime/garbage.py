"""Python's search for garbage, where many objects are made and all of them stay.

Python looks for garbage after every 700 new objects, and through all objects ever more often as they become more. While
packages are imported or jobs are planned, there is nothing to find.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 500_000  # after which a process that plans jobs looks for garbage among them


@contextmanager
def imports_stay() -> Iterator[None]:
    """Import modules in the block without looking for garbage, then and later among what they have made.

    torch, timm and albumentations make half a million objects. To look through these took half of the time of a start,
    and copied them into every worker that was forked afterwards.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def collect_garbage_rarely() -> None:
    """Look for garbage rarely in this process from now on, and never among the objects that there are.

    A process that looks even less often, or never, is left as it is.
    """
    gc.freeze()
    if 0 < gc.get_threshold()[0] < NEW_OBJECTS:
        gc.set_threshold(NEW_OBJECTS)

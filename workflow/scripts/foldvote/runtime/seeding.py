"""Randomness by counter: every draw is a function of what it is for, never of what was drawn before.

A generator carries state, and state is what makes a run depend on the number of workers, or a resumed run differ
from an undisturbed one. Here a key such as `(seed, "augment", fold, epoch, image_id)` is hashed to the seed of a
fresh generator, so that any draw can be repeated on its own. The idea is that of Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3" (SC 2011), whose Philox generator numpy provides.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np


def derive(seed: int, *key: str | int) -> int:
    """A seed in [0, 2**63) for the draw named by `key`.

    Args:
        seed: the run's seed.
        key: what the draw is for, such as `"augment", fold, epoch, image_id`.
    """
    text = json.dumps([seed, *key], separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """A fresh counter-based numpy generator for the draw named by `key`."""
    return np.random.Generator(np.random.Philox(derive(seed, *key)))


@dataclass(frozen=True)
class MemberSeeds:
    """What every random draw of a member is keyed by.

    Attributes:
        seed: the run's seed.
        model: the model's name, so that two models of equal recipe differ.
        fold: the member's fold.
    """

    seed: int
    model: str
    fold: int

    def key(self, purpose: str, *counters: str | int) -> int:
        """Seed of one draw."""
        return derive(self.seed, purpose, self.model, self.fold, *counters)

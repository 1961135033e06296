"""Counter-based randomness: every random draw depends on its purpose only, never on earlier draws.

The state of a shared generator would make a run depend on the number of workers, and a resumed run differ from an
uninterrupted one. Here a key such as `(seed, "augment", fold, epoch, image_id)` is hashed to the seed of a new
generator, so that any draw can be repeated on its own. The idea is from Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3" (SC 2011), whose Philox generator numpy provides.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np


def derive(seed: int, *key: str | int) -> int:
    """A seed in [0, 2**63) for one random draw.

    Args:
        seed: the run's seed.
        key: the purpose of the draw, such as `"augment", fold, epoch, image_id`.
    """
    text = json.dumps([seed, *key], separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """A new counter-based numpy generator for one purpose.

    Args:
        seed: the run's seed.
        key: the purpose, such as `"order", fold, epoch`.
    """
    return np.random.Generator(np.random.Philox(derive(seed, *key)))


@dataclass(frozen=True)
class MemberSeeds:
    """The seeds of a member: every random draw depends on these attributes and its purpose.

    Attributes:
        seed: the run's seed.
        model: the model's name, so that two models with equal recipes differ.
        fold: the member's fold.
    """

    seed: int
    model: str
    fold: int

    def key(self, purpose: str, *counters: str | int) -> int:
        """The seed of one random draw.

        Args:
            purpose: what is drawn, such as `"augment"`.
            counters: which draw of this purpose, such as epoch and image id.
        """
        return derive(self.seed, purpose, self.model, self.fold, *counters)

"""Owns the only way a random generator gets its seed: from a purpose and what that purpose may depend on.
Refuses the variant, the recipe and the device a say in the order and augmentation of the data.
"""

import hashlib

import numpy as np


def derive(purpose: str, *parts: int) -> int:
    """A 63-bit seed. The same purpose and parts give the same seed everywhere; nothing else enters."""
    text = ":".join([purpose, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def data_generator(seed: int, epoch: int) -> np.random.Generator:
    """What draws an epoch's order, augmentation and mixing."""
    return np.random.default_rng(derive("data", seed, epoch))

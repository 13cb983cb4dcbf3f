"""Every random number of an experiment derives from its seed and from what it is for, never from who draws it."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**31) from the parts, the same on every machine; different parts give unrelated seeds."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def seeds_of_trial(seed: int, number: int) -> tuple[int, ...]:
    """The seeds of a trial's trainings: the trial's own, then ``derive_seed(seed, "seed", i)`` for i from 1."""
    return (seed, *(derive_seed(seed, "seed", index) for index in range(1, number)))

"""How many repeats a verdict on two samplers takes: known before anything is trained.

The test (:mod:`hpo.compare.significance`) goes through all ways to assign the searches of two samplers, n of each, to
the two: there are C(2n, n), of which the most extreme one and its mirror image have a p value of 2 / C(2n, n). That is
0.0286 for 4 repeats and 0.0079 for 5. Only :mod:`math` is imported: ``hpo launch`` reads this before it starts.
"""

import math

ALPHA = 0.05
"""How often a verdict may be wrong if there is no difference, over all pairs of samplers together."""

WORTHWHILE_REPEATS = 5
"""From which on large differences are found as a rule, see the table in docs/explanation/comparison.md."""


def attainable_level(n: int, level: float) -> float:
    """The largest size at most ``level`` that the exact test of ``n`` searches a sampler has; 0 if none."""
    if n < 1:
        return 0.0
    ways = math.comb(2 * n, n)
    return 2 * math.floor(level * ways / 2) / ways


def fewest_repeats(num_pairs: int, alpha: float = ALPHA) -> int:
    """The number of repeats from which a difference can come out significant in the first of Holm's steps."""
    n = 1
    while attainable_level(n, alpha / max(1, num_pairs)) == 0.0:
        n += 1
    return n


def repeats_note(num_samplers: int, repeats: int) -> str | None:
    """Whether so many repeats can give a verdict, in one line; None for one sampler, of which there is none."""
    if num_samplers < 2:
        return None
    fewest = fewest_repeats(math.comb(num_samplers, 2))
    among = f"{num_samplers} samplers"
    searches = f"{repeats} repeat{'' if repeats == 1 else 's'} of each"
    if repeats >= fewest:
        return f"repeats: {searches} can give a verdict between {among}; the test takes {fewest} at least"
    more = max(fewest, WORTHWHILE_REPEATS)
    return (
        f"repeats: {searches} cannot give a verdict between {among}, however large the difference is: the test takes "
        f"{fewest} at least; the same launch with --repeats {more} adds what is missing, now or later"
    )

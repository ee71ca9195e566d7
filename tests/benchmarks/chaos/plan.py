"""What is broken when: a plan from the seed. Pure but for its random numbers, which are the seed's.

The plan says when and what kind, and a number with which the victim is drawn from whatever is there at that time. So
the same seed breaks the same things at the same times; which process that is, Ray's placing decides.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

KINDS = {
    "host": 6,
    "gateway": 4,
    "persistence": 4,
    "api": 2,
    "node": 1,
    "postgres-kill": 2,
    "postgres-stop": 1,
    "ingress": 1,
}
"""What may be broken, and how often in comparison."""
EVERY_S = 7.0
"""The pause between two, on average: 60 and more in 10 minutes."""
SPREAD = 0.4
"""It is up to this share shorter or longer."""
TOGETHER = 0.15
"""So often the next one follows at once: two parts die together."""
TOGETHER_S = 1.0
SLOW_S = {"node": 18.0, "ingress": 30.0}
"""Ray takes so long to see that these have died. The next strike waits for that: what it breaks would else be measured
as being away for as long."""
AWAY_S = (1.0, 5.0)
"""PostgreSQL that was stopped, and a node that was killed, are back after a time between these."""


class Strike(NamedTuple):
    """Break one thing."""

    at_s: float
    """After the load has begun."""
    kind: str
    draw: float
    """0 to below 1: which one of those that are there."""
    by_ray: bool
    """A host or persistence: whether Ray kills it, or a signal."""
    away_s: float


def plan(seed: int, duration_s: float, every_s: float, kinds: Sequence[str]) -> list[Strike]:
    """All strikes of a run. Each kind comes once before any comes by chance, if there is time."""
    rng = random.Random(f"strikes {seed}")
    wanted = list(kinds)
    rng.shuffle(wanted)
    strikes: list[Strike] = []
    at_s = every_s
    while at_s < duration_s:
        kind = wanted.pop() if wanted else rng.choices(list(kinds), [KINDS[kind] for kind in kinds])[0]
        strikes.append(Strike(at_s, kind, rng.random(), rng.random() < 0.4, rng.uniform(*AWAY_S)))
        pause_s = every_s * rng.uniform(1 - SPREAD, 1 + SPREAD)
        together = rng.random() < TOGETHER
        at_s += rng.uniform(0, TOGETHER_S) if together else pause_s + SLOW_S.get(kind, 0.0)
    return strikes

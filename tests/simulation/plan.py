"""What is to happen in a history: drawn from the seed up front, so that parts of it can be left out.

A history mixes few kinds of faults, other ones each time: a history with all of them at once hides what one does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.actions import (
    Action,
    Arrive,
    Blind,
    Freeze,
    Kill,
    Lose,
    Manage,
    Move,
    Overflow,
    Spell,
    Stall,
    Talk,
)

USERS = 6
ROOMS = 2
ACTIVE_MS = 8_000
"""So long people talk and things break, in most histories."""
LONG_ACTIVE_MS = 60_000
"""In some: longer than whatever is remembered, `PEER_GONE_MS` and `DETACH_LINGER_MS` among them."""
MAX_STEPS = 40
"""A death comes so many events after its time at most."""
MAX_FREEZE_MS = 40_000
"""Longer than `PEER_GONE_MS`."""
MAX_ZOMBIE_MS = 45_000
"""So long a process that was replaced lives on at most."""
MAX_STALL_MS = 12_000
"""Longer than `STORAGE_PATIENCE_MS` and than a call's timeout."""
RATES = {
    "lost_call": (0.01, 0.05, 0.15),
    "late_call": (0.01, 0.05),
    "repeated_call": (0.02, 0.2),
    "lost_answer": (0.01, 0.05, 0.15),
    "slow": (0.02, 0.1),
    "failed_commit": (0.05, 0.3),
    "blind_commit": (0.05, 0.3),
    "failed_read": (0.05, 0.4),
    "missed_notice": (0.3, 0.8),
}


@dataclass(frozen=True)
class Plan:
    """A history to be played. ``rooms`` are ``(owner, members)``; ``patient``: it is not ended early."""

    seed: int
    hosts: int
    gateways: int
    rooms: tuple[tuple[int, tuple[int, ...]], ...]
    patient: bool
    actions: tuple[Action, ...]
    kept: tuple[int, ...]
    """The indices of the actions that happen; the others are left out."""

    def only(self, kept: tuple[int, ...]) -> Plan:
        """The same without the other actions."""
        return Plan(self.seed, self.hosts, self.gateways, self.rooms, self.patient, self.actions, tuple(sorted(kept)))

    def __iter__(self) -> Iterator[Action]:
        return (self.actions[index] for index in self.kept)

    @property
    def calm_ms(self) -> int:
        """When the last action is over, since the start."""
        return max((action.over_ms for action in self), default=0)


def draw(seed: int) -> Plan:
    """The plan of this seed."""
    rng = random.Random(seed)
    active_ms = LONG_ACTIVE_MS if rng.random() < 0.1 else ACTIVE_MS
    hosts = 3 if rng.random() < 0.2 else 2
    rooms = tuple((rng.randint(1, USERS), tuple(rng.sample(range(1, USERS + 1), 3))) for _ in range(ROOMS))
    patient = rng.random() < 0.1
    actions = [*_people(rng, active_ms), *_deaths(rng, active_ms, hosts)]
    if rng.random() < 0.8:
        actions += _weather(rng, active_ms)
    return Plan(seed, hosts, 2, rooms, patient, tuple(actions), tuple(range(len(actions))))


def _people(rng: random.Random, active_ms: int) -> list[Action]:
    people = range(1, USERS + 1)
    actions: list[Action] = [Arrive(at_ms=rng.randint(0, 500), user=user) for user in people]
    for user in people:
        actions += [
            Talk(at_ms=rng.randint(0, active_ms), user=user, pick=rng.random(), other=rng.choice(people))
            for _ in range(rng.randint(3, 12))
        ]
        actions += [Lose(at_ms=rng.randint(0, active_ms), user=user) for _ in range(rng.randint(0, 2))]
    actions += [
        Manage(at_ms=rng.randint(0, active_ms), room=rng.randint(1, ROOMS), user=rng.choice(people))
        for _ in range(rng.randint(0, 5))
    ]
    actions += [Overflow(at_ms=rng.randint(0, active_ms), user=rng.choice(people)) for _ in range(_perhaps(rng, 3))]
    return actions


def _perhaps(rng: random.Random, most: int) -> int:
    """None in two histories of three, else up to so many."""
    return rng.randint(1, most) if rng.random() < 1 / 3 else 0


def _deaths(rng: random.Random, active_ms: int, hosts: int) -> list[Action]:
    def at_ms() -> int:
        return rng.randint(0, active_ms)

    def kill(victims: tuple[str, ...]) -> Action:
        steps, back_ms = rng.randint(0, MAX_STEPS), rng.randint(0, 3_000)
        return Kill(at_ms=at_ms(), steps=steps, victims=victims, pick=rng.random(), back_ms=back_ms)

    def freeze() -> Action:
        victim = rng.choice(["host", "host", "gateway", "writer"])
        for_ms = rng.randint(100, rng.choice([2_000, 12_000, MAX_FREEZE_MS]))
        replaced_ms = rng.randint(0, 15_000) if rng.random() < 0.6 else None
        if rng.random() < 0.3:
            for_ms = replaced_ms = 0
        return Freeze(
            at_ms=at_ms(),
            steps=rng.randint(0, MAX_STEPS),
            victim=victim,
            pick=rng.random(),
            for_ms=for_ms,
            replaced_ms=replaced_ms,
            zombie_ms=rng.randint(1_000, MAX_ZOMBIE_MS),
        )

    def move() -> Action:
        told_ms = tuple(rng.randint(0, 2_000) if rng.random() < 0.7 else None for _ in range(hosts))
        return Move(at_ms=at_ms(), pick=rng.random(), to=rng.random(), told_ms=told_ms)

    together = [("host", "gateway"), ("host", "writer"), ("host", "writer", "gateway"), ("host", "host", "writer")]
    actions = [kill((rng.choice(["host", "host", "writer", "gateway"]),)) for _ in range(rng.randint(0, 4))]
    actions += [kill(rng.choice(together)) for _ in range(_perhaps(rng, 2))]
    actions += [freeze() for _ in range(_perhaps(rng, 2))]
    actions += [move() for _ in range(rng.randint(0, 3))]
    actions += [
        Blind(at_ms=at_ms(), pick=rng.random(), for_ms=rng.randint(1_000, 20_000)) for _ in range(_perhaps(rng, 1))
    ]
    actions += [Stall(at_ms=at_ms(), for_ms=rng.randint(500, MAX_STALL_MS)) for _ in range(_perhaps(rng, 2))]
    return actions


def _weather(rng: random.Random, active_ms: int) -> list[Action]:
    spells: list[Action] = []
    for fault, rates in RATES.items():
        if rng.random() < 0.4:
            start_ms = 0 if rng.random() < 0.5 else rng.randint(0, active_ms)
            for_ms = active_ms - start_ms if rng.random() < 0.5 else rng.randint(0, active_ms - start_ms)
            spells.append(Spell(at_ms=start_ms, fault=fault, rate=rng.choice(rates), for_ms=for_ms))
    return spells

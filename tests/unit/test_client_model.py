"""The client's core against a naive server, through random faults: each entry once and in order, each send answered."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.client_world import DIRECT, NAMES, ROOMS, World

Step = tuple[str, int]

STEPS = (
    *("post",) * 4,
    *("send",) * 3,
    *("serve",) * 4,
    *("deliver",) * 4,
    *("round",) * 8,
    *("time",) * 3,
    "open",
    "cut",
    "lose",
    "repeat",
    "refuse",
    "add",
    "remove",
    "flood",
    "restart",
)
CUTS = (1000, 1006, 1012, 1013, 4001, 4008, 4500)


def step(world: World, what: str, pick: int) -> None:  # noqa: C901, PLR0912 - one case for each fault
    name = NAMES[pick % len(NAMES)]
    room = ROOMS[pick % len(ROOMS)]
    match what:
        case "post":
            world.post(name)
        case "send":
            world.send(name)
        case "serve":
            world.serve(pick % 4 + 1)
        case "deliver":
            world.deliver(pick % 6 + 1)
        case "open":
            world.open()
        case "round":
            world.open()
            world.serve(pick)
            world.deliver(pick)
        case "time":
            world.pass_time(pick * 37)
        case "cut":
            world.end(CUTS[pick % len(CUTS)])
        case "lose":
            world.spoil(pick, repeat=False)
        case "repeat":
            world.spoil(pick, repeat=True)
        case "refuse":
            world.refusals.append(("storage_unavailable", "overloaded", "rate_limited")[pick % 3])
        case "add":
            world.add_me(room)
        case "remove":
            world.remove_me(room)
        case "flood":
            for _ in range(5):
                world.post(name)
        case "restart":
            world.restart()


def run(steps: list[Step], *, positions: dict[str, int] | None = None) -> World:
    """Do the steps, let everything settle, and compare with the log."""
    world = World(positions=positions)
    for what, pick in steps:
        step(world, what, pick)
    world.refusals.clear()
    world.settle()
    for name, log in world.logs.items():  # what was lost at the end is noticed with the next entry
        if log.joined is not None:
            world.post(name)
    world.settle()
    mine = {name: log for name, log in world.logs.items() if log.joined is not None}
    heads = {name: log.head for name, log in mine.items()}
    assert {name: seq for name, seq in world.positions.items() if name in mine} == heads
    assert world.resolved.keys() == world.sent.keys()
    stored = Counter(
        data["client_msg_id"]
        for log in world.logs.values()
        for _, data in log.entries
        if data.get("client_msg_id") is not None
    )
    assert stored == Counter(world.sent.keys())
    return world


@settings(max_examples=250)
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 60)), max_size=120),
    positions=st.none() | st.just({}) | st.just({"room:1": 1}) | st.just({"room:1": 9, "room:2": 1, DIRECT: 0}),
)
@example(steps=[], positions=None)
def test_each_entry_is_applied_once_in_order_and_each_send_answered_once(
    steps: list[Step], positions: dict[str, int] | None
) -> None:
    run(steps, positions=positions)


def test_the_random_steps_reach_everything() -> None:
    """What random steps reach is counted here, so that the test above can not pass for want of faults."""
    counts: Counter[str] = Counter()
    resolved = 0
    for seed in range(60):
        choice = random.Random(seed)
        world = run([(choice.choice(STEPS), choice.randrange(60)) for _ in range(300)], positions={})
        counts.update(world.counts)
        resolved += len(world.resolved)
    for what in ("Connected", "Disconnected", "Resumed", "Reload", "Left", "MemberLeft", "MemberJoined"):
        assert counts[what] > 20, (what, counts)
    assert counts["MessageReceived"] > 1_000
    assert resolved > 500

"""One random history: a cluster, its people, its faults, and the verdict."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.clients import Client, Violation, check_end, summary
from tests.simulation.world import Faults, SimGateway, World

USERS = 6
ROOMS = 2
ACTIVE_MS = 8_000
"""So long people talk and things break; then everything is given time to heal."""
HEAL_MS = 90_000
"""Longer than any timeout of the system: 3 x `CALL_TIMEOUT_MS` and the patience of every link."""


def run(seed: int, plant: Callable[[World], None] | None = None) -> dict[str, int]:
    """Play the history of this seed and check it; ``plant`` may break the world on purpose first.

    Raises:
        Violation: with the seed, what does not hold, and the last events before it.

    """
    world = _world(seed)
    if plant is not None:
        plant(world)
    clients = [Client(world, user) for user in range(1, USERS + 1)]
    try:
        _live(world, clients)
        check_end(world, clients)
    except AssertionError as error:
        told = "\n".join(world.trace[-60:])
        rerun = f"python -m tests.simulation --first {seed} --seeds 1"
        raise Violation(f"seed {seed}, step {world.steps}: {error}\n{told}\nrun it again: {rerun}") from error
    return summary(world, clients)


def _world(seed: int) -> World:
    world = World(seed, Faults(), hosts=2, users=USERS)
    rng = world.rng
    for room in range(1, ROOMS + 1):
        owner = rng.randint(1, USERS)
        world.log.create_room(room, owner, rng.sample(range(1, USERS + 1), 3))
    SimGateway(world, "gateway-0")
    SimGateway(world, "gateway-1")
    if rng.random() < 0.75:
        world.faults = Faults(
            lost_call=rng.choice([0, 0.01, 0.05]),
            lost_answer=rng.choice([0, 0.01, 0.05]),
            slow=rng.choice([0, 0.05]),
            failed_commit=rng.choice([0, 0.05, 0.3]),
            blind_commit=rng.choice([0, 0.05, 0.3]),
        )
    return world


def _live(world: World, clients: list[Client]) -> None:
    rng, start = world.rng, world.now_ms
    for client in clients:
        world.after(rng.randint(0, 500), client.connect)
    for client in clients:
        for _ in range(rng.randint(3, 12)):
            world.after(rng.randint(0, ACTIVE_MS), _talk(world, client))
        for _ in range(rng.randint(0, 2)):
            world.after(rng.randint(0, ACTIVE_MS), client.lose)
    for _ in range(rng.randint(0, 4)):
        world.after(rng.randint(0, ACTIVE_MS), _manage(world, clients))
    for _ in range(rng.randint(0, 4)):
        world.after(rng.randint(0, ACTIVE_MS), _kill(world, clients))
    for _ in range(rng.randint(0, 3)):
        world.after(rng.randint(0, ACTIVE_MS), _move(world))

    def calm() -> None:
        world.faults = Faults()

    world.after(ACTIVE_MS, calm)
    world.run(start + ACTIVE_MS + HEAL_MS, lambda: None)


def _talk(world: World, client: Client) -> Callable[[], None]:
    def talk() -> None:
        rooms = [name for name, members in world.log.members.items() if client.user in members]
        other = world.rng.randint(1, USERS)
        low, high = sorted((client.user, other))
        dm = f"dm:{low}:{high}"
        client.send(world.rng.choice([*rooms, dm]))

    return talk


def _manage(world: World, clients: list[Client]) -> Callable[[], None]:
    def manage() -> None:
        room = f"room:{world.rng.randint(1, ROOMS)}"
        members = world.log.members[room]
        owner = next((user for user, (role, _) in members.items() if role == "owner"), None)
        user = world.rng.randint(1, USERS)
        if owner is None:
            return
        if user in members:
            clients[owner - 1].manage(room, remove=user)
        else:
            clients[owner - 1].manage(room, add=user)

    return manage


def _move(world: World) -> Callable[[], None]:
    def move() -> None:
        name = world.rng.choice([*world.log.logs, *(f"user:{user}" for user in range(1, USERS + 1))])
        world.pin(name, world.rng.choice(world.placement.hosts))

    return move


def _kill(world: World, clients: list[Client]) -> Callable[[], None]:
    def kill() -> None:
        what = world.rng.choice(["host", "host", "writer", "gateway"])
        if what == "host":
            world.hosts[world.rng.choice(world.placement.hosts)].kill(world.rng.randint(100, 3_000))
        elif what == "writer":
            world.writer.kill()
        else:
            gateway = world.rng.choice(world.gateways)
            gateway.kill()
            SimGateway(world, f"{gateway.name}+")
            for client in clients:
                if client.socket is not None and client.socket.gateway is gateway:
                    client.lose(notice=False)

    return kill

"""The basic scenario behind either ingress: Serve's HAProxy, and its proxy in Python, which other systems have.

Behind HAProxy a socket ends in the gateway's replica itself; the Python proxy carries each frame by an actor call. A
client must see no difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from tests.e2e.basics import two_people_talk
from tests.e2e.wire import Town, send_frame
from tests.server import Server

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=["haproxy", "python"])
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server behind each ingress."""
    if request.param == "haproxy":
        yield request.getfixturevalue("server")
        return
    with Server(tmp_path_factory.mktemp("python") / "fastsock", "--hosts", "1", "--ingress", "python") as running:
        yield running


@pytest_asyncio.fixture
async def town_behind(behind: Server, http: httpx.AsyncClient) -> AsyncIterator[Town]:
    town = Town(behind, http)
    yield town
    await town.close()


async def test_two_people_talk(town_behind: Town) -> None:
    await two_people_talk(town_behind)


async def test_a_hundred_messages_keep_their_order(town_behind: Town) -> None:
    ada, bea = await town_behind.people("ada", "bea")
    wires = [await town_behind.open(ada), await town_behind.open(bea)]

    async def speak(number: int, receiver: int) -> None:
        for place in range(50):
            await wires[number].raw(send_frame(content=f"{number}-{place}", receiver_id=receiver))

    await asyncio.gather(speak(0, bea.id), speak(1, ada.id))
    shown = [[await wire.take("message.receive") for _ in range(100)] for wire in wires]
    assert [received["seq"] for received in shown[0]] == list(range(1, 101))
    assert shown[1] == shown[0]
    for number, wire in enumerate(wires):
        acks = [await wire.take("message.ack") for _ in range(50)]
        mine = [received["seq"] for received in shown[0] if received["content"].startswith(f"{number}-")]
        assert [ack["seq"] for ack in acks] == mine
        await wire.quiet()


async def test_close_codes_arrive(town_behind: Town) -> None:
    stranger = await town_behind.connect("?token=nonsense")
    assert await stranger.closed() == (1008, "the token is not valid")
    wire = await town_behind.open(await town_behind.person("ada"))
    await wire.raw("x" * 131_073)
    assert await wire.closed() == (1009, "the frame has 131,073 of at most 131,072 bytes")

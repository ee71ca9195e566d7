"""``fastsock roll`` under load: every process is replaced, and nobody sees more than a socket that is to come back."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.people import Person
from tests.e2e.scenario import check, gather_cast, talk
from tests.e2e.test_two_by_two import survey
from tests.e2e.wire import Town
from tests.server import Server

pytestmark = pytest.mark.cluster

ROLL_WITHIN_S = 120
PACE_PER_S = 3.0
"""Of one person: 100 messages in 33 s, longer than the roll takes."""
ALL_REPLACED = """\
persistence-0 is replaced: process #, which worked after #.
host-0 is replaced: process #, which worked after #; its work went to host-1 and back.
host-1 is replaced: process #, which worked after #; its work went to host-0 and back.
2 gateways are replaced, after #.
1 API replicas are replaced, after #.
Done after #.
"""
PAUSE_S = 0.06
"""Between two messages of one socket, which may send 20 a second."""


async def roll(data_dir: Path, *options: str) -> tuple[int, str, str]:
    """Run ``fastsock roll``; its exit status and what it prints, with times and process numbers as ``#``."""
    command = [sys.executable, "-m", "fastsock", "roll", "--data-dir", str(data_dir), *options]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=ROLL_WITHIN_S, check=False
    )
    return done.returncode, re.sub(r"\d+\.\d s|(?<=process )\d+", "#", done.stdout), done.stderr


def was_asked_to_come_back(person: Person, number: int) -> None:
    """Each socket that ended was told so before, with a pause, and closed with 1012."""
    device = person.devices[number]
    assert set(device.close_codes) <= {1012}
    ended = device.streams[:-1]
    assert len(device.close_codes) >= len(ended)
    for stream in ended:
        event, data = stream.others[-1]["event"], stream.others[-1]["data"]
        assert isinstance(data, dict)
        assert (event, data["code"], data["retryable"]) == ("error", "going_away", True)
        assert 500 <= data["retry_after_ms"] <= 5_000


async def test_all_is_replaced_while_everybody_talks(tmp_path: Path) -> None:
    with Server(tmp_path / "fastsock", "--gateways", "2", "--hosts", "2") as server:
        cast = await gather_cast(server.url, server.ws_url, "roll")
        before = await survey(server)
        rolled: list[tuple[int, str, str]] = []

        async def disturb() -> None:
            rolled.append(await roll(server.data_dir))

        try:
            await talk(cast, disturb, PACE_PER_S)
            assert rolled == [(0, ALL_REPLACED, "")]
            await check(cast, f"sqlite+aiosqlite:///{server.data_dir / 'fastsock.db'}", undisturbed=False)
            after = await survey(server)
            for kind in ("hosts", "writers", "gateways"):
                assert not {row["pid"] for row in before[kind]} & {row["pid"] for row in after[kind]}, kind
            assert [row["epoch"] for row in after["hosts"]] == [before["hosts"][0]["epoch"] + 4] * 2
            for person in cast.everybody:
                for number in range(len(person.devices)):
                    was_asked_to_come_back(person, number)
            moved = sum(len(device.close_codes) for person in cast.everybody for device in person.devices)
            assert moved >= 26, "every socket was on a gateway that is gone"
            assert {str(error["code"]) for person in cast.everybody for error in person.errors} == {"going_away"}
        finally:
            for person in cast.everybody:
                await person.close()


async def test_who_talks_to_the_only_host_waits_for_the_next_process(server: Server, town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    sender, receiver = await town.open(ada), await town.open(bea)
    rolling = asyncio.create_task(roll(server.data_dir, "--hosts"))
    sent = 0
    while not rolling.done():
        sent += 1
        assert (await sender.post(f"text {sent}", receiver_id=bea.id, client_msg_id=f"m{sent}"))["seq"] == sent
        await asyncio.sleep(PAUSE_S)
    text = "host-0 is replaced: process #, which worked after #; its work waited.\nDone after #.\n"
    assert await rolling == (0, text, "")
    for seq in range(1, sent + 1):
        received = await receiver.take("message.receive")
        assert (received["seq"], received["content"]) == (seq, f"text {seq}")
    await receiver.quiet()


async def test_there_must_be_something_to_replace(tmp_path: Path) -> None:
    assert await roll(tmp_path) == (
        1,
        "",
        f"fastsock: no FastSock runs on {tmp_path}: start one with `fastsock serve`\n",
    )


async def test_serve_deploy_replaces_its_gateways_itself(tmp_path: Path) -> None:
    text = "fastsock: the gateways of a cluster are replaced by `serve deploy`: see fastsock roll --help\n"
    assert await roll(tmp_path, "--ray-address", "auto", "--gateways") == (1, "", text)

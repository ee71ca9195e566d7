"""The page shows who is typing, and tells the others about its own person, but not with each key."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import WebSocket, expect

from tests.browser.conftest import Arrive
from tests.browser.person import Person

pytestmark = pytest.mark.browser


def _listen(person: Person) -> list[str]:
    """What the page says of typing, from its next connection on."""
    said: list[str] = []

    def note(frame: bytes | str) -> None:
        event = json.loads(frame)["event"]
        if event.startswith("typing."):
            said.append(event)

    def follow(socket: WebSocket) -> None:
        socket.on("framesent", note)

    person.page.on("websocket", follow)
    return said


async def test_who_is_typing_is_shown_until_they_send_or_think_better_of_it(arrive: Arrive) -> None:
    bob = await arrive("Bob")
    said = _listen(bob)
    await bob.sign_up()
    ann = await arrive("Ann")
    await ann.sign_up()
    await ann.create_room("Engine room", bob.name)
    await bob.open("Engine room")
    line = ann.page.locator("#typing")
    await expect(line).to_have_text("")

    await bob.box.press_sequentially("It purrs like a cat")
    await expect(line).to_have_text(f"{bob.name} is typing…")
    await ann.picture("10-typing")
    await bob.box.fill("")
    await expect(line).to_have_text("")
    assert said == ["typing.start", "typing.stop"]

    await bob.box.press_sequentially("It purrs")
    await expect(line).to_have_text(f"{bob.name} is typing…")
    await bob.box.press("Enter")
    await ann.sees("It purrs")
    await expect(line).to_have_text("")

    await bob.box.press_sequentially("And")
    await expect(line).to_have_text(f"{bob.name} is typing…")
    await bob.page.get_by_role("link", name=ann.name).click()  # what was begun stays as a draft
    await expect(line).to_have_text("")
    await expect(bob.page.locator("#typing")).to_have_text("")
    assert said == ["typing.start", "typing.stop"] * 3

"""Two people, two windows, one server: what the page promises."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from tests.browser.conftest import Arrive
from tests.browser.person import Person

pytestmark = pytest.mark.browser

SOCKET = "**/api/v1/ws/chat*"
Spoil = Callable[[str, dict[str, object]], bool]


async def _two(arrive: Arrive) -> tuple[Person, Person]:
    ann, bob = await arrive("Ann"), await arrive("Bob")
    await bob.sign_up()
    await ann.sign_up()
    await bob.page.reload()  # the page learns of new people when its window gets the focus, and here both have it
    await bob.is_connected()
    return ann, bob


class Wire:
    """Stands between the page and the server. ``spoil(event, data)`` says which of the server's frames get lost."""

    def __init__(self) -> None:
        self.spoil: Spoil = lambda _event, _data: False
        self.deaf = False
        """Whether what the page sends gets lost."""
        self.sent: list[dict[str, object]] = []
        """The data of every ``message.send`` of the page, those that got lost too."""
        self._page_side: WebSocketRoute | None = None

    async def on(self, page: Page) -> None:
        """Sit on this page's next connections."""
        await page.route_web_socket(SOCKET, self._connect)

    def _connect(self, page_side: WebSocketRoute) -> None:
        server_side = page_side.connect_to_server()
        self._page_side = page_side

        def from_page(text: str | bytes) -> None:
            frame = json.loads(text)
            if frame["event"] == "message.send":
                self.sent.append(frame["data"])
            if not self.deaf:
                server_side.send(text)

        def from_server(text: str | bytes) -> None:
            frame = json.loads(text)
            if not self.spoil(frame["event"], frame["data"]):
                page_side.send(text)

        page_side.on_message(from_page)
        server_side.on_message(from_server)

    def tell(self, event: str, data: dict[str, object]) -> None:
        """Say something to the page in the server's name."""
        assert self._page_side is not None
        self._page_side.send(json.dumps({"event": event, "data": data}))

    async def cut(self) -> None:
        """End the connection as a server does that restarts."""
        assert self._page_side is not None
        await self._page_side.close(code=1012)


async def test_two_people_chat_in_a_room_and_with_each_other(arrive: Arrive) -> None:
    ann = await arrive("Ann")
    await ann.picture("1-sign-in")
    bob = await arrive("Bob")
    await bob.sign_up()
    await ann.sign_up()
    await ann.picture("2-signed-in")

    # a room, and what is said in it
    await ann.create_room("Engine room", bob.name)
    await ann.say("Is the pump running?")
    await expect(bob.badge("Engine room")).to_have_text("1 unread")
    await expect(bob.page).to_have_title("(1) FastSock")
    await bob.open("Engine room")
    await expect(bob.badge("Engine room")).to_have_count(0)
    await bob.say("It purrs.")
    await ann.say("Good. <b>Thank you</b> & good night.")
    for person in (ann, bob):
        await person.sees("Is the pump running?", "It purrs.", "Good. <b>Thank you</b> & good night.")
    await expect(bob.page.locator("#announcer")).to_have_text(f"{ann.name}: Good. <b>Thank you</b> & good night.")
    await ann.picture("3-room")

    # 1-to-1: the one who is elsewhere gets a badge
    await bob.open(ann.name)
    await bob.say("Between you and me: it is the bearing.")
    await bob.say("I have a spare one.")
    await expect(ann.badge(bob.name)).to_have_text("2 unread")
    await ann.picture("4-unread")
    await ann.open(bob.name)
    await expect(ann.badge(bob.name)).to_have_count(0)
    await ann.say("Then change it.\nBut not tonight.")
    await bob.sees("Between you and me: it is the bearing.", "I have a spare one.", "Then change it.\nBut not tonight.")
    await bob.picture("5-direct")

    # second thoughts
    await bob.act("I have a spare one.", "Edit")
    await expect(bob.box).to_have_value("I have a spare one.")
    await bob.write("I have two spare ones.")
    await ann.sees(
        "Between you and me: it is the bearing.", "I have two spare ones.", "Then change it.\nBut not tonight."
    )
    await expect(ann.message("I have two spare ones.")).to_contain_text("Edited")
    await bob.act("Between you and me: it is the bearing.", "Delete")
    await bob.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    after = ["This message was deleted.", "I have two spare ones.", "Then change it.\nBut not tonight."]
    for person in (ann, bob):
        await person.sees(*after)
    await expect(ann.message("I have two spare ones.").get_by_role("button")).to_have_count(0)  # not hers to change
    await bob.picture("6-edited-and-deleted")

    # all of it is there after a reload, and nothing read counts as unread
    for person in (ann, bob):
        await person.page.reload()
        await person.is_connected()
        await person.sees(*after)
        await expect(person.page.locator(".badge")).to_have_count(0)
    await ann.open("Engine room")
    await ann.sees("Is the pump running?", "It purrs.", "Good. <b>Thank you</b> & good night.")

    # and after signing out and in
    await bob.page.get_by_role("button", name="Sign out").click()
    await ann.open(bob.name)
    await ann.say("Are you there?")
    await bob.sign_in()
    await bob.is_connected()
    await expect(bob.badge(ann.name)).to_have_text("1 unread")


async def test_refusals_are_told_in_words(arrive: Arrive) -> None:
    ann = await arrive("Ann")
    error = ann.page.locator("#entry-error")
    await ann.page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(error).to_have_text("Enter your email address.")
    await ann.sign_up()
    await ann.page.get_by_role("button", name="Sign out").click()
    assert ann.troubles == []

    await ann.sign_in(password="wrong horse battery")
    await expect(error).to_be_visible()
    await expect(error).not_to_contain_text("undefined")
    await expect(ann.page.get_by_label("Password")).to_be_focused()
    await ann.picture("7-refused")
    assert len(ann.troubles) == 1
    assert "the server responded with a status of 400" in ann.troubles.pop()  # by the browser itself
    await ann.sign_in()
    await ann.is_connected()


async def test_what_is_written_without_a_connection_arrives_once(arrive: Arrive) -> None:
    ann, bob = await _two(arrive)
    wire = Wire()
    await wire.on(ann.page)
    await ann.page.reload()
    await ann.is_connected()
    await ann.open(bob.name)
    await bob.open(ann.name)

    # the server takes it, and the connection ends before the answer is heard: it is sent again, under the same name
    wire.spoil = lambda event, _data: event in {"message.ack", "message.receive"}
    await ann.write("Did you hear that?")
    await expect(ann.message("Did you hear that?")).to_contain_text("Sending…")
    await bob.sees("Did you hear that?")
    wire.spoil = lambda _event, _data: False
    await wire.cut()
    await expect(ann.message("Did you hear that?")).to_contain_text("Sent")
    assert {data["content"] for data in wire.sent} == {"Did you hear that?"}
    assert len({data["client_msg_id"] for data in wire.sent}) == 1
    for person in (ann, bob):
        await person.sees("Did you hear that?")

    # the page is reloaded before the message has left: it waits in the window
    wire.deaf = True
    await ann.write("And that?")
    await expect(ann.message("And that?")).to_contain_text("Sending…")
    wire.deaf = False
    await ann.page.reload()
    await expect(ann.message("And that?")).to_contain_text("Sent")
    for person in (ann, bob):
        await person.sees("Did you hear that?", "And that?")


async def test_a_refused_message_can_be_sent_again(arrive: Arrive) -> None:
    ann, bob = await _two(arrive)
    wire = Wire()
    await wire.on(ann.page)
    await ann.page.reload()
    await ann.is_connected()
    await ann.open(bob.name)

    def refusal(text: str, **how: object) -> dict[str, object]:
        named = {"context_event": "message.send", "client_msg_id": wire.sent[-1]["client_msg_id"]}
        return {"code": "overloaded", "message": text, **named, **how}

    wire.deaf = True
    await ann.write("First try")
    await expect(ann.message("First try")).to_contain_text("Sending…")
    wire.tell("error", refusal("not today", retryable=False, retry_after_ms=None))
    await expect(ann.message("First try")).to_contain_text("Not sent. Not today.")
    await ann.picture("8-not-sent")
    await ann.message("First try").get_by_role("button", name="Try again").click()
    await expect(ann.message("First try")).to_contain_text("Sending…")
    wire.deaf = False
    wire.tell("error", refusal("later, perhaps", retryable=True, retry_after_ms=50))
    await expect(ann.message("First try")).to_contain_text("Sent")
    assert [data["content"] for data in wire.sent] == ["First try"] * 3
    await bob.open(ann.name)
    await bob.sees("First try")


async def test_a_gap_is_filled_from_the_history(arrive: Arrive) -> None:
    ann, bob = await _two(arrive)
    wire = Wire()
    await wire.on(bob.page)
    await bob.page.reload()
    await bob.is_connected()
    await ann.open(bob.name)
    await bob.open(ann.name)
    await ann.say("One")
    await bob.sees("One")
    wire.spoil = lambda _event, data: data.get("content") == "Two"
    await ann.say("Two")
    await ann.say("Three")
    await bob.sees("One", "Two", "Three")


async def test_scrolling_up_brings_what_is_older(arrive: Arrive) -> None:
    ann, bob = await _two(arrive)
    await ann.open(bob.name)
    said = [f"Line {number}" for number in range(1, 71)]
    for line in said:
        await ann.say(line)
    await bob.open(ann.name)
    await expect(bob.message(said[-1])).to_be_in_viewport()
    await expect(bob.message(said[0])).to_have_count(0)
    messages = bob.page.get_by_role("region", name="Messages")
    await expect(bob.message(said[-50])).to_have_count(1)

    def top_of(message: str, scrolled_to: str = "") -> str:
        found = f"[...document.querySelectorAll('.message')].find(one => one.innerText.includes('{message}'))"
        return f"scroll => {{ {scrolled_to}; return {found}.getBoundingClientRect().top }}"

    before = await messages.evaluate(top_of(said[-50], scrolled_to="scroll.scrollTop = 100"))
    await expect(bob.message(said[0])).to_have_count(1)
    assert await messages.evaluate(top_of(said[-50])) == pytest.approx(before, abs=40)  # the reader's place is kept
    await bob.sees(*said)
    await expect(bob.page.get_by_text("This is the beginning of the conversation.")).to_have_count(1)
    await messages.focus()
    await messages.press("Home")
    await expect(messages).to_have_js_property("scrollTop", 0)  # it glides
    await bob.page.get_by_role("button", name="Newest messages").click()
    await expect(bob.message(said[-1])).to_be_in_viewport()


async def test_it_fits_a_small_phone(arrive: Arrive) -> None:
    ann, bob = await _two(arrive)
    title = "Everything about the pump on deck two, and whatever else comes up"
    await ann.create_room(title, bob.name)
    await ann.say("W" * 300)
    await bob.page.set_viewport_size({"width": 360, "height": 640})
    await bob.open(title)
    await expect(bob.page.get_by_role("navigation")).to_be_hidden()
    await expect(bob.message("W" * 300)).to_be_visible()
    overflow = "document.documentElement.scrollWidth - innerWidth + document.querySelector('#scroll').scrollWidth"
    assert await bob.page.evaluate(f"{overflow} - document.querySelector('#scroll').clientWidth") == 0
    await bob.picture("9-phone")
    await bob.page.get_by_role("link", name="Back to all conversations").click()
    await expect(bob.page.get_by_role("navigation")).to_be_visible()

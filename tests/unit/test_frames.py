"""Log entries as the events that clients see: exact frames."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsock.schemas import frames
from fastsock.schemas.log import Entry, Kind

AT_MS = 1_769_853_600_123
"""2026-01-31T10:00:00.123Z, the example of ``protocol.md``."""


def entry(kind: Kind, conversation: str = "room:42", **fields: object) -> Entry:
    start = {"sender_id": 7, "key": "c:abc", "at_ms": AT_MS, "id": 1001, "seq": 5}
    return msgspec.convert({"kind": kind, "conversation": conversation, **start, **fields}, Entry)


MESSAGE = entry("message", content="hello", reply_to=900)
MESSAGE_DATA = {
    "id": 1001,
    "content": "hello",
    "sender_id": 7,
    "receiver_id": None,
    "room_id": 42,
    "message_type": "text",
    "timestamp": "2026-01-31T10:00:00.123Z",
    "is_read": False,
    "status": "sent",
    "reply_to": 900,
    "reactions": {},
    "seq": 5,
    "client_msg_id": "abc",
    "edited_at": None,
    "deleted": False,
}


def shown(made: Entry) -> object:
    return json.loads(frames.frame_of(made))


def test_a_message() -> None:
    assert shown(MESSAGE) == {"event": "message.receive", "data": MESSAGE_DATA}
    assert frames.frame_of(MESSAGE).startswith(b'{"event":"message.receive","data":{"id":1001,"content":"hello",')


def test_a_message_is_shown_in_its_present_state() -> None:
    edited = msgspec.structs.replace(MESSAGE, content="hullo", edited_at_ms=AT_MS + 1_877)
    deleted = msgspec.structs.replace(MESSAGE, content="", deleted=True)
    now = "2026-01-31T10:00:02.000Z"
    assert shown(edited) == {
        "event": "message.receive",
        "data": {**MESSAGE_DATA, "content": "hullo", "edited_at": now},
    }
    assert shown(deleted) == {"event": "message.receive", "data": {**MESSAGE_DATA, "content": "", "deleted": True}}


def test_a_direct_message_names_the_other_person() -> None:
    to_3 = shown(entry("message", "dm:3:7", content="hi", key="s:1"))
    assert isinstance(to_3, dict)
    about = {key: to_3["data"][key] for key in ("sender_id", "receiver_id", "room_id", "client_msg_id")}
    assert about == {"sender_id": 7, "receiver_id": 3, "room_id": None, "client_msg_id": None}
    assert frames.address("dm:3:7", 3) == (7, None)
    assert frames.address("dm:3:3", 3) == (3, None)


@pytest.mark.parametrize("by", [7, 9])
def test_an_edit_and_a_delete_carry_the_whole_message(by: int) -> None:
    target = msgspec.structs.asdict(frames.target_of(MESSAGE))
    change = {"message_id": 1001, "message_seq": 5, "by": by}
    fields: dict[str, Any] = {
        "sender_id": by,
        "key": "c:def",
        "id": 2002,
        "seq": 8,
        "at_ms": AT_MS + 877,
        "target_id": 1001,
    }
    edit = entry("edit", content="hullo", detail=target, **fields)
    delete = entry("delete", detail=target, **fields)
    assert shown(edit) == {
        "event": "message.update",
        "data": {**MESSAGE_DATA, "content": "hullo", "seq": 8, "edited_at": "2026-01-31T10:00:01.000Z", **change},
    }
    assert shown(delete) == {
        "event": "message.delete",
        "data": {**MESSAGE_DATA, "content": "", "seq": 8, "deleted": True, **change},
    }


def test_an_edit_of_a_direct_message_is_addressed_as_the_message_was() -> None:
    message = entry("message", "dm:3:7", content="hi")
    target = msgspec.structs.asdict(frames.target_of(message))
    data = frames.event_of(entry("edit", "dm:3:7", content="ho", target_id=1001, detail=target))[1]
    assert isinstance(data, dict)
    assert (data["sender_id"], data["receiver_id"], data["room_id"]) == (7, 3, None)


def test_membership() -> None:
    place = {"room_id": 42, "seq": 5, "timestamp": "2026-01-31T10:00:00.123Z"}
    created = entry("created", content="Tea", detail={"members": {"7": "owner", "9": "member"}})
    joined = entry("joined", detail={"members": {"11": "member", "12": "member"}})
    left = entry("left", detail={"user_ids": [9]})
    assert shown(created) == {
        "event": "room.created",
        "data": {"id": 42, "name": "Tea", "is_group": True, "owner_id": 7, "member_ids": [7, 9], **place},
    }
    assert shown(joined) == {"event": "room.member_joined", "data": {**place, "user_ids": [11, 12], "by": 7}}
    assert shown(left) == {"event": "room.member_left", "data": {**place, "user_ids": [9], "by": 7}}
    assert (frames.joins(created), frames.leaves(created)) == ((7, 9), ())
    assert (frames.joins(joined), frames.leaves(joined)) == ((11, 12), ())
    assert (frames.joins(left), frames.leaves(left)) == ((), (9,))


def test_only_the_first_message_of_a_direct_conversation_lets_anybody_in() -> None:
    assert frames.joins(entry("message", "dm:3:7", seq=1)) == (3, 7)
    assert frames.joins(entry("message", "dm:3:3", seq=1)) == (3,), "a note to self has one reader"
    assert frames.joins(entry("message", "dm:3:7", seq=2)) == ()
    assert frames.joins(entry("message", "room:42", seq=1)) == ()
    assert frames.joins(entry("edit", "dm:3:7", seq=1)) == ()


def test_an_entry_without_its_detail_moves_nobody() -> None:
    assert frames.joins(entry("joined")) == ()
    assert frames.leaves(entry("left")) == ()


def test_the_ack() -> None:
    assert frames.ack_of(MESSAGE) == {
        "message_id": 1001,
        "status": "sent",
        "timestamp": "2026-01-31T10:00:00.123Z",
        "seq": 5,
        "client_msg_id": "abc",
        "room_id": 42,
        "receiver_id": None,
    }
    direct = frames.ack_of(entry("message", "dm:3:7"))
    assert (direct["room_id"], direct["receiver_id"]) == (None, 3)


def test_a_key_tells_what_the_client_called_it() -> None:
    assert entry("message", key="c:abc").client_msg_id == "abc"
    assert entry("message", key="c:").client_msg_id == ""
    assert entry("message", key="s:abc").client_msg_id is None


@given(st.integers(0, 4_102_444_800_000))
def test_times_are_iso_8601_in_milliseconds(at_ms: int) -> None:
    text = frames.iso(at_ms)
    assert len(text) == len("2026-01-31T10:00:00.123Z")
    assert text.endswith("Z")
    parsed = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert round(parsed.timestamp() * 1000) == at_ms


@given(st.text(), st.text())
def test_any_text_survives_its_frame(content: str, client_msg_id: str) -> None:
    surrogates = any("\ud800" <= char <= "\udfff" for char in content + client_msg_id)
    if surrogates:
        return
    made = entry("message", content=content, key=f"c:{client_msg_id}")
    data = json.loads(frames.frame_of(made).decode())["data"]
    assert (data["content"], data["client_msg_id"]) == (content, client_msg_id)

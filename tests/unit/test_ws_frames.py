"""Frames on the wire, with websockets' own sans-IO protocol on the other side."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from fastsock.core.limits import MAX_MESSAGE_FRAGMENTS, MAX_READ_FRAME_BYTES
from fastsock.ws.frame_reader import FrameReader
from fastsock.ws.frames import (
    OP_BINARY,
    OP_CLOSE,
    OP_PING,
    OP_PONG,
    OP_TEXT,
    PING,
    FrameError,
    close_frame,
    control_frame,
    read_close,
    text_frame,
)

LENGTHS = [0, 1, 125, 126, 127, 65_535, 65_536, 200_000]


def client() -> Protocol:
    return Protocol(CLIENT, max_size=None)


def sent(*frames: Frame) -> bytes:
    """What a client's frames are on the wire: masked."""
    return b"".join(frame.serialize(mask=True) for frame in frames)


def read_all(data: bytes, cuts: list[int] | None = None) -> list[tuple[int, bytes]]:
    """What a reader makes of bytes that come in pieces."""
    reader, taken = FrameReader(), []
    bounds = [0, *sorted(cuts or []), len(data)]
    for start, end in pairwise(bounds):
        reader.add(data[start:end])
        while (message := reader.take()) is not None:
            taken.append(message)
    assert reader.take() is None
    return taken


@pytest.mark.parametrize("length", LENGTHS)
def test_a_client_reads_what_a_server_writes(length: int) -> None:
    peer = client()
    text = "ä" * (length // 2) + "x" * (length % 2)
    peer.receive_data(text_frame(text.encode()))
    assert peer.events_received() == [Frame(Opcode.TEXT, text.encode())]


def test_control_frames() -> None:
    peer = client()
    peer.receive_data(PING + control_frame(OP_PONG, b"p") + close_frame(4008, "too slow"))
    assert peer.events_received() == [
        Frame(Opcode.PING, b""),
        Frame(Opcode.PONG, b"p"),
        Frame(Opcode.CLOSE, Close(4008, "too slow").serialize()),
    ]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_message_of_any_length_is_read(length: int) -> None:
    payload = bytes(index % 251 for index in range(length))
    assert read_all(sent(Frame(Opcode.BINARY, payload))) == [(OP_BINARY, payload)]


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just(Opcode.TEXT), st.lists(st.binary(max_size=300), min_size=1, max_size=4)),
        st.tuples(st.just(Opcode.BINARY), st.lists(st.binary(max_size=300), min_size=1, max_size=4)),
        st.tuples(
            st.sampled_from([Opcode.PING, Opcode.PONG]), st.lists(st.binary(max_size=125), min_size=1, max_size=1)
        ),
    ),
    max_size=6,
)


@given(messages=MESSAGES, data=st.data())
def test_however_it_comes_the_same_messages_are_read(
    messages: list[tuple[Opcode, list[bytes]]], data: st.DataObject
) -> None:
    frames: list[Frame] = []
    expected: list[tuple[int, bytes]] = []
    for opcode, parts in messages:
        for index, part in enumerate(parts):
            if data.draw(st.booleans()) and index:  # a control frame may come between the frames of a message
                frames.append(Frame(Opcode.PING, b"between"))
                expected.append((OP_PING, b"between"))
            frames.append(Frame(opcode if index == 0 else Opcode.CONT, part, fin=index == len(parts) - 1))
        expected.append((int(opcode), b"".join(parts)))
    wire = sent(*frames)
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=12))
    assert read_all(wire, cuts) == expected
    assert read_all(wire, list(range(len(wire)))) == expected


def head(first: int, second: int, rest: bytes = b"") -> bytes:
    return bytes([first, second]) + rest


MASK = b"\0\0\0\0"


@pytest.mark.parametrize(
    ("wire", "code", "reason"),
    [
        pytest.param(text_frame(b"x"), 1002, "a client's frame must be masked", id="not masked"),
        pytest.param(head(0xC1, 0x80, MASK), 1002, "reserved bits must be 0", id="reserved bit"),
        pytest.param(head(0x83, 0x80, MASK), 1002, "there is no opcode 3", id="opcode"),
        pytest.param(head(0x09, 0x80, MASK), 1002, "a control frame has one frame and 125 bytes", id="ping in parts"),
        pytest.param(head(0x89, 0xFE), 1002, "a control frame has one frame and 125 bytes", id="long ping"),
        pytest.param(head(0x80, 0x80, MASK), 1002, "there is no message to go on with", id="nothing to go on with"),
        pytest.param(
            sent(Frame(Opcode.TEXT, b"x", fin=False), Frame(Opcode.TEXT, b"y")),
            1002,
            "a new message began before the last one had ended",
            id="two at once",
        ),
        pytest.param(
            head(0x81, 0xFF, (MAX_READ_FRAME_BYTES + 1).to_bytes(8) + MASK),
            1009,
            f"the frame has {MAX_READ_FRAME_BYTES + 1:,} of at most {MAX_READ_FRAME_BYTES:,} bytes",
            id="too large, before it has come",
        ),
        pytest.param(
            sent(Frame(Opcode.TEXT, b"x" * MAX_READ_FRAME_BYTES, fin=False), Frame(Opcode.CONT, b"x", fin=False)),
            1009,
            f"the message has {MAX_READ_FRAME_BYTES + 1:,} of at most {MAX_READ_FRAME_BYTES:,} bytes",
            id="too large in parts",
        ),
        pytest.param(
            sent(
                Frame(Opcode.TEXT, b"", fin=False),
                *[Frame(Opcode.CONT, b"", fin=False)] * MAX_MESSAGE_FRAGMENTS,
            ),
            1009,
            f"the message comes in more than {MAX_MESSAGE_FRAGMENTS} frames",
            id="too many parts",
        ),
    ],
)
def test_who_breaks_the_protocol_is_told_how(wire: bytes, code: int, reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        read_all(wire)
    assert (caught.value.code, caught.value.reason) == (code, reason)


def test_close_frames_are_read() -> None:
    assert read_close(b"") == (1005, "")
    assert read_close(Close(1000, "bye").serialize()) == (1000, "bye")
    assert read_all(sent(Frame(Opcode.CLOSE, b""))) == [(OP_CLOSE, b"")]


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"x", 1002, "close frame too short"),
        ((999).to_bytes(2), 1002, "invalid status code"),
        ((1000).to_bytes(2) + b"\xff", 1007, "the reason of a close frame is UTF-8"),
    ],
)
def test_close_frames_that_are_none(payload: bytes, code: int, reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        read_close(payload)
    assert (caught.value.code, caught.value.reason) == (code, reason)


def test_a_frame_in_small_pieces_costs_no_more_than_its_bytes() -> None:
    """What has come is looked at again when enough has come, not with each piece."""
    wire = sent(Frame(Opcode.TEXT, b"x" * 200_000))
    reader = FrameReader()
    looked = 0
    for start in range(0, len(wire), 100):
        before = reader._data
        reader.add(wire[start : start + 100])
        message = reader.take()
        looked += reader._data is not before
    assert message == (OP_TEXT, b"x" * 200_000)
    assert looked < 5

"""WebSocket frames (RFC 6455, section 5.2) as the fast path needs them: one function each way.

A server's frames are not masked, so the bytes of a broadcast are the same for everybody: `text_frame` makes them once.
What clients send is almost always one masked frame that has come whole: `read_frame` takes it out of what has come with
a look at its head and one call of websockets' masking in C. `fastsock.ws.frame_connection` does the rest of the
protocol: what may follow what, and how it ends.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from websockets.exceptions import ProtocolError
from websockets.frames import Close as CloseFrame
from websockets.frames import CloseCode, Opcode

from fastsock.core.limits import MAX_READ_FRAME_BYTES

try:
    from websockets.speedups import apply_mask  # C
except ImportError:
    from websockets.utils import apply_mask

FIN = 0x80
MASKED = 0x80
RESERVED = 0x70
CONTROL = 0x08
LENGTH_16 = 126
LENGTH_64 = 127
MAX_CONTROL_BYTES = 125
OPCODES = frozenset(map(int, Opcode))
OP_CONT, OP_TEXT, OP_BINARY = int(Opcode.CONT), int(Opcode.TEXT), int(Opcode.BINARY)
OP_CLOSE, OP_PING, OP_PONG = int(Opcode.CLOSE), int(Opcode.PING), int(Opcode.PONG)

PING = bytes([FIN | OP_PING, 0])
"""One without a payload: whatever comes from a peer shows that it is there, so an answer need not be told apart."""


class FrameError(Exception):
    """The peer broke the protocol: the close code and the reason that it is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Frame(NamedTuple):
    """A frame from a client, unmasked. ``end`` is where the next one begins."""

    opcode: int
    fin: bool
    payload: bytes
    end: int


def head(opcode: int, length: int) -> bytes:
    """The head of a whole message or control frame from a server."""
    if length < LENGTH_16:
        return bytes((FIN | opcode, length))
    if length < 1 << 16:
        return struct.pack("!BBH", FIN | opcode, LENGTH_16, length)
    return struct.pack("!BBQ", FIN | opcode, LENGTH_64, length)


def text_frame(payload: bytes) -> bytes:
    """A text message, UTF-8."""
    return head(OP_TEXT, len(payload)) + payload


def control_frame(opcode: int, payload: bytes) -> bytes:
    """A ping, pong or close; its payload has at most `MAX_CONTROL_BYTES`."""
    return head(opcode, len(payload)) + payload


def close_frame(code: int, reason: str) -> bytes:
    return control_frame(OP_CLOSE, CloseFrame(code, reason).serialize())


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a client's close; 1005 for one without.

    Raises:
        FrameError: it is none.

    """
    try:
        close = CloseFrame.parse(payload)
    except UnicodeDecodeError:
        raise FrameError(CloseCode.INVALID_DATA, "the reason of a close frame is UTF-8") from None
    except ProtocolError as error:
        raise FrameError(CloseCode.PROTOCOL_ERROR, str(error)) from None
    return close.code, close.reason


def read_frame(data: bytes, start: int) -> Frame | int:
    """The frame that begins at ``start``, if all of it has come; else where it ends as far as that is known.

    Raises:
        FrameError: no client may send this, or it announces more than `MAX_READ_FRAME_BYTES`.

    """
    have = len(data)
    body = start + 6  # first byte, second byte, mask
    if have < start + 2:
        return body
    first, second = data[start], data[start + 1]
    if second < MASKED:
        raise FrameError(CloseCode.PROTOCOL_ERROR, "a client's frame must be masked")
    opcode, length = first & 0x0F, second & 0x7F
    if first & RESERVED:
        raise FrameError(CloseCode.PROTOCOL_ERROR, "reserved bits must be 0")
    if opcode not in OPCODES:
        raise FrameError(CloseCode.PROTOCOL_ERROR, f"there is no opcode {opcode}")
    if opcode & CONTROL and (length > MAX_CONTROL_BYTES or not first & FIN):
        raise FrameError(CloseCode.PROTOCOL_ERROR, f"a control frame has one frame and {MAX_CONTROL_BYTES} bytes")
    if length >= LENGTH_16:
        body += 2 if length == LENGTH_16 else 8
        if have < body:
            return body
        length = int.from_bytes(data[start + 2 : body - 4])
        if length > MAX_READ_FRAME_BYTES:
            text = f"the frame has {length:,} of at most {MAX_READ_FRAME_BYTES:,} bytes"
            raise FrameError(CloseCode.MESSAGE_TOO_BIG, text)
    end = body + length
    if have < end:
        return end
    return Frame(opcode, first >= FIN, apply_mask(data[body:end], data[body - 4 : body]), end)

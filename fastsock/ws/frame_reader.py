"""From the bytes that a client sends to its messages: frames that came in pieces, messages that came in frames.

Sans-IO. Bytes may be added at any time and messages taken when it suits; what is held meanwhile is what was added. Data
and control frames may be mixed as RFC 6455, section 5.4, says.
"""

from __future__ import annotations

from websockets.frames import CloseCode

from fastsock.core.limits import MAX_MESSAGE_FRAGMENTS, MAX_READ_FRAME_BYTES
from fastsock.ws.frames import CONTROL, OP_CONT, OP_TEXT, FrameError, read_frame


class FrameReader:
    """What has come from one client. After a `FrameError` there is nothing more to be had from it."""

    __slots__ = ("_at", "_data", "_fragments", "_more", "_need", "_opcode", "_size_bytes")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        """Up to where ``_data`` was read."""
        self._more: bytearray | None = None
        """What has come after ``_data``."""
        self._need = 0
        """So many bytes it takes from ``_at`` on until looking at them again makes sense."""
        self._opcode = 0
        self._fragments: list[bytes] | None = None
        """What has come of a message in several frames, which began with ``_opcode``."""
        self._size_bytes = 0

    def add(self, data: bytes) -> None:
        """Bytes have come."""
        if self._at == len(self._data):
            self._data, self._at = data, 0
        elif self._more is None:
            self._more = bytearray(data)
        else:
            self._more += data

    def take(self) -> tuple[int, bytes] | None:
        """The next message: its opcode (text, binary, ping, pong or close) and its bytes; None if more must come.

        Raises:
            FrameError: the peer broke the protocol, or the message exceeds `MAX_READ_FRAME_BYTES` or
                `MAX_MESSAGE_FRAGMENTS`.

        """
        while self._gathered():
            frame = read_frame(self._data, self._at)
            if isinstance(frame, int):
                self._need = frame - self._at
                if self._more is None:
                    return None
                continue
            self._at, self._need = frame.end, 0
            opcode = frame.opcode
            if opcode & CONTROL or (opcode == OP_TEXT and frame.fin and self._fragments is None):
                return opcode, frame.payload
            message = self._fragment(opcode, frame.payload, fin=frame.fin)
            if message is not None:
                return self._opcode, message
        return None

    def _gathered(self) -> bool:
        """Whether there is enough to look at, in ``_data``."""
        left = len(self._data) - self._at
        if self._more is not None:
            if left + len(self._more) < self._need:
                return False
            self._data, self._at, self._more = self._data[self._at :] + self._more, 0, None
            return True
        if left == 0:
            self._data, self._at = b"", 0
        return left > 0 and left >= self._need

    def _fragment(self, opcode: int, payload: bytes, *, fin: bool) -> bytes | None:
        """A data frame that is not a whole text message; the message, if it is complete with this one."""
        if opcode != OP_CONT:
            if self._fragments is not None:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "a new message began before the last one had ended")
            self._opcode, self._fragments, self._size_bytes = opcode, [], 0
        elif self._fragments is None:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "there is no message to go on with")
        if len(self._fragments) >= MAX_MESSAGE_FRAGMENTS:
            text = f"the message comes in more than {MAX_MESSAGE_FRAGMENTS:,} frames"
            raise FrameError(CloseCode.MESSAGE_TOO_BIG, text)
        self._fragments.append(payload)
        self._size_bytes += len(payload)
        if self._size_bytes > MAX_READ_FRAME_BYTES:
            text = f"the message has {self._size_bytes:,} of at most {MAX_READ_FRAME_BYTES:,} bytes"
            raise FrameError(CloseCode.MESSAGE_TOO_BIG, text)
        if not fin:
            return None
        whole, self._fragments = b"".join(self._fragments), None
        return whole

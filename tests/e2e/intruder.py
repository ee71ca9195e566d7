"""A process that makes a host believe that it owns a room: it joins the server's Ray and sends that host batches.

A host looks only at a batch's epoch, so the one that does not own the room activates it too. Each line of standard
input is a JSON list of texts to be sent, all in one batch, or a number: everything up to that ``seq`` must have been
shown by that host. Each is answered with a line: for texts the acks by ``client_msg_id``, for a number true.

Run as ``python -m tests.e2e.intruder DATA_DIR ROOM USER_ID``.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec

from actors.commands import Attach, Envelope, Send
from actors.effects import Answer, Delivery, Failed, Frame
from actors.uplinks import Accepted, decode_answer, encode_items
from fastsock.core import rayenv
from fastsock.schemas import names
from fastsock.schemas.log import CLIENT_KEY

WITHIN_S = 60.0
_down: msgspec.msgpack.Decoder[tuple[str, int, list[Delivery]]] = msgspec.msgpack.Decoder(
    tuple[str, int, list[Delivery]]
)


class Intruder:
    """A gateway of its own to the host that does not own the room."""

    def __init__(self, room: str, user_id: int) -> None:
        from actors.runtime import inspection  # noqa: PLC0415 - Ray is imported when the way to it is prepared

        placement = inspection.placement()
        [self.host] = [host for host in placement.hosts if host != placement.owner(room)]
        self.room = room
        self.user_id = user_id
        self.peer = f"intruder/{uuid.uuid4().hex}"
        self.epoch = placement.epoch
        self.acks: dict[str, dict[str, Any]] = {}
        self.shown: set[int] = set()
        self._waiting: dict[int, Send] = {}
        self._batches = 0
        self._requests = 0
        self._session, self._polled = "", 0
        self._push([Envelope(room, 0, Attach(0))])

    def _call(self, method: str, *arguments: object) -> bytes:
        from actors.runtime.calls import call_now  # noqa: PLC0415

        answer: bytes = call_now(self.host, method, *arguments, timeout_s=WITHIN_S)
        return answer

    def _push(self, envelopes: list[Envelope]) -> None:
        self._batches += 1
        answer = decode_answer(self._call("receive", self.peer, self._batches, self.epoch, encode_items(envelopes)))
        assert isinstance(answer, Accepted), answer

    def _ask(self, sends: list[Send]) -> None:
        envelopes = []
        for send in sends:
            self._requests += 1
            self._waiting[self._requests] = send
            envelopes.append(Envelope(self.room, self._requests, send))
        self._push(envelopes)

    def _poll(self) -> None:
        session, number, deliveries = _down.decode(self._call("poll", self.peer, self._session, self._polled))
        assert self._session in {"", session}, "the host has forgotten this peer"
        self._session, self._polled = session, number or self._polled
        again = []
        for delivery in deliveries:
            match delivery:
                case Answer(request, payload):
                    ack = json.loads(payload)
                    self.acks[self._waiting.pop(request).key.removeprefix(CLIENT_KEY)] = ack
                case Failed(request, failure):
                    assert failure.retry_after_ms is not None, f"refused for good: {failure}"
                    again.append(self._waiting.pop(request))
                case Frame():
                    self.shown.add(delivery.seq)
        if again:
            self._ask(again)

    def send(self, texts: list[str]) -> dict[str, dict[str, Any]]:
        """Send these, each its own ``client_msg_id``, and wait for every ack."""
        self._ask([Send(self.user_id, f"{CLIENT_KEY}{text}", text) for text in texts])
        give_up_at = time.monotonic() + WITHIN_S
        while self._waiting:
            assert time.monotonic() < give_up_at, f"never answered: {self._waiting}"
            self._poll()
        return {text: self.acks[text] for text in texts}

    def wait_for(self, seq: int) -> bool:
        """Wait until everything up to this number was shown."""
        give_up_at = time.monotonic() + WITHIN_S
        while missing := set(range(1, seq + 1)) - self.shown:
            assert time.monotonic() < give_up_at, f"never shown: {sorted(missing)}"
            self._poll()
        return True


def main(data_dir: str, room: str, user_id: str) -> None:
    run = json.loads((Path(data_dir) / "run.json").read_text())
    rayenv.observe(run)
    from actors.runtime import inspection  # noqa: PLC0415

    inspection.connect(str(run["ray_address"]))
    intruder = Intruder(names.room(int(room)), int(user_id))
    print(json.dumps(intruder.host), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(intruder.send(asked) if isinstance(asked, list) else intruder.wait_for(asked)), flush=True)
    inspection.disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])

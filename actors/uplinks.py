"""From names to hosts: the links of one peer (a gateway, an API replica, a host) to all hosts.

An envelope goes to the host that owns its name by the placement this peer knows. A host that knows a newer one answers
`Stale` with it; then everything that waits, for every host, is routed anew, in order. A host that knows only an older
one answers `Behind` and learns; one that is about to be replaced answers the same.
"""

from __future__ import annotations

import msgspec

from actors.commands import Envelope, Typing
from actors.effects import Failure
from actors.link import Batch, Sender
from actors.placement import Placement
from fastsock.core.limits import LINK_EPHEMERAL_SHARE, MAX_UPLINK_ITEMS, RETRY_AFTER_MS

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Envelope])

ENVELOPE_BYTES = 64
"""What an envelope weighs beside its text."""


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="ok"):
    """The batch was taken, now or before. ``session`` is that of the downlink to the peer that sent it."""

    session: str


class Stale(msgspec.Struct, frozen=True, array_like=True, tag="stale"):
    """The batch was routed by an older placement than the host's; nothing of it was taken."""

    placement: Placement


class Behind(msgspec.Struct, frozen=True, array_like=True, tag="behind"):
    """Nothing of the batch was taken, try again: the host knows only an older placement, or it drains."""


Answer = Accepted | Stale | Behind
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode_items(items: list[Envelope]) -> bytes:
    return _encoder.encode(items)


def decode_items(body: bytes) -> list[Envelope]:
    return _decoder.decode(body)


def encode_answer(answer: Answer) -> bytes:
    return _encoder.encode(answer)


def decode_answer(body: bytes) -> Answer:
    return _answers.decode(body)


def _size_bytes(envelope: Envelope) -> int:
    return ENVELOPE_BYTES + len(getattr(envelope.command, "content", ""))


class Uplinks:
    """One `Sender` for each host ever used (numbers must not start again), and the placement that chooses."""

    __slots__ = ("_senders", "placement")

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self._senders: dict[str, Sender[Envelope]] = {}

    def __len__(self) -> int:
        """Envelopes that wait or are in flight."""
        return sum(map(len, self._senders.values()))

    @property
    def hosts(self) -> list[str]:
        """The hosts for which something may wait."""
        return list(self._senders)

    def submit(self, envelope: Envelope) -> Failure | None:
        """Queue the envelope for its host; a failure, and nothing queued, at the bound.

        What is ephemeral gets no further than `LINK_EPHEMERAL_SHARE` of it.
        """
        host = self.placement.owner(envelope.to)
        sender = self._sender(host)
        share = LINK_EPHEMERAL_SHARE if isinstance(envelope.command, Typing) else 1.0
        if sender.offer(envelope, _size_bytes(envelope), share):
            return None
        text = f"{len(sender):,} of {MAX_UPLINK_ITEMS:,} commands wait for {host}"
        return Failure("overloaded", text, RETRY_AFTER_MS)

    def _sender(self, host: str) -> Sender[Envelope]:
        sender = self._senders.get(host)
        if sender is None:
            sender = self._senders[host] = Sender(MAX_UPLINK_ITEMS)
        return sender

    def take(self, host: str, now_ms: int) -> tuple[Batch[Envelope], int] | None:
        """The batch to send to this host now, with the epoch by which it was routed; None as `Sender.take`."""
        batch = self._senders[host].take(now_ms, len(self._senders))
        return None if batch is None else (batch, self.placement.epoch)

    def answered(self, host: str, number: int, answer: Answer, now_ms: int) -> list[Envelope]:
        """What the host said to that batch; returns the envelopes that it has now."""
        sender = self._senders[host]
        if isinstance(answer, Accepted):
            return sender.delivered(number)
        sender.failed(number, now_ms)
        if isinstance(answer, Stale):
            self.move(answer.placement)
        return []

    def failed(self, host: str, number: int, now_ms: int) -> None:
        """The call to the host failed; the batch is sent again when `retry_at_ms` comes."""
        self._senders[host].failed(number, now_ms)

    def retry_now(self, host: str) -> None:
        """This host works again, as something else has shown: what waits for it need not wait for its next try."""
        if host in self._senders:
            self._senders[host].retry_now()

    def move(self, placement: Placement) -> bool:
        """Route everything that waits by a newer placement; False if it is not newer.

        A batch in flight is routed anew too: its host either never took it, or took it and its commands are repeated,
        which their keys make harmless.
        """
        if placement.epoch <= self.placement.epoch:
            return False
        self.placement = placement
        waiting = [envelope for sender in self._senders.values() for envelope in sender.recall()]
        for envelope in waiting:
            self._sender(placement.owner(envelope.to)).restore(envelope, _size_bytes(envelope))
        return True

    def retry_at_ms(self) -> int | None:
        """When `take` may have something for some host that it does not have now."""
        return min((at for sender in self._senders.values() if (at := sender.retry_at_ms()) is not None), default=None)

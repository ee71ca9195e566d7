"""Who is shown what: the gateways attached to each topic of a host, and the log that some of them still lack.

Attaching costs no activation: a topic is a set of gateways. A gateway attaches a conversation *after* the number it
has; whether the log holds more is asked of the database for all such topics at once, unless the conversation is active
here and its head is known. What a gateway lacks is read in pages and sent to it alone, among the live frames: the
gateway puts them in order by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.link import Backoff

MAX_CHECKS = 2_000
"""Topics of one question for heads."""


@dataclass(frozen=True, slots=True)
class Read:
    """A page of the log to be read for one gateway: what follows ``since``."""

    topic: str
    gateway: str
    since: int


class Topics:
    """The attachments of one host."""

    __slots__ = ("_backoff", "_checking", "_checks", "_gateways", "_reading", "_reads", "_shown")

    def __init__(self) -> None:
        self._gateways: dict[str, dict[str, None]] = {}
        self._checks: dict[str, dict[str, int]] = {}
        self._checking: dict[str, dict[str, int]] = {}
        self._reads: dict[tuple[str, str], int] = {}
        self._reading: Read | None = None
        self._shown: dict[str, int] = {}
        """The number up to which every attached gateway has been, or is being, brought."""
        self._backoff = Backoff()

    def __len__(self) -> int:
        return len(self._gateways)

    def attach(self, topic: str, gateway: str) -> None:
        self._gateways.setdefault(topic, {})[gateway] = None

    def detach(self, topic: str, gateway: str) -> None:
        gateways = self._gateways.get(topic, {})
        gateways.pop(gateway, None)
        if not gateways:
            self._gateways.pop(topic, None)
            self._shown.pop(topic, None)
        checks = self._checks.get(topic, {})
        checks.pop(gateway, None)
        if not checks:
            self._checks.pop(topic, None)
        self._reads.pop((topic, gateway), None)

    def forget(self, gateway: str) -> None:
        """Detach the gateway from everything."""
        for topic in [topic for topic, gateways in self._gateways.items() if gateway in gateways]:
            self.detach(topic, gateway)

    def drop(self, gone: Callable[[str], bool]) -> list[str]:
        """Detach every gateway from the topics of which ``gone`` is true; returns the gateways that this concerns."""
        concerned: dict[str, None] = {}
        for topic in [topic for topic in self._gateways if gone(topic)]:
            for gateway in self.gateways(topic):
                self.detach(topic, gateway)
                concerned[gateway] = None
        return list(concerned)

    def gateways(self, topic: str) -> tuple[str, ...]:
        return tuple(self._gateways.get(topic, ()))

    def attached(self, topic: str, gateway: str) -> bool:
        return gateway in self._gateways.get(topic, ())

    # --- how far everybody has been brought ----------------------------------------------------------------------

    def begins(self, topic: str, since: int) -> None:
        """A gateway has just attached after this number, which it has seen: so the log reaches it."""
        self._shown.setdefault(topic, since)
        self.reaches(topic, since)

    def passed(self, topic: str, seq: int) -> None:
        """Everybody is being shown this entry; who lacks what is before it notices."""
        if topic in self._shown:
            self._shown[topic] = max(self._shown[topic], seq)

    def reaches(self, topic: str, seq: int) -> None:
        """The log is known to reach this number: whoever was brought less far lacks the rest."""
        shown = self._shown.get(topic)
        if shown is not None and seq > shown:
            for gateway in self.gateways(topic):
                self.lack(topic, gateway, shown)
            self._shown[topic] = seq

    def check_all(self) -> None:
        """Find out of every conversation whether somebody else has written to it; `checked` compares."""
        for topic in self._shown:
            self._checks.setdefault(topic, {})  # whoever has attached with less keeps its own question

    # --- does the log hold more? ---------------------------------------------------------------------------------

    def check(self, topic: str, gateway: str, since: int) -> None:
        """Find out whether the log holds more than the gateway has."""
        self._checks.setdefault(topic, {})[gateway] = since

    def next_check(self, now_ms: int) -> list[str] | None:
        """The conversations whose heads to ask the database for now; None while a question is under way."""
        if self._checking or not self._checks or now_ms < self._backoff.ready_at_ms:
            return None
        for topic in list(self._checks)[:MAX_CHECKS]:
            self._checking[topic] = self._checks.pop(topic)
        return list(self._checking)

    def checked(self, heads: dict[str, int]) -> None:
        """The database has answered; what a gateway lacks will be read."""
        self._backoff.succeeded()
        checking, self._checking = self._checking, {}
        for topic, gateways in checking.items():
            for gateway, since in gateways.items():
                if heads[topic] > since:
                    self.lack(topic, gateway, since)
            self.reaches(topic, heads[topic])

    def check_failed(self, now_ms: int) -> None:
        self._backoff.failed(now_ms)
        checking, self._checking = self._checking, {}
        for topic, gateways in checking.items():
            self._checks[topic] = gateways | self._checks.get(topic, {})

    # --- reading what is lacked ----------------------------------------------------------------------------------

    def lack(self, topic: str, gateway: str, since: int) -> None:
        """Have a page of what follows ``since`` read for the gateway, if it is attached.

        Where a page is wanted already, the earlier one will do: the gateway drops what it has.
        """
        if self.attached(topic, gateway):
            self._reads[topic, gateway] = min(since, self._reads.get((topic, gateway), since))

    def next_read(self, now_ms: int, crowded: Callable[[str], bool] = lambda _gateway: False) -> Read | None:
        """The page to read from the log now; None while one is under way. A ``crowded`` gateway's pages wait."""
        if self._reading or not self._reads or now_ms < self._backoff.ready_at_ms:
            return None
        wanted = next((read for read in self._reads if not crowded(read[1])), None)
        if wanted is None:
            return None
        topic, gateway = wanted
        self._reading = Read(topic, gateway, self._reads.pop((topic, gateway)))
        return self._reading

    def read(self) -> Read:
        """The page under way has come; returns which it was."""
        self._backoff.succeeded()
        assert self._reading is not None, "an answer without a question"
        reading, self._reading = self._reading, None
        return reading

    def read_failed(self, now_ms: int) -> None:
        self._backoff.failed(now_ms)
        assert self._reading is not None, "an answer without a question"
        reading, self._reading = self._reading, None
        self.lack(reading.topic, reading.gateway, reading.since)

    def retry_at_ms(self) -> int | None:
        """When `next_check` or `next_read` may have something that they do not have now."""
        wanted = (self._checks and not self._checking) or (self._reads and not self._reading)
        return self._backoff.ready_at_ms if wanted else None

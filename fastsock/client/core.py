"""The client without its network: frames and times in, actions out.

Sans-IO: no clock, no socket, no randomness of its own. Whoever owns a `Core` (`fastsock.client.client`, a test)
performs the actions in order, tells it what happens (`connected`, `frame`, `closed`), and calls `tick` at
`next_deadline_ms`. Times are milliseconds of any clock that never goes back.

    waiting --tick--> connecting --connected--> greeting --session.ready--> live --Disconnect--> closing
       ^                  |                        |                         |                      |
       +----- closed -----+------------------------+-------------------------+----------------------+--> stopped
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from fastsock.client import events, wire
from fastsock.client.actions import Action, Connect, Disconnect, Emit, Reject, RenewToken, Resolve, Send, Stop
from fastsock.client.backoff import Meaning, Random, Return, full_jitter_ms, meaning_of
from fastsock.client.errors import Closed, NotAuthenticated, Refused, Stopped
from fastsock.client.outbox import Outbox
from fastsock.client.settings import Settings
from fastsock.client.streams import Lost, Streams, Verdict
from fastsock.client.wire import SessionReady, SessionResumed

REMEMBERED_ACKS = 1_000
"""The last acks, to compare a second one with the first."""
MIN_REFRESH_MS = 1_000
"""Between two refreshes on one socket, however short-lived the tokens are."""
BYE = 1000
"""What the client closes with, whatever its reason."""


class Phase(Enum):
    """Where the connection stands."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    GREETING = "greeting"
    LIVE = "live"
    CLOSING = "closing"
    """`Disconnect` was said: what still comes is ignored, and comes again on the next socket."""
    STOPPED = "stopped"


class Core:
    """One user's connection to FastSock, kept up for ever.

    ``positions`` are those of an earlier process; None: replay nothing. ``random`` gives numbers from 0 to below 1.
    """

    def __init__(
        self, random: Random, positions: Mapping[str, int] | None = None, settings: Settings | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.outbox = Outbox(self.settings, random)
        self.streams = Streams(positions)
        self.phase = Phase.WAITING
        self.user_id: int | None = None
        """Who the token belongs to; None until the first ``session.ready``."""
        self._random = random
        self._at: dict[str, int] = {}
        """What is due when; `tick` knows what to do about each."""
        self._greeted = False
        self._reason = ""
        """Why this client closes the socket."""
        self._tries = 0
        self._token_refusals = 0
        self._fresh_token = False
        self._hint_ms: int | None = None
        self._resume_tries = 0
        self._resume_refused = False
        self._refreshed_ms: int | None = None
        self._acks: dict[str, events.Ack] = {}

    @property
    def positions(self) -> dict[str, int]:
        """The last ``seq`` that was applied in each conversation, by its public name."""
        return dict(self.streams.positions)

    # --- the connection ------------------------------------------------------------------------------------------

    def start(self) -> list[Action]:
        """Connect for the first time."""
        self.phase = Phase.CONNECTING
        return [Connect(fresh_token=False)]

    def connected(self, now_ms: int, token: str | None) -> list[Action]:
        """A socket is open; None: it is authenticated already."""
        if self.phase is not Phase.CONNECTING:
            return []
        self.phase = Phase.GREETING
        self._at["greeting"] = now_ms + self.settings.greeting_ms
        self._fresh_token = False
        return [] if token is None else [Send(wire.frame("session.authenticate", {"token": token}))]

    def closed(self, code: int, reason: str, now_ms: int) -> list[Action]:
        """The socket is gone, or could not be had: 1006 where there is no close code."""
        if self.phase in {Phase.STOPPED, Phase.WAITING}:
            return []
        greeted, self._greeted = self._greeted, False
        reason, self._reason = self._reason or reason, ""
        self.phase = Phase.WAITING
        self._at.clear()
        self.streams.lost()
        hint_ms, self._hint_ms = self._hint_ms, None
        meaning = meaning_of(code)
        if meaning.comes is Return.NEW_TOKEN:
            self._fresh_token = True
            self._token_refusals += 1
        stop = self._reason_to_stop(meaning, code, reason)
        pause_ms = None if stop is not None else hint_ms if hint_ms is not None else self._pause_ms(meaning)
        actions: list[Action] = []
        if greeted:
            actions.append(Emit(events.Disconnected(code=code, reason=reason, retry_in_ms=pause_ms)))
        if stop is not None or pause_ms is None:
            return [*actions, *self.stop(stop or Stopped(code, reason))]
        self._at["connect"] = now_ms + pause_ms
        self._tries += 1
        return actions

    def _reason_to_stop(self, meaning: Meaning, code: int, reason: str) -> Stopped | None:
        if meaning.comes is Return.NEVER:
            return Stopped(code, reason)
        if self._token_refusals > self.settings.token_tries:
            text = f"a token was refused {self._token_refusals} times in a row: {reason or f'close code {code}'}"
            return NotAuthenticated(code, text)
        return None

    def _pause_ms(self, meaning: Meaning) -> int:
        if meaning.comes is Return.LONG_PAUSE:
            return int(self.settings.long_pause_ms * (1 + self._random()))
        return self._backoff_ms(max(self._tries, meaning.least))

    def _backoff_ms(self, tries: int) -> int:
        return full_jitter_ms(tries, self.settings.backoff_base_ms, self.settings.backoff_cap_ms, self._random)

    def _leave(self, reason: str) -> list[Action]:
        """Give this socket up for another one."""
        self._reason = reason
        self.phase = Phase.CLOSING
        self._at.clear()
        return [Disconnect(BYE, reason)]

    def stop(self, error: Stopped | None = None) -> list[Action]:
        """Do nothing any more, for this reason; None: the program closes the client."""
        if self.phase is Phase.STOPPED:
            return []
        self.phase = Phase.STOPPED
        self._at.clear()
        return [Stop(error or Closed(1000, "the client is closed"))]

    # --- sending -------------------------------------------------------------------------------------------------

    def send(self, client_msg_id: str, data: Mapping[str, Any], now_ms: int) -> list[Action]:
        """Take a message into the outbox; ``data`` is that of ``message.send``. The outbox must not be full.

        Raises:
            Refused: the server would refuse it.
            ValueError: another message of this name waits in the outbox.

        """
        frame = wire.message_frame(client_msg_id, data)
        waiting = self.outbox.frame(client_msg_id)
        if waiting == frame:
            return []
        if waiting is not None:
            raise ValueError(f"client_msg_id {client_msg_id!r} names another message that is not acknowledged yet")
        self.outbox.add(client_msg_id, frame)
        return self._pump(now_ms)

    def _pump(self, now_ms: int) -> list[Action]:
        """Send what the outbox has to send."""
        if self.phase is not Phase.LIVE:
            return []
        return [Send(frame) for frame in self.outbox.due(now_ms)]

    # --- time ----------------------------------------------------------------------------------------------------

    def next_deadline_ms(self) -> int | None:
        """When `tick` has something to do, if nothing happens before; None: never."""
        times = list(self._at.values())
        if self.phase is Phase.LIVE and (outbox_ms := self.outbox.next_at_ms()) is not None:
            times.append(outbox_ms)
        return min(times, default=None)

    def tick(self, now_ms: int) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        for what in [what for what, at_ms in self._at.items() if at_ms <= now_ms]:
            if self._at.pop(what, None) is None:
                continue  # what was due before it has ended this socket
            match what:
                case "connect":
                    self.phase = Phase.CONNECTING
                    actions.append(Connect(self._fresh_token))
                case "greeting":
                    text = f"no session.ready within {self.settings.greeting_ms / 1000:g} s"
                    actions += self._leave(text)
                case "resume":
                    actions += self._resume(now_ms)
                case "resume_patience":
                    text = f"nothing came of session.resume for {self.settings.resume_patience_ms / 1000:g} s"
                    actions += self._leave(text)
                case "refresh":
                    self._refreshed_ms = now_ms
                    actions.append(RenewToken())
        return [*actions, *self._pump(now_ms)]

    # --- frames --------------------------------------------------------------------------------------------------

    def frame(self, frame: str | bytes, now_ms: int) -> list[Action]:
        """The server has sent a text frame."""
        if self.phase not in {Phase.GREETING, Phase.LIVE}:
            return []
        try:
            envelope = wire.envelope_of(frame)
            return self._event(envelope.event, envelope.data, now_ms)
        except msgspec.DecodeError as error:
            text = f"a frame of the server is not as the protocol says: {error}"
            return [Emit(events.ServerError(code="bad_frame", message=text))]

    def _event(self, event: str, data: msgspec.Raw, now_ms: int) -> list[Action]:
        match event:
            case "session.ready":
                actions = self._ready(wire.ready_of(data), now_ms)
            case "session.resumed":
                actions = self._resumed(wire.resumed_of(data), now_ms)
            case "session.expiring":
                actions = self._expiring(wire.expiring_of(data).expires_in, now_ms)
            case "session.refreshed":
                actions = []
            case "message.ack":
                actions = self._acked(wire.ack_of(data), now_ms)
            case "error":
                actions = self._failed(wire.error_of(data), now_ms)
            case _ if self.phase is Phase.LIVE:
                actions = self._entry(event, data, now_ms)
            case _:
                actions = []  # before session.ready; what it is about comes again by the resume
        return actions

    def _ready(self, ready: SessionReady, now_ms: int) -> list[Action]:
        self.phase = Phase.LIVE
        self._greeted = True
        self._at.pop("greeting", None)
        self.user_id = ready.user_id
        self._tries = self._token_refusals = self._resume_tries = 0
        self._refreshed_ms = None
        heads = {one.conversation: one.seq for one in ready.conversations}
        resuming = self.streams.greeted(heads)
        self.outbox.connected(now_ms)
        about = events.Connected(
            connection_id=ready.connection_id,
            user_id=ready.user_id,
            resuming=resuming,
            unread={one.conversation: one.unread for one in ready.conversations if one.unread},
        )
        return [Emit(about, {} if resuming else heads), *self._resume(now_ms), *self._pump(now_ms)]

    def _entry(self, event: str, data: msgspec.Raw, now_ms: int) -> list[Action]:
        assert self.user_id is not None, "session.ready has come"
        place = wire.place_of(data)
        name = place.conversation(self.user_id)
        entry = events.entry_of(event, data, name, place.seq)
        if name is None or place.seq is None:
            return [Emit(entry)]
        if self.streams.asked is not None:
            self._at["resume_patience"] = now_ms + self.settings.resume_patience_ms
        starts = events.starts_membership(entry, self.user_id)
        if self.streams.place(name, place.seq, starts=starts) is Verdict.DROP:
            return self._resume(now_ms)
        if self.streams.replaying(name):
            self._resume_tries = 0
        ends = events.ends_membership(entry, self.user_id)
        return [Emit(entry, self.streams.applied(name, place.seq, ends=ends))]

    # --- resuming ------------------------------------------------------------------------------------------------

    def _resume(self, now_ms: int) -> list[Action]:
        """Ask for what is missing, if anything is, and nothing is asked already; more slowly each time in vain."""
        if self.phase is not Phase.LIVE or not self.streams.wanting or "resume" in self._at:
            return []
        if self._resume_tries > self.settings.resume_tries:
            if self._resume_refused:
                return self._leave(f"session.resume was refused {self._resume_tries} times in a row")
            return _reloads(self.streams.refused())  # answered, but in vain
        wanted = self.streams.ask(self.settings.resume_names)
        self._resume_tries += 1
        self._at["resume_patience"] = now_ms + self.settings.resume_patience_ms
        return [Send(wire.frame("session.resume", {"conversations": wanted}))]

    def _resume_later(self, least_ms: int, now_ms: int) -> list[Action]:
        self._at["resume"] = now_ms + least_ms + self._backoff_ms(self._resume_tries)
        return []

    def _resumed(self, answer: SessionResumed, now_ms: int) -> list[Action]:
        if self.streams.asked is None:
            return []
        self._at.pop("resume_patience", None)
        self._resume_refused = False
        if self.streams.left_over:
            self._resume_tries = 0
        lost, left = self.streams.resumed(answer)
        gone: list[Action] = [
            Emit(events.Left(conversation=name), {name: self.streams.positions.get(name)}) for name in left
        ]
        moves = {name: seq for name, seq in self.streams.positions.items() if name in answer.conversations}
        about = events.Resumed(
            conversations=answer.conversations,
            complete=answer.complete,
            markers=answer.markers,
        )
        actions = [*_reloads(lost), *gone, Emit(about, moves)]
        if self.streams.wanting and self._resume_tries > 1:
            return [*actions, *self._resume_later(0, now_ms)]
        return [*actions, *self._resume(now_ms)]

    # --- answers -------------------------------------------------------------------------------------------------

    def _acked(self, ack: events.Ack, now_ms: int) -> list[Action]:
        before = self._acks.setdefault(ack.client_msg_id, ack)
        if before != ack:
            text = f"message {ack.client_msg_id!r} was acknowledged as #{before.seq}, then as #{ack.seq}"
            return [Emit(events.ServerError(code="ack_changed", message=text, client_msg_id=ack.client_msg_id))]
        if len(self._acks) > REMEMBERED_ACKS:
            del self._acks[next(iter(self._acks))]
        if not self.outbox.acked(ack.client_msg_id):
            return []
        return [Resolve(ack.client_msg_id, ack), *self._pump(now_ms)]

    def _failed(self, error: events.ServerError, now_ms: int) -> list[Action]:
        if error.code == "going_away":
            self._hint_ms = error.retry_after_ms
            return []
        match error.context_event:
            case "session.resume" if self.streams.asked is not None:
                return self._resume_failed(error, now_ms)
            case "session.refresh":
                return self._refresh_failed(error, now_ms)
            case "message.send" if error.client_msg_id is not None:
                return self._send_failed(error, error.client_msg_id, now_ms)
            case _:
                return [Emit(error)]

    def _send_failed(self, error: events.ServerError, client_msg_id: str, now_ms: int) -> list[Action]:
        if error.retryable:
            known = self.outbox.postponed(client_msg_id, error.retry_after_ms, now_ms)
            return [] if known else [Emit(error)]
        if not self.outbox.refused(client_msg_id):
            return [Emit(error)]
        return [Reject(client_msg_id, Refused(error.code, error.message)), *self._pump(now_ms)]

    def _resume_failed(self, error: events.ServerError, now_ms: int) -> list[Action]:
        self._at.pop("resume_patience", None)
        if error.retryable:
            self.streams.postponed()
            self._resume_refused = True
            return self._resume_later(error.retry_after_ms or 0, now_ms)
        return [Emit(error), *_reloads(self.streams.refused())]

    # --- tokens --------------------------------------------------------------------------------------------------

    def _expiring(self, expires_in_s: int, now_ms: int) -> list[Action]:
        spread_ms = min(self.settings.refresh_spread_ms, expires_in_s * 1000 // 4)
        at_ms = now_ms + int(self._random() * spread_ms)
        if self._refreshed_ms is not None:
            at_ms = max(at_ms, self._refreshed_ms + MIN_REFRESH_MS)
        self._at.setdefault("refresh", at_ms)
        return []

    def token_renewed(self, token: str) -> list[Action]:
        """Here is the token that `RenewToken` has asked for."""
        return [Send(wire.frame("session.refresh", {"token": token}))] if self.phase is Phase.LIVE else []

    def _refresh_failed(self, error: events.ServerError, now_ms: int) -> list[Action]:
        """Try again, or take a new socket for the new token; ``session.refresh`` is unknown to older servers."""
        if error.retryable:
            self._at["refresh"] = now_ms + max(MIN_REFRESH_MS, error.retry_after_ms or 0)
            return []
        self._hint_ms = 0
        return self._leave(f"the new token needs a new socket: {error.message}")


def _reloads(lost: list[Lost]) -> list[Action]:
    return [Emit(events.Reload(conversation=name, oldest=oldest, seq=seq), {name: seq}) for name, oldest, seq in lost]

"""The host: thousands of light actors in one process, and everything that keeps them honest.

A host takes batches of envelopes from gateways and other hosts, hands each command to the actor it names, and carries
out the effects. It is synchronous and pure: it never waits. What it needs from outside it offers to be taken
(`next_append`, `next_load`, `next_check`, `next_read`, `next_lease`, `next_forward`), and is told what came of it
(`appended`, `loaded`, ...); deliveries to gateways are pulled from it (`poll`). Its shell in `actors.runtime` and the
simulator in ``tests/simulation`` drive the very same object.

The way of a message through it: `receive` -> `Room.handle` -> `Persist` -> `next_append` -> the writer commits ->
`appended` -> `Room.handle(Committed)` -> `FanOut`, `Reply` -> `poll`. Nothing is shown or answered before its commit.

An answer that follows from telling other actors waits until their hosts have what they were told. So whoever is told
"it is done" may rely on it: if this host dies before, the requester asks again, and everybody is told again.

A second process may live under this host's name for a while, cut off from the rest (a node that Ray has given up), with
gateways that still talk to it. What that one commits is in the log, and is shown here too: the heads of everything that
is attached are compared with the log every `COMPARE_HEADS_MS`, one indexed read for up to 2,000 conversations.

A host that is *fenced* (the log says that somebody else has written to a conversation) throws that activation away and
handles what it had not committed anew, with the state that the database has now; its clients notice a delay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from actors.activations import Activation, Activations, Mail
from actors.appender import Appender, Waiting
from actors.commands import (
    Attach,
    CatchUp,
    Command,
    Committed,
    Describe,
    Detach,
    Envelope,
    GatewayGone,
    LinkCommand,
    Origin,
    TimerFired,
    Typing,
)
from actors.downlinks import Downlinks
from actors.effects import (
    Answer,
    CaughtUp,
    Cut,
    CutSocket,
    Declined,
    Effect,
    Ephemeral,
    Fail,
    Failed,
    Failure,
    FanOut,
    Frame,
    Invite,
    Persist,
    Reply,
    SetTimer,
    Summon,
    Tell,
    Whisper,
)
from actors.ids import IdLease
from actors.link import Batch, Inbox
from actors.placement import Placement, shard_of
from actors.presence import TIMERS, Presence
from actors.recalls import Recalls
from actors.room import Room, repeated
from actors.timers import Timers
from actors.topics import Read, Topics
from actors.uplinks import Accepted, Behind, Stale, Uplinks
from fastsock.core.limits import (
    CATCH_UP_PAGE,
    COMPARE_HEADS_MS,
    MAX_ACTIVATIONS,
    MAX_CONNECTIONS_PER_USER,
    MAX_MAILBOX,
    MAX_PENDING_ENTRIES,
    RETRY_AFTER_MS,
    STORAGE_PATIENCE_MS,
)
from fastsock.schemas import frames, names
from fastsock.schemas.log import ConversationState, Duplicate, Entry, Fenced, Outcome, Refused, Stored

_encoder = msgspec.msgpack.Encoder()


@dataclass(slots=True)
class Owed:
    """An answer that waits until ``untold`` envelopes have reached their hosts."""

    origin: Origin
    payload: bytes
    untold: int


class Host:
    """One host. ``name`` is its actor's name; ``incarnation`` is new with each start of its process.

    Every ``now_ms`` is milliseconds since 1970 UTC, from a clock that never goes back.
    """

    def __init__(
        self,
        name: str,
        incarnation: str,
        placement: Placement,
        writers: int = 1,
        sockets_per_user: int = MAX_CONNECTIONS_PER_USER,
    ) -> None:
        self.name = name
        self.peer = f"{name}/{incarnation}"
        """How this host signs its own batches."""
        self.ids = IdLease()
        self.uplinks = Uplinks(placement)
        self.counts = {"commands": 0, "entries": 0, "frames": 0, "whispers": 0, "fenced": 0, "dropped_tells": 0}
        self.placement_suspect = False
        """Whether somebody else has written to a conversation of ours: the shell should read the placement again."""
        self._activations = Activations(sockets_per_user)
        self._appenders = [Appender() for _ in range(writers)]
        self._topics = Topics()
        self._downlinks = Downlinks(self.peer, self._topics.forget)
        self._recalls = Recalls()
        self._inbox = Inbox()
        self._timers = Timers()
        self._parting = False
        """Whether something that lives elsewhere by now still has entries on their way to the log."""
        self._unaware: dict[str, None] = {}
        """Gateways that have lost topics by a move, and have not been given a new session yet."""
        self._local: deque[Envelope] = deque()
        self._owed: dict[int, tuple[Envelope, Owed]] = {}
        self._closed_until_ms = 0
        """Until then no batch is taken: `drain`."""
        self._look_at_ms = 0
        """When the heads of what is attached here are next compared with the log; 0: nothing has been attached."""

    @property
    def placement(self) -> Placement:
        return self.uplinks.placement

    # --- what comes in -------------------------------------------------------------------------------------------

    def receive(
        self, sender: str, number: int, epoch: int, envelopes: list[Envelope], now_ms: int
    ) -> Accepted | Stale | Behind:
        """Take a batch. Nothing of it is taken unless the answer is `Accepted`; a repeated one changes nothing.

        Whoever is not a host gets a downlink with its first batch; hosts only tell, and are told nothing back.
        """
        if epoch < self.placement.epoch:
            return Stale(self.placement)
        if epoch > self.placement.epoch or now_ms < self._closed_until_ms:
            return Behind()
        session = "" if self._is_host(sender) else self._downlinks.session(sender, now_ms)
        if self._inbox.accept(sender, number):
            for envelope in envelopes:
                self._dispatch(envelope, sender, now_ms)
            self._settle(now_ms)
        return Accepted(session)

    def drain(self, until_ms: int) -> None:
        """Take no batch until then: this process is about to be replaced, and those who send keep what they have.

        What was taken goes on to its end (`drained`). Should the process live on, it takes batches again after that.
        """
        self._closed_until_ms = until_ms

    def drained(self) -> bool:
        """Whether nothing waits here: for an actor, for the log, for other hosts, for a poll, or to live elsewhere."""
        appends, deliveries = sum(map(len, self._appenders)), self._downlinks.waiting
        waiting = appends + deliveries + len(self._recalls) + len(self.uplinks)
        return not waiting and not self._parting and self._activations.oldest_ms() is None

    def move(self, placement: Placement, now_ms: int) -> None:
        """Learn a newer placement; what lives elsewhere by it is dropped as soon as nothing of it is under way.

        Where an epoch was skipped, anything that lives here may have lived elsewhere meanwhile: all of it is learned
        anew, and every gateway is given a new session, so that it attaches and tells again.
        """
        skipped = placement.epoch > self.placement.epoch + 1
        if self.uplinks.move(placement):
            if skipped:
                self._downlinks.renew_all()
            self._part(lambda name: skipped or not self._lives_here(name))
            self._settle(now_ms)

    def _lives_here(self, name: str) -> bool:
        return self.placement.owner(name) == self.name

    def _part(self, gone: Callable[[str], bool]) -> None:
        """Drop the actors and topics of which ``gone`` is true, but keep what has entries on their way to the log.

        Whoever is attached here may not be attached there before those entries are committed, so they are shown here.
        A gateway that has lost a topic may know nothing of the move, and would wait for ever. When nothing is under way
        any more it is given a new session: it attaches anew, by its old placement, and is told the newer one.
        """
        self._parting = False
        for activation in self._activations:
            if gone(activation.name):
                if activation.idle or isinstance(activation.actor, Presence):
                    self._deactivate(activation.name)
                else:
                    self._parting = True
        dropped = self._topics.drop(lambda topic: gone(topic) and self._activations.get(topic) is None)
        self._unaware.update(dict.fromkeys(dropped))
        if not self._parting:
            for peer in self._unaware:
                self._downlinks.renew(peer)
            self._unaware.clear()

    def _is_host(self, peer: str) -> bool:
        return peer.partition("/")[0] in self.placement.hosts

    def _dispatch(self, envelope: Envelope, sender: str, now_ms: int) -> None:
        self.counts["commands"] += 1
        command, topic = envelope.command, envelope.to
        origin = Origin(sender, envelope.request) if envelope.request else None
        if isinstance(command, Attach):
            self._attach(topic, sender, command.since, now_ms)
            self._perform_one(Reply(b"null"), origin, topic)
        elif isinstance(command, Detach):
            self._topics.detach(topic, sender)
        elif isinstance(command, CatchUp):
            for gateway in self._topics.gateways(topic) if self._is_host(sender) else (sender,):
                self._topics.lack(topic, gateway, command.since)
        elif isinstance(command, Typing):
            self._whispered(topic, command, sender, now_ms)
        else:
            self._hand_over(topic, command, origin, sender, now_ms)

    def _attach(self, topic: str, gateway: str, since: int, now_ms: int) -> None:
        self._topics.attach(topic, gateway)
        if topic.startswith("user:"):
            return
        self._topics.begins(topic, since)
        self._look_at_ms = self._look_at_ms or now_ms + COMPARE_HEADS_MS
        activation = self._activations.get(topic)
        if activation is None or not isinstance(activation.actor, Room):
            self._topics.check(topic, gateway, since)
        elif activation.actor.head > since:
            self._topics.lack(topic, gateway, since)
        else:
            self._outrun(topic, since, now_ms)

    def _hand_over(self, name: str, command: LinkCommand, origin: Origin | None, sender: str, now_ms: int) -> None:
        try:
            activation = self._activations.use(name, now_ms)
        except ValueError as error:
            self._fail(origin, Failure("invalid_data", str(error)))
            return
        if activation is None:
            text = f"{self.name} is full: {MAX_ACTIVATIONS:,} of {MAX_ACTIVATIONS:,} actors are active, none is idle"
            self._refuse(origin, "overloaded", text)
        elif activation.actor is None:
            if not self._activations.post(activation, Mail(command, origin, now_ms)):
                text = f"{name} is starting, and {MAX_MAILBOX:,} of {MAX_MAILBOX:,} commands wait for it"
                self._refuse(origin, "overloaded", text)
        else:
            self._act(activation, command, origin, sender, now_ms)

    def _act(
        self, activation: Activation, command: LinkCommand, origin: Origin | None, sender: str, now_ms: int
    ) -> None:
        actor = activation.actor
        if isinstance(actor, Presence):
            self._perform(actor.handle(command, now_ms, sender), command, origin, activation.name, now_ms)
            return
        assert isinstance(actor, Room), f"{activation.name} is not loaded, so its commands wait"
        refusal = None if isinstance(command, Describe) else self._no_room_for_an_entry()
        if refusal is not None:
            self._refuse(origin, *refusal)
            return
        effects = actor.handle(command, now_ms)
        match effects:
            case [Fail(failure)] if origin and self._recalls.hold(activation.name, command, origin, failure, now_ms):
                pass  # the log is asked first whether it is a repeat
            case _:
                self._perform(effects, command, origin, activation.name, now_ms)

    def _whispered(self, name: str, command: Typing, gateway: str, now_ms: int) -> None:
        """Hand over what nobody misses: needs no database where the conversation is active, and displaces nothing."""
        try:
            activation = self._activations.use_if_free(name, now_ms)
        except ValueError as error:
            self._decline(command, gateway, Failure("invalid_data", str(error)))
            return
        if activation is None:
            self._downlinks.dropped += 1
            return
        actor = activation.actor
        if actor is None:
            activation.whispered = command, gateway
            return
        effects = (
            actor.handle(command, now_ms, gateway) if isinstance(actor, Presence) else actor.handle(command, now_ms)
        )
        match effects:
            case [Fail(failure)]:
                self._decline(command, gateway, failure)
            case _:
                self._perform(effects, command, None, name, now_ms)

    def _decline(self, command: Typing, gateway: str, failure: Failure) -> None:
        declined = Declined(command.connection_id, command.event, failure)
        self._downlinks.whisper(gateway, _encoder.encode(declined))

    def _no_room_for_an_entry(self) -> tuple[str, str] | None:
        """Why no command that may lead to a `Persist` can be taken now; asked before the actor changes its mind."""
        waiting = sum(map(len, self._appenders))
        if waiting >= MAX_PENDING_ENTRIES:
            text = f"{waiting:,} of {MAX_PENDING_ENTRIES:,} entries wait for the database at {self.name}"
            return "overloaded", text
        if not self.ids:
            return "storage_unavailable", f"{self.name} has no message ids left: the database has not leased new ones"
        return None

    # --- effects -------------------------------------------------------------------------------------------------

    def _perform(
        self, effects: list[Effect], command: LinkCommand, origin: Origin | None, name: str, now_ms: int
    ) -> None:
        told: list[Envelope] = []
        for effect in effects:
            if isinstance(effect, Tell):
                told += self._tell(Envelope(effect.to, 0, effect.command))
            elif isinstance(effect, Reply) and told and origin is not None:
                owed = Owed(origin, effect.payload, len(told))
                self._owed.update((id(envelope), (envelope, owed)) for envelope in told)
            elif isinstance(effect, Persist):
                effect.entry.id = self.ids.take()
                self.counts["entries"] += 1
                self._appender(name).add(Waiting(effect.entry, command, origin, now_ms))
            elif isinstance(effect, SetTimer):
                self._timers.set(name, effect.tag, effect.at_ms)
            else:
                self._perform_one(effect, origin, name)

    def _perform_one(
        self, effect: FanOut | Whisper | Summon | Reply | Fail | Cut, origin: Origin | None, name: str
    ) -> None:
        if isinstance(effect, Reply):
            if origin is not None:
                self._downlinks.deliver(origin.peer, Answer(origin.request, effect.payload))
        elif isinstance(effect, Fail):
            self._fail(origin, effect.failure)
        elif isinstance(effect, FanOut):
            self._fan_out(effect.entry, self._topics.gateways(name))
            self._topics.passed(name, effect.entry.seq)
        elif isinstance(effect, Whisper):
            body = _encoder.encode(Ephemeral(name, effect.payload, effect.sender_id))
            for gateway in self._topics.gateways(name):
                self._downlinks.whisper(gateway, body)
                self.counts["whispers"] += 1
        elif isinstance(effect, Summon):
            invite = Invite(names.parse(name).ids[0], effect.conversation, effect.since)
            for gateway in self._topics.gateways(name):
                self._downlinks.deliver(gateway, invite)
        else:
            self._downlinks.deliver(effect.gateway, CutSocket(effect.connection_id, effect.close_code))

    def _fan_out(self, entry: Entry, gateways: tuple[str, ...]) -> None:
        """Show an entry to these gateways: encoded once, however many they are."""
        if not gateways:
            return
        payload = frames.frame_of(entry)
        frame = Frame(
            entry.conversation, entry.seq, payload, frames.joins(entry), frames.leaves(entry), frames.amends(entry)
        )
        body = _encoder.encode(frame)
        for gateway in gateways:
            self._downlinks.push(gateway, body)
        self.counts["frames"] += len(gateways)

    def _tell(self, envelope: Envelope) -> list[Envelope]:
        """Hand it to its actor, here or elsewhere; returns what is on its way to another host."""
        if self.placement.owner(envelope.to) == self.name:
            self._local.append(envelope)
        elif self.uplinks.submit(envelope) is None:
            return [envelope]
        else:
            self.counts["dropped_tells"] += 1
        return []

    def forwarded(self, host: str, number: int, answer: Accepted | Stale | Behind, now_ms: int) -> None:
        """What another host said to the batch taken by `next_forward`; answers that waited for it are given."""
        if isinstance(answer, Stale):
            self.move(answer.placement, now_ms)
        for envelope in self.uplinks.answered(host, number, answer, now_ms):
            _, owed = self._owed.pop(id(envelope), (None, None))
            if owed is not None:
                owed.untold -= 1
                if not owed.untold:
                    self._downlinks.deliver(owed.origin.peer, Answer(owed.origin.request, owed.payload))

    def _settle(self, now_ms: int) -> None:
        """Hand over what actors here have told actors here."""
        while self._local:
            envelope = self._local.popleft()
            self._hand_over(envelope.to, envelope.command, None, self.peer, now_ms)

    def _refuse(self, origin: Origin | None, code: str, text: str) -> None:
        self._fail(origin, Failure(code, text, RETRY_AFTER_MS))

    def _fail(self, origin: Origin | None, failure: Failure) -> None:
        if origin is not None:
            self._downlinks.deliver(origin.peer, Failed(origin.request, failure))

    # --- the way down --------------------------------------------------------------------------------------------

    def poll(self, peer: str, session: str, acknowledged: int, now_ms: int) -> tuple[str, Batch[bytes] | None]:
        """The session of this gateway's downlink, and its next batch if there is one.

        A gateway that finds another session than it knew attaches its topics and asks its open questions anew.
        """
        return self._downlinks.poll(peer, session, acknowledged, now_ms)

    def take_woken(self) -> list[str]:
        """The gateways for which something has come since this was last asked: their polls can be answered."""
        return self._downlinks.take_woken()

    # --- persistence ---------------------------------------------------------------------------------------------

    def _appender(self, conversation: str) -> Appender:
        return self._appenders[shard_of(conversation) % len(self._appenders)]

    def _head(self, conversation: str) -> int:
        activation = self._activations.get(conversation)
        assert activation is not None, f"{conversation} has entries on the way, so it is active"
        assert isinstance(activation.actor, Room), f"{conversation} has entries on the way, so it is loaded"
        return activation.actor.head

    def next_append(self, writer: int, now_ms: int) -> tuple[int, bytes] | None:
        """``(number, bytes)`` of the batch to send to this writer now; None if there is none, or one is on the way."""
        return self._appenders[writer].take(self.placement.epoch, self._head, now_ms)

    def append_failed(self, writer: int, now_ms: int) -> None:
        self._appenders[writer].failed(now_ms)

    def appended(self, writer: int, outcomes: list[list[Outcome]], now_ms: int) -> None:
        """The writer has committed the batch, or refused what it would not take."""
        for conversation, group in self._appenders[writer].answered(outcomes):
            fenced: list[Waiting] = []
            repeated_seq = 0
            for waiting, outcome in group:
                if isinstance(outcome, Fenced):
                    fenced.append(waiting)
                else:
                    self._committed(waiting, outcome, now_ms)
                    if isinstance(outcome, Duplicate) and outcome.original.conversation == conversation:
                        repeated_seq = max(repeated_seq, outcome.original.seq)
            if fenced or repeated_seq > self._head(conversation):
                self._fenced(conversation, writer, fenced, now_ms)
        self._settle(now_ms)

    def _committed(self, waiting: Waiting, outcome: Outcome, now_ms: int) -> None:
        name = waiting.entry.conversation
        activation = self._activations.get(name)
        assert activation is not None, f"{name} had entries on the way, so it is active"
        assert isinstance(activation.actor, Room), f"{name} had entries on the way, so it is loaded"
        effects = activation.actor.handle(Committed(waiting.entry, outcome), now_ms)
        self._perform(effects, waiting.command, waiting.origin, name, now_ms)
        if isinstance(outcome, Stored) and not self._lives_here(name):
            # Gateways that are attached where it lives by now may have asked for the log before this commit.
            self._tell(Envelope(name, 0, CatchUp(outcome.seq - 1)))

    def _fenced(self, conversation: str, writer: int, fenced: list[Waiting], now_ms: int) -> None:
        """Start anew from the log; what is new in it is shown when it has been loaded."""
        self.counts["fenced"] += 1
        self.placement_suspect = True
        again = [*fenced, *self._appenders[writer].withdraw(conversation)]
        mail = [Mail(waiting.command, waiting.origin, waiting.since_ms) for waiting in again]
        self._activations.reload(conversation, mail, now_ms)

    def _outrun(self, conversation: str, seq: int, now_ms: int) -> None:
        """The log reaches ``seq``: an activation that knows less of it, and has nothing under way, starts anew."""
        activation = self._activations.get(conversation)
        if activation is None or not isinstance(activation.actor, Room):
            return
        if activation.idle and activation.actor.head < seq:
            self.counts["fenced"] += 1
            self.placement_suspect = True
            self._activations.reload(conversation, [], now_ms)

    def epoch_refused(self, writer: int, now_ms: int) -> None:
        """The writer has seen a newer placement: learn it, then the same entries go again."""
        self.placement_suspect = True
        self._appenders[writer].failed(now_ms)

    # --- loading -------------------------------------------------------------------------------------------------

    def next_load(self, now_ms: int) -> list[str] | None:
        """The conversations to read from the database now."""
        return self._activations.next_load(now_ms)

    def loaded(self, states: dict[str, ConversationState | None], now_ms: int) -> None:
        """What the database knows of them; None for what does not exist."""
        for name in self._activations.loaded():
            activation = self._activations.get(name)
            assert activation is not None, f"{name} is neither idle nor given up while it is being loaded"
            state = states.get(name)
            if state is None:
                unknown = _not_found(name)
                for mail in self._activations.drop(name):
                    self._fail(mail.origin, unknown)
                if activation.whispered is not None:
                    self._decline(*activation.whispered, unknown)
                continue
            room = activation.actor = Room(state)
            self._topics.reaches(name, state.head)
            self._perform(room.activated(), Describe(), None, name, now_ms)
            while activation.mailbox:
                mail = activation.mailbox.popleft()
                self._act(activation, mail.command, mail.origin, self.peer, now_ms)
            if activation.whispered is not None:
                self._whispered(name, *activation.whispered, now_ms)
                activation.whispered = None
        self._settle(now_ms)

    def load_failed(self, now_ms: int) -> None:
        self._activations.load_failed(now_ms)

    # --- the log for those who lack it ---------------------------------------------------------------------------

    def next_check(self, now_ms: int) -> list[str] | None:
        """The conversations whose heads to ask the database for now."""
        return self._topics.next_check(now_ms)

    def checked(self, heads: dict[str, int], now_ms: int) -> None:
        """How far their logs reach; what somebody else has written is shown, and known here from now on."""
        for name, head in heads.items():
            self._outrun(name, head, now_ms)
        self._topics.checked(heads)

    def check_failed(self, now_ms: int) -> None:
        self._topics.check_failed(now_ms)

    def next_read(self, now_ms: int) -> Read | None:
        """The page of `CATCH_UP_PAGE` entries to read from the log now, for a gateway that keeps up."""
        return self._topics.next_read(now_ms, self._downlinks.crowded)

    def read(self, entries: list[Entry]) -> None:
        """The page has come: show it to the gateway that lacks it, and how far the log reached."""
        reading = self._topics.read()
        if not self._topics.attached(reading.topic, reading.gateway):
            return
        for entry in entries:
            self._fan_out(entry, (reading.gateway,))
        last = entries[-1].seq if entries else reading.since
        self._downlinks.deliver(
            reading.gateway, CaughtUp(reading.topic, last + 1 if len(entries) == CATCH_UP_PAGE else last)
        )

    def read_failed(self, now_ms: int) -> None:
        self._topics.read_failed(now_ms)

    # --- refusals that may be repeats ----------------------------------------------------------------------------

    def next_recall(self, now_ms: int) -> list[tuple[int, str]] | None:
        """``(sender id, key)`` to look up in the log now."""
        return self._recalls.next_recall(now_ms)

    def recalled(self, found: dict[tuple[int, str], Entry], now_ms: int) -> None:
        """What the log knows of them: who repeats is told what it became, everybody else is refused."""
        for recall in self._recalls.recalled():
            original = found.get(recall.named)
            if original is None:
                self._fail(recall.origin, recall.otherwise)
            else:
                effects = repeated(recall.conversation, recall.kind, original)
                self._perform(effects, Describe(), recall.origin, recall.conversation, now_ms)
        self._settle(now_ms)

    def recall_failed(self, now_ms: int) -> None:
        self._recalls.failed(now_ms)

    # --- ids and other hosts -------------------------------------------------------------------------------------

    def next_lease(self, now_ms: int) -> int | None:
        """How many message ids to lease now."""
        return self.ids.next_lease(now_ms)

    def next_forward(self, host: str, now_ms: int) -> tuple[Batch[Envelope], int] | None:
        """The batch to send to another host now, and its epoch."""
        return self.uplinks.take(host, now_ms)

    def send_at_ms(self) -> int | None:
        """When `next_append` or `next_forward` may have something that it does not have now, if nothing happens."""
        times = [self.uplinks.retry_at_ms(), *(appender.retry_at_ms() for appender in self._appenders)]
        return min((at for at in times if at is not None), default=None)

    # --- time ----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Do what is due: timers, passivation, patience that has run out, gateways that are gone."""
        for name, tag in self._timers.due(now_ms):
            self._inform(name, TimerFired(tag), now_ms)
        for name in self._activations.passivate(now_ms):
            self._timers.cancel_all(name, TIMERS)
        if self._parting:
            self._part(lambda name: not self._lives_here(name))
        self._lose_patience(now_ms)
        if 0 < self._look_at_ms <= now_ms:
            self._look_at_ms = now_ms + COMPARE_HEADS_MS
            self._topics.check_all()
        for peer in self._downlinks.gone(now_ms):
            for activation in self._activations:
                if isinstance(activation.actor, Presence):
                    self._inform(activation.name, GatewayGone(peer), now_ms)
        self._settle(now_ms)

    def _inform(self, name: str, command: Command, now_ms: int) -> None:
        """Tell an actor something that only its host knows. A conversation may have gone, and what it knew with it."""
        activation = self._activations.get(name)
        actor = None if activation is None else activation.actor
        if isinstance(actor, Room):
            self._perform(actor.handle(command, now_ms), Describe(), None, name, now_ms)
        elif isinstance(actor, Presence):
            self._perform(actor.handle(command, now_ms, self.peer), Describe(), None, name, now_ms)
        else:
            assert not name.startswith("user:"), f"{name} has a timer or a socket, so it is active"

    def _lose_patience(self, now_ms: int) -> None:
        limit_ms = now_ms - STORAGE_PATIENCE_MS
        text = f"the database has not answered for {STORAGE_PATIENCE_MS / 1000:g} s"
        for mail in self._activations.give_up(limit_ms):
            self._refuse(mail.origin, "storage_unavailable", text)
        for recall in self._recalls.give_up(limit_ms):
            self._refuse(recall.origin, "storage_unavailable", text)
        for appender in self._appenders:
            given_up, unsure = appender.give_up(now_ms)
            for waiting in given_up:
                self._committed(waiting, Refused("storage_unavailable", text), now_ms)
            for origin in unsure:
                self._refuse(origin, "storage_unavailable", text)

    def next_deadline_ms(self) -> int | None:
        """When `tick` or a ``next_...`` may have something that it does not have now; None: never by itself."""
        oldest = [
            self._activations.oldest_ms(),
            self._recalls.oldest_ms(),
            *(appender.oldest_ms() for appender in self._appenders),
        ]
        times = [
            self._look_at_ms if len(self._topics) else None,
            self._timers.next_at_ms(),
            self._activations.passivate_at_ms(),
            self._activations.load_at_ms(),
            self._topics.retry_at_ms(),
            self.ids.retry_at_ms(),
            self.send_at_ms(),
            *(since + STORAGE_PATIENCE_MS for since in oldest if since is not None),
            self._downlinks.gone_at_ms(),
            self._recalls.retry_at_ms(),
        ]
        return min((at for at in times if at is not None), default=None)

    def _deactivate(self, name: str) -> None:
        self._activations.drop(name)
        self._timers.cancel_all(name, TIMERS)

    # --- to be looked at -----------------------------------------------------------------------------------------

    def describe(self, name: str, now_ms: int) -> bytes | None:
        """An actor's state, JSON; None if it is not active. Nothing changes by it."""
        activation = self._activations.get(name)
        if activation is None or activation.actor is None:
            return None
        actor = activation.actor
        described = (
            actor.handle(Describe(), now_ms, "") if isinstance(actor, Presence) else actor.handle(Describe(), now_ms)
        )
        return next(effect.payload for effect in described if isinstance(effect, Reply))

    def stats(self) -> dict[str, object]:
        """Figures for ``fastsock top``: counts since the start, and sizes now."""
        actors = list(self._activations)
        users = [activation.actor for activation in actors if isinstance(activation.actor, Presence)]
        return {
            "host": self.name,
            "epoch": self.placement.epoch,
            "rooms": sum(isinstance(a.actor, Room) and a.name.startswith("room:") for a in actors),
            "dms": sum(isinstance(a.actor, Room) and a.name.startswith("dm:") for a in actors),
            "users": sum(user.online for user in users),
            "loading": sum(a.actor is None for a in actors),
            "topics": len(self._topics),
            "gateways": len(self._downlinks),
            "entries_waiting": sum(map(len, self._appenders)),
            "deliveries_waiting": self._downlinks.waiting,
            "forwards_waiting": len(self.uplinks),
            "ids_left": len(self.ids),
            "recalls_waiting": len(self._recalls),
            "lost_downlinks": self._downlinks.lost,
            "dropped_ephemeral": self._downlinks.dropped,
            **self.counts,
        }


def _not_found(name: str) -> Failure:
    parts = names.parse(name)
    code = "room_not_found" if parts.kind == "room" else "user_not_found"
    who = f"room {parts.ids[0]}" if parts.kind == "room" else f"user {parts.ids[0]} or {parts.ids[1]}"
    return Failure(code, f"{who} does not exist or is not active")

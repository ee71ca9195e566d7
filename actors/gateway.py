"""The gateway: which socket is shown what, in which order, and who waits for which answer.

Pure, and generic over the socket's handle ``S``. Commands leave by the *name* they are for; which host that is, is the
links' business. Deliveries come back in the order in which their host sent them.

**Order.** Each attached conversation knows the number of the last entry it has passed on. The next one is passed on, an
older one is dropped, and one that is too new is held until the gap before it has been read from the log. So whatever a
crash or a lost call does to the stream of deliveries, every socket of a topic sees the log.

**Who is shown what** follows the log itself. The entry that makes users members says so: when it is passed on, the
sockets they have here join the topic before it is written; the entry that ends a membership is the last they see. So
at every moment the ready sockets of a topic are those of its members as of the last entry passed on. The ways in:

* *Connecting.* The user's own topic is attached first, then the user's memberships are *loaded*. What changes before
  the load is in it; what changes after it is announced on the user's topic. What is passed on while the load is under
  way is noted on the socket's seat (`Seat.joined`, `Seat.left`) and corrects the load. A conversation that is attached
  here is joined at the point that it has reached, unless the user's membership begins later: then the entry that begins
  it does the rest. One that is not is attached after the head that the load has seen. A load that is older than the
  point from which this gateway knows a conversation (`Topic.start`) may have missed a leaving, and is repeated.
* *An invitation* on the user's topic names a conversation and the number before the entry that lets the user in. If it
  is not attached here, it is attached from there, and the entry does the rest. If it is, and that entry came after
  `Topic.start`, the entry has done it or will. If it came before (the conversation was attached meanwhile for somebody
  else, at a later point), the topic is *rewound*: the log is read again from the invitation on, for the sockets of that
  user alone; those that have seen it wait (`Topic.floors`), and then everybody goes on together.
* *A host that restarts* may have forgotten an invitation. So when a user's topic is attached anew the memberships are
  loaded again, and each is treated as an invitation. And after a split of the network an invitation may have gone to a
  host that nobody here listens to: so they are loaded again from time to time (`RELOAD_MEMBERSHIPS_MS`).

**What is ephemeral** has no number and no place in that order: it is shown to the sockets that go on with everybody, or
to nobody. A socket that is held or behind misses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Generic, TypeVar, assert_never

from actors.commands import Attach, CatchUp, Connect, Detach, Disconnect, Envelope, LinkCommand, Typing
from actors.effects import (
    Answer,
    CaughtUp,
    CutSocket,
    Declined,
    Delivery,
    Ephemeral,
    Failed,
    Failure,
    Frame,
    Invite,
)
from actors.gateway_outputs import (
    Answered,
    Close,
    Decline,
    Feed,
    LoadSubscriptions,
    Output,
    ReadPage,
    Ready,
    Refused,
    Resumed,
    Submit,
    Write,
)
from actors.gateway_tables import Pending, Seat, Topic, User
from actors.replays import Replays
from fastsock.core.limits import (
    DETACH_LINGER_MS,
    MAX_HELD_FRAMES,
    MAX_REQUESTS,
    MAX_UPLINK_ITEMS,
    RELOAD_MEMBERSHIPS_MS,
    REQUEST_TIMEOUT_MS,
    RETRY_AFTER_MS,
)
from fastsock.schemas import names
from fastsock.schemas.log import Standing, Subscription

__all__ = [
    "Answered",
    "Close",
    "Decline",
    "Feed",
    "Gateway",
    "LoadSubscriptions",
    "Output",
    "ReadPage",
    "Ready",
    "Refused",
    "Resumed",
    "Submit",
    "Write",
]

S = TypeVar("S")

RETRY_MS = 1_000
"""The pause before an attachment that was refused, or a catch-up that brought nothing, is asked for again."""
MAX_RELOADS = 100
"""Users whose memberships are read again at once."""
MAX_UNSENT = MAX_UPLINK_ITEMS
"""Refused notices (sockets that came or went, topics no longer needed) that wait for `RETRY_MS`. At the bound they are
lost: a host then shows a user as online, or sends frames that are dropped here, until this gateway or the host ends."""


class Gateway(Generic[S]):
    """One gateway. Every method returns what is to be done, in order; ``now_ms`` never goes back.

    ``hold_ms``: for so long after it is ready, or until it speaks, a socket is not shown what happens, so that whoever
    resumes is shown everything in order (`actors.replays`); 0 for not at all.
    """

    def __init__(self, hold_ms: int = 0) -> None:
        self._seats: dict[S, Seat[S]] = {}
        self._connections: dict[str, S] = {}
        self._users: dict[int, User[S]] = {}
        self._topics: dict[str, Topic[S]] = {}
        self._replays: Replays[S] = Replays(self._topics, hold_ms)
        self._requests: dict[int, Pending] = {}
        self._last_request = 0
        self._lingering: dict[str, None] = {}
        """The earliest to be given up first; those that are needed again are in it until their turn comes."""
        self._retrying: dict[str, None] = {}
        self._reloads: dict[int, int] = {}
        """When the memberships of each user are next read, the earliest first."""
        self._unsent: dict[Envelope, None] = {}
        """What the links refused and nobody waits for, to be sent at `_resend_at_ms`."""
        self._resend_at_ms = 0
        self._dropped = 0
        """Ephemeral commands that the links had no room for."""

    # --- sockets -------------------------------------------------------------------------------------------------

    def connect(self, socket: S, connection_id: str, user_id: int, now_ms: int) -> list[Output[S]]:
        """A socket of this user has been accepted; `Ready` will say when it may be greeted."""
        seat = Seat(socket, connection_id, user_id)
        self._seats[socket] = seat
        self._connections[connection_id] = socket
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = User(user_id)
        user.seats[socket] = seat
        user.linger_until_ms = None
        outputs: list[Output[S]] = []
        if user.attached:
            outputs += self._load(user)
        elif not user.attaching:
            outputs += self._attach_user(user, now_ms)
        outputs.append(Submit(Envelope(names.user(user_id), 0, Connect(connection_id))))
        return outputs

    def disconnect(self, socket: S, now_ms: int) -> list[Output[S]]:
        """The socket has ended; said twice, nothing more happens."""
        seat = self._seats.pop(socket, None)
        if seat is None:
            return []
        self._connections.pop(seat.connection_id, None)
        outputs = self._replays.forget(seat)
        for name in seat.topics:
            topic = self._topics[name]
            topic.discard(socket)
            self._perhaps_linger(topic, now_ms)
        user = self._users[seat.user_id]
        del user.seats[socket]
        if not user.seats:
            self._reloads.pop(user.user_id, None)
            self._linger(user, names.user(user.user_id), now_ms)
        return [*outputs, Submit(Envelope(names.user(user.user_id), 0, Disconnect(seat.connection_id)))]

    def _perhaps_linger(self, topic: Topic[S], now_ms: int) -> None:
        if not topic.sockets and not topic.behind and topic.linger_until_ms is None:
            self._linger(topic, topic.name, now_ms)

    def _linger(self, thing: Topic[S] | User[S], name: str, now_ms: int) -> None:
        thing.linger_until_ms = now_ms + DETACH_LINGER_MS
        self._lingering.pop(name, None)
        self._lingering[name] = None

    # --- resuming ------------------------------------------------------------------------------------------------

    def spoke(self, socket: S) -> list[Output[S]]:
        """The socket has said something that is no resume: it is not held any longer."""
        seat = self._seats.get(socket)
        return [] if seat is None else self._replays.release(seat)

    def resuming(self, socket: S) -> bool:
        """The socket asks for a resume: `resume` or `resume_failed` will follow. False if one is under way."""
        seat = self._seats.get(socket)
        return seat is not None and self._replays.resuming(seat)

    def resume(
        self, socket: S, wanted: dict[str, int], standing: Standing, context: object, now_ms: int
    ) -> list[Output[S]]:
        """Show the socket what follows these numbers, by internal names; `Resumed` comes with ``context``.

        ``standing`` was read after `resuming`. Where the client has seen more than was passed on here, that is asked
        for: it may be that nobody would tell this gateway for long.
        """
        seat = self._seats.get(socket)
        if seat is None:
            return []
        outputs = self._replays.resume(seat, wanted, standing, context)
        for name in wanted:
            topic = self._topics.get(name)
            if topic is not None and seat in topic.ahead:
                outputs += self._catch_up(topic, now_ms)
        return outputs

    def resume_failed(self, socket: S) -> list[Output[S]]:
        """The standing could not be read."""
        seat = self._seats.get(socket)
        return [] if seat is None else self._replays.give_up(seat)

    def page_read(self, conversation: str, since: int, payloads: list[bytes], now_ms: int) -> list[Output[S]]:
        """The page that was asked for by `ReadPage`, as text frames."""
        return self._replays.page_read(conversation, since, payloads, now_ms)

    def page_failed(self, conversation: str, since: int, now_ms: int) -> list[Output[S]]:
        """It could not be read; it is asked for again after a pause."""
        return self._replays.page_failed(conversation, since, now_ms)

    def fed(self, socket: S) -> list[Output[S]]:
        """The socket has taken what it was to be fed with."""
        seat = self._seats.get(socket)
        return [] if seat is None else self._replays.fed(seat)

    # --- users and their memberships -----------------------------------------------------------------------------

    def _attach_user(self, user: User[S], now_ms: int) -> list[Output[S]]:
        user.attached = False
        user.retry_at_ms = None
        self._last_request += 1
        user.attaching = self._last_request
        envelope = Envelope(names.user(user.user_id), self._last_request, Attach())
        self._requests[self._last_request] = Pending(envelope, user, now_ms + REQUEST_TIMEOUT_MS)
        return [Submit(envelope)]

    def _user_attached(self, user: User[S]) -> list[Output[S]]:
        user.attaching = 0
        user.attached = True
        return self._load(user) if user.seats else []

    def _user_not_attached(self, user: User[S], now_ms: int) -> list[Output[S]]:
        user.attaching = 0
        user.retry_at_ms = now_ms + RETRY_MS
        self._retrying[names.user(user.user_id)] = None
        return []

    def _load(self, user: User[S]) -> list[Output[S]]:
        if user.loading is not None:
            user.reload = True
            return []
        user.reload = False
        user.loading = list(user.seats.values())
        self._reloads.pop(user.user_id, None)
        return [LoadSubscriptions(user.user_id)]

    def subscriptions_loaded(self, user_id: int, subscriptions: list[Subscription], now_ms: int) -> list[Output[S]]:
        """The memberships that were asked for by `LoadSubscriptions`, read after it was asked."""
        user = self._users.get(user_id)
        if user is None or user.loading is None:
            return []
        seats = [seat for seat in user.loading if seat.socket in user.seats]
        user.loading = None
        outputs: list[Output[S]] = []
        for subscription in subscriptions:
            ready = [seat for seat in seats if seat.ready]
            outputs += self._invited(ready, subscription.conversation, subscription.joined_seq - 1, now_ms)
        if any(self._too_old(subscription) for subscription in subscriptions):
            user.reload = True
        else:
            for seat in [seat for seat in seats if not seat.ready]:
                outputs += self._seat(seat, subscriptions, now_ms)
        if user.seats:
            self._reloads[user_id] = now_ms + RELOAD_MEMBERSHIPS_MS
        if user.reload:
            outputs += self._load(user)
        return outputs

    def subscriptions_failed(self, user_id: int, now_ms: int) -> list[Output[S]]:
        """They could not be read; they are asked for again after a pause."""
        user = self._users.get(user_id)
        if user is not None and user.loading is not None:
            user.loading = None
            user.retry_at_ms = now_ms + RETRY_MS
            self._retrying[names.user(user_id)] = None
        return []

    def _too_old(self, subscription: Subscription) -> bool:
        topic = self._topics.get(subscription.conversation)
        return topic is not None and subscription.head < topic.start

    def _seat(self, seat: Seat[S], subscriptions: list[Subscription], now_ms: int) -> list[Output[S]]:
        """Make a socket ready with what was loaded, corrected by what was passed on meanwhile."""
        outputs: list[Output[S]] = []
        conversations: list[tuple[str, int, int]] = []
        seat.ready = True
        self._replays.hold(seat, now_ms)
        for subscription in subscriptions:
            name = subscription.conversation
            if seat.is_over(name, subscription.joined_seq):
                continue
            seat.joined.pop(name, None)
            topic = self._topics.get(name)
            if topic is None:
                topic, attach = self._attach(name, subscription.head)
                outputs.append(attach)
            if subscription.joined_seq > topic.reached:
                seat.left[name] = subscription.joined_seq - 1
                topic.awaits[seat.user_id] = subscription.joined_seq - 1
                conversations.append((name, subscription.joined_seq - 1, 0))
                self._perhaps_linger(topic, now_ms)
                continue
            self._join(seat, topic, topic.reached)
            conversations.append((name, topic.reached, subscription.unread))
        for name, since in list(seat.joined.items()):
            topic = self._topics.get(name)
            if topic is not None and topic.has_passed(since + 1):
                self._join(seat, topic, topic.reached)
                conversations.append((name, topic.reached, 0))
            else:
                outputs += self._invited([seat], name, since, now_ms)
        seat.joined.clear()
        return [Ready(seat.socket, conversations), *outputs]

    def _join(self, seat: Seat[S], topic: Topic[S], seen: int) -> None:
        """Subscribe the socket to what follows ``seen``."""
        if self._replays.joined(seat, topic, seen):
            return
        topic.add(seat.socket)
        seat.topics.add(topic.name)
        if topic.until:
            topic.floors[seat.socket] = seen

    def _attach(self, name: str, since: int) -> tuple[Topic[S], Submit]:
        topic: Topic[S] = Topic(name, since, since)
        self._topics[name] = topic
        return topic, Submit(Envelope(name, 0, Attach(since)))

    def _invited(self, seats: list[Seat[S]], name: str, since: int, now_ms: int) -> list[Output[S]]:
        """See to it that these ready seats of one user are let into a conversation by the entry after ``since``."""
        lacking = [seat for seat in seats if name not in seat.topics and not seat.is_over(name, since + 1)]
        if not lacking:
            return []
        user_id = lacking[0].user_id
        topic = self._topics.get(name)
        if topic is None:
            topic, attach = self._attach(name, since)
            topic.awaits[user_id] = since
            self._perhaps_linger(topic, now_ms)
            return [attach]
        if since >= topic.start:
            if since >= topic.last_seq:
                topic.awaits[user_id] = since
            return []
        topic.rewind(user_id, since)
        topic.awaits[user_id] = since
        return self._catch_up(topic, now_ms)

    # --- deliveries ----------------------------------------------------------------------------------------------

    def delivered(self, delivery: Delivery, now_ms: int) -> list[Output[S]]:  # noqa: PLR0911 - a table of deliveries
        """Take one delivery of a host, in the order in which it sent them."""
        match delivery:
            case Frame():
                return self._frame(delivery, now_ms)
            case Answer(request, payload):
                return self._answered(request, payload)
            case Failed(request, failure):
                return self._failed(request, failure, now_ms)
            case CaughtUp(name, head):
                return self._caught_up(name, head, now_ms)
            case Invite():
                return self._invite(delivery, now_ms)
            case Ephemeral():
                return self._ephemeral(delivery)
            case CutSocket() | Declined():
                return self._to_one(delivery)
            case other:
                assert_never(other)

    def _frame(self, frame: Frame, now_ms: int) -> list[Output[S]]:
        topic = self._topics.get(frame.topic)
        if topic is None or frame.seq <= topic.last_seq:
            return []
        if frame.seq > topic.last_seq + 1:
            if len(topic.held) >= MAX_HELD_FRAMES:
                topic.held.clear()
            topic.held[frame.seq] = frame
            return self._catch_up(topic, now_ms)
        outputs = self._pass_on(topic, frame, now_ms)
        while topic.held:
            following = topic.held.pop(topic.last_seq + 1, None)
            if following is None:
                break
            outputs += self._pass_on(topic, following, now_ms)
        return outputs

    def _ephemeral(self, delivery: Ephemeral) -> list[Output[S]]:
        """Show it to everybody but its sender; while a gap is filled to nobody, since somebody may have left in it."""
        topic = self._topics.get(delivery.topic)
        if topic is None or topic.held:
            return []
        sender = self._users.get(delivery.sender_id)
        own = sender.seats.keys() if sender is not None else ()
        audience = [socket for socket in topic.sockets if socket not in own]
        return [Write(audience, delivery.payload, ephemeral=True)] if audience else []

    def _to_one(self, delivery: CutSocket | Declined) -> list[Output[S]]:
        socket = self._connections.get(delivery.connection_id)
        if socket is None:
            return []
        if isinstance(delivery, Declined):
            return [Decline(socket, delivery.event, delivery.failure)]
        return [Close(socket, delivery.close_code)]

    def _pass_on(self, topic: Topic[S], frame: Frame, now_ms: int) -> list[Output[S]]:
        for seat in self._seats_of(frame.subscribe):
            if not topic.follows(seat, frame.seq) or seat.is_over(topic.name, frame.seq):
                continue
            if seat.ready:
                self._join(seat, topic, frame.seq - 1)
            else:
                seat.joined[topic.name] = frame.seq - 1
        audience = topic.audience(frame.seq)
        outputs: list[Output[S]] = [Write(audience, frame.payload)] if audience else []
        for seat in self._seats_of(frame.unsubscribe):
            if topic.follows(seat, frame.seq) and not seat.is_over(topic.name, frame.seq):
                if not self._replays.left(seat, topic, frame.seq):
                    topic.discard(seat.socket)
                    seat.topics.discard(topic.name)
                seat.joined.pop(topic.name, None)
                seat.left[topic.name] = frame.seq
        topic.passed(frame.seq)
        self._perhaps_linger(topic, now_ms)
        outputs += self._replays.passed(topic, frame)
        return outputs

    def _seats_of(self, user_ids: Iterable[int]) -> list[Seat[S]]:
        users = [user for user_id in user_ids if (user := self._users.get(user_id)) is not None]
        return [seat for user in users for seat in user.seats.values()]

    def _catch_up(self, topic: Topic[S], now_ms: int) -> list[Output[S]]:
        """Ask for what follows the last entry passed on, unless that is awaited already."""
        if topic.asked_ms is not None or topic.retry_at_ms is not None:
            return []
        topic.asked_ms = now_ms
        topic.asked_seq = topic.last_seq
        return [Submit(Envelope(topic.name, 0, CatchUp(topic.last_seq)))]

    def _caught_up(self, name: str, head: int, now_ms: int) -> list[Output[S]]:
        topic = self._topics.get(name)
        if topic is None:
            return []
        progress = topic.last_seq > topic.asked_seq
        topic.asked_ms = None
        topic.held = {seq: frame for seq, frame in topic.held.items() if seq > topic.last_seq}
        nothing_follows = topic.asked_seq == topic.last_seq >= head
        topic.claimed = 0 if nothing_follows else max(topic.claimed, head)
        if topic.last_seq >= topic.claimed and not topic.held:
            return []
        if progress:
            topic.retry_at_ms = None
            return self._catch_up(topic, now_ms)
        self._retry_topic(topic, now_ms)
        return []

    def _retry_topic(self, topic: Topic[S], now_ms: int) -> None:
        topic.retry_at_ms = now_ms + RETRY_MS
        self._retrying[topic.name] = None

    def _invite(self, invite: Invite, now_ms: int) -> list[Output[S]]:
        seats = self._seats_of([invite.user_id])
        topic = self._topics.get(invite.conversation)
        if topic is None or not topic.has_passed(invite.since + 1):  # else its entry has said more than it does
            for seat in seats:
                if not seat.ready and not seat.is_over(invite.conversation, invite.since + 1):
                    seat.joined.setdefault(invite.conversation, invite.since)
        return self._invited([seat for seat in seats if seat.ready], invite.conversation, invite.since, now_ms)

    # --- requests ------------------------------------------------------------------------------------------------

    def request(self, name: str, command: LinkCommand, context: object, now_ms: int) -> list[Output[S]]:
        """Ask an actor; `Answered` or `Refused` comes with ``context``, at the latest after `REQUEST_TIMEOUT_MS`."""
        if len(self._requests) >= MAX_REQUESTS:
            text = f"{len(self._requests):,} of {MAX_REQUESTS:,} requests wait for an answer"
            return [Refused(context, Failure("overloaded", text, RETRY_AFTER_MS))]
        self._last_request += 1
        envelope = Envelope(name, self._last_request, command)
        self._requests[self._last_request] = Pending(envelope, context, now_ms + REQUEST_TIMEOUT_MS)
        return [Submit(envelope)]

    def tell(self, name: str, command: Typing) -> list[Output[S]]:
        """Tell a conversation what nobody misses; if it is refused, `Decline` comes, if it can be told so."""
        return [Submit(Envelope(name, 0, command))]

    def _answered(self, request: int, payload: bytes) -> list[Output[S]]:
        pending = self._requests.pop(request, None)
        if pending is None:
            return []
        if isinstance(pending.context, User):
            return self._user_attached(pending.context)
        return [Answered(pending.context, payload)]

    def _failed(self, request: int, failure: Failure, now_ms: int) -> list[Output[S]]:
        pending = self._requests.pop(request, None)
        if pending is None:
            return []
        if isinstance(pending.context, User):
            return self._user_not_attached(pending.context, now_ms)
        return [Refused(pending.context, failure)]

    def refused(self, envelope: Envelope, failure: Failure, now_ms: int) -> list[Output[S]]:
        """The links could not queue this envelope: fail the request, or try the attachment again later.

        What is ephemeral is dropped.
        """
        if envelope.request:
            return self._failed(envelope.request, failure, now_ms)
        if isinstance(envelope.command, Typing):
            self._dropped += 1
            return []
        topic = self._topics.get(envelope.to)
        if not isinstance(envelope.command, Attach | CatchUp):
            if len(self._unsent) < MAX_UNSENT:
                self._resend_at_ms = now_ms + RETRY_MS
                self._unsent[envelope] = None
        elif topic is not None:
            topic.asked_ms = None
            self._retry_topic(topic, now_ms)
        return []

    # --- when hosts change ---------------------------------------------------------------------------------------

    def reattach(self, owned: Callable[[str], bool], now_ms: int) -> list[Output[S]]:
        """The host of these names has forgotten this gateway: attach, tell of sockets, and ask, all anew."""
        outputs: list[Output[S]] = []
        for topic in self._topics.values():
            if owned(topic.name):
                topic.asked_ms = topic.retry_at_ms = None
                topic.held.clear()  # beyond what was held, the log may have grown while nobody told
                topic.claimed = 0
                outputs.append(Submit(Envelope(topic.name, 0, Attach(topic.last_seq))))
        for user in self._users.values():
            name = names.user(user.user_id)
            if owned(name):
                self._requests.pop(user.attaching, None)
                outputs += self._attach_user(user, now_ms)
                outputs += [Submit(Envelope(name, 0, Connect(seat.connection_id))) for seat in user.seats.values()]
        outputs += [
            Submit(pending.envelope)
            for pending in self._requests.values()
            if owned(pending.envelope.to) and not isinstance(pending.context, User)
        ]
        return outputs

    # --- time ----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Output[S]]:
        """Do what is due: requests that waited too long, topics that nobody needs, what is to be tried again."""
        outputs: list[Output[S]] = []
        text = f"no answer within {REQUEST_TIMEOUT_MS / 1000:g} s"
        late = Failure("actor_unavailable", text, RETRY_AFTER_MS)
        for request, pending in list(self._requests.items()):
            if pending.deadline_ms > now_ms:
                break
            outputs += self._failed(request, late, now_ms)
        outputs += self._resend(now_ms)
        outputs += self._retry(now_ms)
        outputs += self._reload(now_ms)
        outputs += self._replays.tick(now_ms)
        for topic in self._replays.take_vacated():
            self._perhaps_linger(topic, now_ms)
        outputs += self._stop_lingering(now_ms)
        return outputs

    def _resend(self, now_ms: int) -> list[Output[S]]:
        """Send again what the links refused, if it still is true."""
        if now_ms < self._resend_at_ms:
            return []
        unsent, self._unsent = self._unsent, {}
        return [Submit(envelope) for envelope in unsent if not self._is_past(envelope)]

    def _is_past(self, envelope: Envelope) -> bool:
        if isinstance(envelope.command, Connect):
            return envelope.command.connection_id not in self._connections
        return isinstance(envelope.command, Detach) and self._thing(envelope.to) is not None

    def _retry(self, now_ms: int) -> list[Output[S]]:
        outputs: list[Output[S]] = []
        for name in list(self._retrying):
            thing = self._thing(name)
            if thing is not None and thing.retry_at_ms is not None:
                if thing.retry_at_ms > now_ms:
                    continue
                thing.retry_at_ms = None
                outputs += self._try_again(thing, now_ms)
            del self._retrying[name]
        return outputs

    def _try_again(self, thing: Topic[S] | User[S], now_ms: int) -> list[Output[S]]:
        if isinstance(thing, Topic):
            return [Submit(Envelope(thing.name, 0, Attach(thing.last_seq))), *self._catch_up(thing, now_ms)]
        if thing.attached:
            return self._load(thing) if thing.seats else []
        return [] if thing.attaching else self._attach_user(thing, now_ms)

    def _thing(self, name: str) -> Topic[S] | User[S] | None:
        if name.startswith("user:"):
            return self._users.get(names.parse(name).ids[0])
        return self._topics.get(name)

    def _reload(self, now_ms: int) -> list[Output[S]]:
        """Read the memberships of those whose time has come."""
        outputs: list[Output[S]] = []
        for user_id, at_ms in list(islice(self._reloads.items(), MAX_RELOADS)):
            if at_ms > now_ms:
                break
            del self._reloads[user_id]
            outputs += self._load(self._users[user_id])
        return outputs

    def _stop_lingering(self, now_ms: int) -> list[Output[S]]:
        outputs: list[Output[S]] = []
        for name in self._lingered(now_ms):
            del self._lingering[name]
            thing = self._thing(name)
            if thing is None or thing.linger_until_ms is None:
                continue
            if self._is_awaited(thing):
                self._linger(thing, name, now_ms)
                continue
            if isinstance(thing, Topic):
                del self._topics[name]
                self._replays.forget_topic(name)
            else:
                del self._users[thing.user_id]
                self._requests.pop(thing.attaching, None)
            outputs.append(Submit(Envelope(name, 0, Detach())))
        return outputs

    def _lingered(self, now_ms: int) -> list[str]:
        """Whatever is at the head of those that linger and need not be there any longer."""
        over: list[str] = []
        for name in self._lingering:
            thing = self._thing(name)
            if thing is not None and thing.linger_until_ms is not None and thing.linger_until_ms > now_ms:
                break
            over.append(name)
        return over

    def _is_awaited(self, thing: Topic[S] | User[S]) -> bool:
        """Whether something is still to come for it: an entry that lets somebody in, or the answer to a load."""
        if isinstance(thing, Topic):
            return bool(self._seats_of(thing.awaits))
        return thing.loading is not None

    def next_deadline_ms(self) -> int | None:
        """When `tick` next has something to do; None: never by itself."""
        times = [next(iter(self._requests.values())).deadline_ms] if self._requests else []
        times += [self._resend_at_ms] if self._unsent else []
        times += self._replays.deadlines()
        times += [next(iter(self._reloads.values()))] if self._reloads else []
        for name in (*self._lingering, *self._retrying):
            thing = self._thing(name)
            if thing is not None:
                times += [at for at in (thing.linger_until_ms, thing.retry_at_ms) if at is not None]
        return min(times, default=None)

    # --- to be looked at -----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, int]:
        """Sizes now."""
        return {
            "sockets": len(self._seats),
            "ready": sum(seat.ready for seat in self._seats.values()),
            "users": len(self._users),
            "topics": len(self._topics),
            "requests": len(self._requests),
            "replays": len(self._replays),
            "held_frames": sum(len(topic.held) for topic in self._topics.values()),
            "dropped_typing": self._dropped,
        }

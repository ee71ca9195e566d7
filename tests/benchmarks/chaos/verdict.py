"""What the run has shown: was anything lost, doubled or out of order, and how long was nobody served. Pure.

The database's log is compared with what each sender was told and with what each device was shown. A device is one
client: its sockets come and go, and it resumes; what it hands to its program must be, in each conversation, every entry
that the log has for this user, each once and in order, from the device's start on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastsock.schemas.names import parse

EXPECTED_REFUSALS = frozenset({"not_a_member"})
"""Somebody may be removed from a room between deciding to speak and being heard; nothing else is refused for good."""
CUT_WITHIN_S = 5.0
"""A device whose socket ends so soon after a kill has lost it by that kill."""
SPOKEN_WITHIN_S = 1.0
"""Only conversations in which somebody spoke so soon after a kill say how long they were without service; in others
silence would be measured."""


# --- what happened -----------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One entry of the log, as the database has it at the end."""

    conversation: str
    seq: int
    id: int
    kind: str
    sender_id: int
    name: str
    """The ``client_msg_id`` or ``Idempotency-Key`` that the client gave."""
    target_id: int | None = None
    added: frozenset[int] = frozenset()
    removed: frozenset[int] = frozenset()


@dataclass(slots=True)
class Sent:
    """A message, or (``edit``) a change of one. Times are seconds of one monotonic clock."""

    name: str
    sender_id: int
    conversation: str
    sent_at: float
    edit: bool = False
    acked_at: float | None = None
    message_id: int | None = None
    """Of an acknowledged message; of an edit the message that it changes."""
    seq: int | None = None
    refused: str | None = None
    """The code; None: it was not."""


class Seen(NamedTuple):
    """An entry that a device was shown; ``id`` is the message's, None where the event has none."""

    conversation: str
    seq: int
    kind: str
    id: int | None


class Let(NamedTuple):
    """A device was told that a conversation ended for it, or is to be reloaded, when it stood at ``seq``."""

    conversation: str
    seq: int


@dataclass
class Device:
    """What one client was shown; ``heads`` are where its conversations stood when it started."""

    label: str
    user_id: int
    heads: dict[str, int] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    let: list[Let] = field(default_factory=list)
    ups: list[float] = field(default_factory=list)
    """When it had a socket and had caught up."""
    downs: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Kill:
    """Something was broken on purpose.

    ``conversations`` were served by it (None: all were), ``sockets`` and ``http`` say whether it served those.
    ``away_s`` is how long it was kept from coming back on purpose.
    """

    at: float
    kind: str
    victim: str
    conversations: frozenset[str] | None = frozenset()
    sockets: bool = False
    http: bool = False
    away_s: float = 0.0


class Request(NamedTuple):
    """An HTTP request that succeeded."""

    began: float
    ended: float


# --- nothing lost, nothing twice, nothing out of order --------------------------------------------------------------


@dataclass
class Verdict:
    """The sums, and everything that should not be; empty ``violations`` is what this is all about."""

    sent: int = 0
    acked: int = 0
    refused: int = 0
    stored: int = 0
    delivered: int = 0
    edits: int = 0
    entries: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    violations: list[str] = field(default_factory=list)


def judge(rows: Sequence[Row], sent: Sequence[Sent], devices: Sequence[Device]) -> Verdict:
    """Compare the log with what senders were told and devices were shown."""
    verdict = Verdict(entries=len(rows))
    _check_log(rows, verdict)
    _check_sent(rows, sent, verdict)
    log: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows):
        log[row.conversation].append(row)
    for device in devices:
        _check_device(log, device, verdict)
    return verdict


def _check_log(rows: Iterable[Row], verdict: Verdict) -> None:
    heads: dict[str, int] = {}
    for row in sorted(rows):
        head = heads.get(row.conversation, 0)
        if row.seq <= head:
            verdict.duplicated += 1
            verdict.violations.append(f"log: {row.conversation} has #{row.seq} twice")
        elif row.seq > head + 1:
            verdict.lost += row.seq - head - 1
            verdict.violations.append(f"log: {row.conversation} has #{row.seq} after #{head}")
        heads[row.conversation] = row.seq


def _check_sent(rows: Iterable[Row], sent: Iterable[Sent], verdict: Verdict) -> None:
    stored: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind in {"message", "edit"}:
            stored[row.sender_id, row.name].append(row)
    known = set()
    for one in sent:
        known.add((one.sender_id, one.name))
        found = stored.get((one.sender_id, one.name), [])
        verdict.edits += one.edit
        if not one.edit:
            verdict.sent += 1
            verdict.acked += one.acked_at is not None
            verdict.refused += one.refused is not None
            verdict.stored += len(found)
        if len(found) > 1:
            verdict.duplicated += len(found) - 1
            verdict.violations.append(f"{one.name} of user {one.sender_id} is stored {len(found)} times")
        if one.acked_at is not None:
            _check_acked(one, found, verdict)
        else:
            _check_unacked(one, found, verdict)
    for sender_id, name in sorted(stored.keys() - known):
        verdict.violations.append(f"{name} of user {sender_id} is stored, and nobody sent it")


def _check_acked(one: Sent, found: Sequence[Row], verdict: Verdict) -> None:
    who = f"{one.name} of user {one.sender_id}"
    if not found:
        verdict.lost += 1
        verdict.violations.append(f"{who} was acknowledged, and is not stored")
        return
    row = found[0]
    told = one.conversation, one.message_id, row.seq if one.seq is None else one.seq
    kept = row.conversation, row.target_id if one.edit else row.id, row.seq
    if told != kept:
        verdict.violations.append(f"{who} was acknowledged as {told}, and is stored as {kept}")


def _check_unacked(one: Sent, found: Sequence[Row], verdict: Verdict) -> None:
    who = f"{one.name} of user {one.sender_id}"
    if one.refused is None:
        verdict.violations.append(f"{who} was never answered")
    elif found:
        verdict.violations.append(f"{who} was refused ({one.refused}), and is stored")
    elif one.refused not in EXPECTED_REFUSALS:
        verdict.violations.append(f"{who} was refused: {one.refused}")


def shown_to(user_id: int, rows: Sequence[Row]) -> list[Row]:
    """What of one conversation's log is shown to this user, if they are there all the time."""
    parts = parse(rows[0].conversation)
    if parts.kind == "dm":
        return list(rows) if user_id in parts.ids else []
    shown, member = [], False
    for row in rows:
        member = member or user_id in row.added
        if member:
            shown.append(row)
        member = member and user_id not in row.removed
    return shown


def _check_device(log: Mapping[str, Sequence[Row]], device: Device, verdict: Verdict) -> None:
    seen: dict[str, list[Seen]] = defaultdict(list)
    for entry in device.seen:
        seen[entry.conversation].append(entry)
        verdict.delivered += entry.kind == "message"
    for conversation in sorted(log.keys() | seen.keys()):
        rows = shown_to(device.user_id, log[conversation]) if conversation in log else []
        expected = {row.seq: row for row in rows if row.seq > device.heads.get(conversation, 0)}
        place = f"{device.label}: {conversation}"
        last, had = 0, set()
        for entry in seen[conversation]:
            if entry.seq in had:
                verdict.duplicated += 1
                verdict.violations.append(f"{place} #{entry.seq} was shown twice")
            elif entry.seq < last:
                verdict.out_of_order += 1
                verdict.violations.append(f"{place} #{entry.seq} was shown after #{last}")
            last = max(last, entry.seq)
            had.add(entry.seq)
            _check_shown(place, entry, expected.get(entry.seq), verdict)
        missing = sorted(expected.keys() - had - _let_go(device, conversation, rows))
        if missing:
            verdict.lost += len(missing)
            verdict.violations.append(f"{place} {_ranges(missing)} of #{rows[-1].seq} was never shown")


def _check_shown(place: str, entry: Seen, row: Row | None, verdict: Verdict) -> None:
    if row is None:
        verdict.violations.append(f"{place} #{entry.seq} ({entry.kind}) was shown, and is not in the log for this user")
        return
    id_ = row.id if row.kind == "message" else row.target_id
    if (entry.kind, entry.id) != (row.kind, id_):
        verdict.violations.append(f"{place} #{entry.seq} was shown as {entry.kind} {entry.id}, and is {row.kind} {id_}")


def _let_go(device: Device, conversation: str, rows: Sequence[Row]) -> set[int]:
    """Entries that are not owed: who is away when they are removed learns that they were, not what was said until."""
    gone: set[int] = set()
    for let in device.let:
        if let.conversation == conversation:
            end = next((row.seq for row in rows if row.seq > let.seq and device.user_id in row.removed), let.seq)
            gone |= {row.seq for row in rows if let.seq < row.seq <= end}
    return gone


def _ranges(numbers: Sequence[int]) -> str:
    """``#3, #5-#7``, at most five of them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"#{first}" if first == last else f"#{first}-#{last}" for first, last in runs]
    return ", ".join(texts[:5]) + (" ..." if len(texts) > 5 else "")


# --- without service -----------------------------------------------------------------------------------------------


class Outage(NamedTuple):
    """How long a kill left people without service, seconds; None: nobody was touched by it.

    ``first_s``: until the first of those whom it touched was served. ``all_s``: until all of them were.
    """

    kill: Kill
    first_s: float | None
    all_s: float | None

    @property
    def ended(self) -> float:
        """When all were served and nothing was kept away any more, by the clock of `Kill.at`."""
        return self.kill.at + max(self.all_s or 0.0, self.kill.away_s)


def alone(outages: Sequence[Outage]) -> list[Outage]:
    """Those during which nothing else was broken: only they say how long their kind takes."""
    return [
        one
        for one in outages
        if not any(other is not one and other.kill.at <= one.ended and one.kill.at <= other.ended for other in outages)
    ]


def outage(kill: Kill, sent: Iterable[Sent], devices: Iterable[Device], requests: Iterable[Request]) -> Outage:
    """How long it took until what was sent *after* the kill, through what was killed, was acknowledged.

    For sockets: until devices that had lost theirs had another and had caught up. For HTTP: until a request that began
    after the kill succeeded. If it is about several of these, the slowest counts.
    """
    kinds = [_acks(kill, sent)]
    if kill.sockets:
        kinds.append(_sockets(kill, devices))
    if kill.http:
        kinds.append(sorted(request.ended for request in requests if request.began >= kill.at)[:1])
    waits = [[at - kill.at for at in times] for times in kinds if times]
    if not waits:
        return Outage(kill, None, None)
    return Outage(kill, max(map(min, waits)), max(map(max, waits)))


def _acks(kill: Kill, sent: Iterable[Sent]) -> list[float]:
    """For each conversation that the kill touched and that was spoken in just after it, when an ack came."""
    spoken: set[str] = set()
    answered: dict[str, float] = {}
    for one in sent:
        touched = kill.conversations is None or one.conversation in kill.conversations
        if one.edit or one.refused is not None or one.sent_at < kill.at or not touched:
            continue
        if one.sent_at < kill.at + SPOKEN_WITHIN_S:
            spoken.add(one.conversation)
        if one.acked_at is not None:
            answered[one.conversation] = min(one.acked_at, answered.get(one.conversation, one.acked_at))
    return [answered[conversation] for conversation in sorted(spoken & answered.keys())]


def _sockets(kill: Kill, devices: Iterable[Device]) -> list[float]:
    """For each device that lost its socket by the kill, when it had caught up on another."""
    back = []
    for device in devices:
        cut = next((at for at in device.downs if kill.at <= at < kill.at + CUT_WITHIN_S), None)
        if cut is not None:
            back += [at for at in device.ups if at > cut][:1]
    return back


def quantile(numbers: Sequence[float], share: float) -> float:
    """The number below which this share of them lies (nearest rank); 0 if there are none."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

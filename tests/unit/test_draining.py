"""A host that is about to be replaced: takes nothing, loses nothing, and hands over what it has."""

from __future__ import annotations

from actors.commands import Attach, Connect, Describe, Envelope, Send
from actors.link import Sender
from actors.placement import Placement
from actors.uplinks import Accepted, Behind, Stale, Uplinks
from fastsock.core.limits import RETRY_MIN_MS
from tests.unit.rig import Rig, answers, seqs

ROOM = "room:1"
PAIR = Placement(epoch=1, hosts=("h0", "h1"), pins={ROOM: "h0", "user:7": "h1"})


def rig_with_room(**options: object) -> Rig:
    made = Rig(**options)  # type: ignore[arg-type]
    made.log.create_room(1, 1, [2, 3])
    return made


def say(key: str) -> Send:
    return Send(1, f"c:{key}", "hi")


# --- taking nothing --------------------------------------------------------------------------------------------------


def test_a_host_that_drains_takes_no_batch_and_does_so_again_when_it_lives_on() -> None:
    rig = rig_with_room()
    rig.host.drain(rig.now_ms + 100)
    batch = 1, 1, [Envelope(ROOM, 1, say("a"))]
    assert rig.host.receive("g1", *batch, rig.now_ms) == Behind()
    assert rig.host.receive("g1", *batch, rig.now_ms + 99) == Behind()
    assert rig.settle("g1") == []
    assert isinstance(rig.host.receive("g1", *batch, rig.now_ms + 100), Accepted), "the same batch, not a repeated one"
    assert answers(rig.settle("g1"))[1]["seq"] == 2


def test_who_routes_by_an_older_placement_learns_the_newer_one_from_a_host_that_drains() -> None:
    rig = rig_with_room()
    rig.host.move(Placement(epoch=2, hosts=("h1",)), rig.now_ms)
    rig.host.drain(rig.now_ms + 100)
    assert rig.receive("g1", Envelope(ROOM, 1, say("a")), epoch=1) == Stale(Placement(epoch=2, hosts=("h1",)))


def test_a_gateway_still_gets_what_waits_for_it() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(1))
    request = rig.ask("g1", ROOM, say("a"))
    rig.host.drain(rig.now_ms + 1_000)
    deliveries = rig.settle("g1")
    assert seqs(deliveries, ROOM) == [2]
    assert answers(deliveries)[request]["seq"] == 2


# --- when it is done -------------------------------------------------------------------------------------------------


def test_a_host_has_drained_when_every_command_is_loaded_committed_and_polled() -> None:
    rig = rig_with_room()
    assert rig.host.drained()
    rig.ask("g1", ROOM, say("a"))
    rig.host.drain(rig.now_ms + 1_000)
    assert not rig.host.drained(), "it waits for its room"
    rig.load()
    assert not rig.host.drained(), "it waits for the log"
    rig.append()
    assert not rig.host.drained(), "its answer waits for the gateway"
    rig.poll("g1")
    assert rig.host.drained()


def test_a_refusal_that_may_be_a_repeat_is_waited_for() -> None:
    rig = rig_with_room()
    request = rig.ask("g1", ROOM, Send(9, "c:x", "not a member"))
    rig.load()
    assert not rig.host.drained()
    rig.recall()
    assert answers(rig.poll("g1")) == {request: "not_a_member"}
    assert rig.host.drained()


def test_what_another_host_is_told_is_waited_for() -> None:
    rig = rig_with_room(placement=Placement(epoch=1, hosts=("h0", "h1"), pins={ROOM: "h0", "dm:1:7": "h0"}))
    rig.log.create_room(2, 1, [2])
    rig.host.uplinks.submit(Envelope("user:7", 0, Describe()))
    (other,) = rig.host.uplinks.hosts
    assert not rig.host.drained()
    forward = rig.host.next_forward(other, rig.now_ms)
    assert forward is not None
    assert not rig.host.drained()
    rig.host.forwarded(other, forward[0].number, Accepted(""), rig.now_ms)
    assert rig.host.drained()


def test_what_lives_elsewhere_by_now_is_gone_before_a_host_has_drained() -> None:
    rig = rig_with_room()
    rig.tell("g1", ROOM, Attach(1))
    rig.tell("g1", "user:1", Connect("c1"))
    rig.ask("g1", ROOM, say("a"))
    rig.load()
    groups = rig.take()
    session = rig.session("g1")
    rig.host.move(Placement(epoch=2, hosts=("h1",)), rig.now_ms)
    assert not rig.host.drained()
    assert groups is not None
    rig.host.appended(0, rig.log.append(groups), rig.now_ms)
    rig.pass_time(10)
    forward = rig.host.next_forward("h1", rig.now_ms)
    assert forward is not None, "the gateways that are attached there are to read the log"
    rig.host.forwarded("h1", forward[0].number, Accepted(""), rig.now_ms)
    assert rig.host.drained()
    assert rig.session("g1") != session, "the gateway attaches anew, and is told where"
    assert [rig.host.stats()[kind] for kind in ("rooms", "users", "topics")] == [0, 0, 0]


# --- moving names away and back --------------------------------------------------------------------------------------


def test_names_come_back_to_a_host_that_was_away_and_pins_too() -> None:
    away = PAIR.with_hosts(("h1",))
    assert away == Placement(epoch=2, hosts=("h1",), pins={"user:7": "h1"})
    pinned = Placement(epoch=3, hosts=("h1",), pins={"user:7": "h1", "room:5": "h1"})
    back = pinned.with_hosts(("h1", "h0"), PAIR.pins)
    assert back == Placement(epoch=4, hosts=("h0", "h1"), pins={ROOM: "h0", "user:7": "h1", "room:5": "h1"})
    assert all(back.owner(name) == PAIR.owner(name) for name in (ROOM, "room:2", "user:7", "dm:1:2"))


# --- not waiting longer than need be ---------------------------------------------------------------------------------


def test_a_sender_that_is_told_that_the_other_end_works_tries_at_once() -> None:
    sender: Sender[str] = Sender(10)
    sender.offer("a", 1)
    batch = sender.take(0)
    sender.failed(1, 0)
    assert sender.take(RETRY_MIN_MS - 1) is None
    sender.retry_now()
    assert sender.take(RETRY_MIN_MS - 1) == batch
    sender.retry_now()
    assert sender.take(RETRY_MIN_MS) is None, "the call is under way"


def test_only_the_host_that_works_again_is_tried_at_once() -> None:
    links = Uplinks(PAIR)
    for name, host in ((ROOM, "h0"), ("user:7", "h1")):
        links.submit(Envelope(name, 0, Describe()))
        assert links.take(host, 0) is not None
        links.failed(host, 1, 0)
    links.retry_now("h0")
    links.retry_now("a host to which nothing was ever sent")
    assert links.take("h0", 1) is not None
    assert links.take("h1", 1) is None

"""The chaos program's verdict: it sees each kind of violation, and takes nothing for one that is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.chaos.plan import EVERY_S, KINDS, plan
from tests.benchmarks.chaos.verdict import (
    Device,
    Kill,
    Let,
    Outage,
    Request,
    Row,
    Seen,
    Sent,
    alone,
    judge,
    outage,
    quantile,
    shown_to,
)

ANN, BOB, EVE = 1, 2, 3
ROOM = "room:5"


def log() -> list[Row]:
    """Ann makes a room with Bob; two messages and a change of the first."""
    return [
        Row(ROOM, 1, 100, "created", ANN, "s:1", added=frozenset({ANN, BOB})),
        Row(ROOM, 2, 101, "message", ANN, "m1"),
        Row(ROOM, 3, 102, "message", BOB, "m2"),
        Row(ROOM, 4, 103, "edit", ANN, "e1", target_id=101),
    ]


def told() -> list[Sent]:
    """What the two were told about what they sent."""
    return [
        Sent("m1", ANN, ROOM, 10.0, acked_at=10.1, message_id=101, seq=2),
        Sent("m2", BOB, ROOM, 11.0, acked_at=11.1, message_id=102, seq=3),
        Sent("e1", ANN, ROOM, 12.0, edit=True, acked_at=12.1, message_id=101),
    ]


def shown(*leave_out: int) -> Device:
    """A device of Bob's that was shown everything but these."""
    entries = [Seen(row.conversation, row.seq, row.kind, row.target_id or row.id) for row in log()]
    entries[0] = entries[0]._replace(id=None)
    return Device("bob", BOB, seen=[entry for entry in entries if entry.seq not in leave_out])


def test_a_clean_run_has_no_violation_and_is_counted() -> None:
    verdict = judge(log(), told(), [shown()])
    assert verdict.violations == []
    assert (verdict.sent, verdict.acked, verdict.stored, verdict.delivered) == (2, 2, 2, 2)
    assert (verdict.edits, verdict.entries) == (1, 4)
    assert (verdict.lost, verdict.duplicated, verdict.out_of_order) == (0, 0, 0)


# --- the log -------------------------------------------------------------------------------------------------------


def test_a_hole_in_the_log_is_seen() -> None:
    rows = [row for row in log() if row.seq != 3]
    verdict = judge(rows, [one for one in told() if one.name != "m2"], [shown(3)])
    assert verdict.violations == ["log: room:5 has #4 after #2"]
    assert verdict.lost == 1


def test_a_number_given_twice_is_seen() -> None:
    rows = [*log(), Row(ROOM, 4, 104, "message", ANN, "m3")]
    sent = [*told(), Sent("m3", ANN, ROOM, 13.0, acked_at=13.1, message_id=104, seq=4)]
    assert "log: room:5 has #4 twice" in judge(rows, sent, []).violations


def test_a_message_stored_twice_is_seen() -> None:
    verdict = judge([*log(), Row(ROOM, 5, 104, "message", ANN, "m1")], told(), [])
    assert verdict.violations == ["m1 of user 1 is stored 2 times"]
    assert verdict.duplicated == 1


def test_two_users_may_use_the_same_name() -> None:
    rows = [*log(), Row(ROOM, 5, 104, "message", BOB, "m1")]
    sent = [*told(), Sent("m1", BOB, ROOM, 13.0, acked_at=13.1, message_id=104, seq=5)]
    assert judge(rows, sent, []).violations == []


def test_a_message_that_nobody_sent_is_seen() -> None:
    verdict = judge([*log(), Row(ROOM, 5, 104, "message", ANN, "m9")], told(), [])
    assert verdict.violations == ["m9 of user 1 is stored, and nobody sent it"]


# --- what senders were told ----------------------------------------------------------------------------------------


def test_an_acknowledged_message_that_is_not_stored_is_lost() -> None:
    sent = [*told(), Sent("m3", ANN, ROOM, 13.0, acked_at=13.1, message_id=104, seq=5)]
    verdict = judge(log(), sent, [shown()])
    assert verdict.violations == ["m3 of user 1 was acknowledged, and is not stored"]
    assert verdict.lost == 1


def test_an_acknowledged_change_that_is_not_stored_is_lost() -> None:
    sent = [*told(), Sent("e2", ANN, ROOM, 13.0, edit=True, acked_at=13.1, message_id=101)]
    verdict = judge(log(), sent, [])
    assert verdict.violations == ["e2 of user 1 was acknowledged, and is not stored"]
    assert verdict.lost == 1


@pytest.mark.parametrize(
    ("wrong", "as_told"),
    [
        ({"seq": 3}, "('room:5', 101, 3)"),
        ({"message_id": 7}, "('room:5', 7, 2)"),
        ({"conversation": "dm:1:2"}, "('dm:1:2', 101, 2)"),
    ],
)
def test_an_ack_that_says_something_else_is_seen(wrong: dict[str, object], as_told: str) -> None:
    first, *rest = told()
    sent = [replace(first, **wrong), *rest]  # type: ignore[arg-type]
    verdict = judge(log(), sent, [])
    assert verdict.violations == [f"m1 of user 1 was acknowledged as {as_told}, and is stored as ('room:5', 101, 2)"]


def test_a_message_without_any_answer_is_seen() -> None:
    verdict = judge(log(), [*told(), Sent("m3", ANN, ROOM, 13.0)], [])
    assert verdict.violations == ["m3 of user 1 was never answered"]


def test_a_refused_message_that_is_stored_is_seen() -> None:
    first, *rest = told()
    sent = [replace(first, acked_at=None, refused="not_a_member"), *rest]
    assert judge(log(), sent, []).violations == ["m1 of user 1 was refused (not_a_member), and is stored"]


def test_only_those_who_were_removed_may_be_refused() -> None:
    sent = [*told(), Sent("m3", EVE, ROOM, 13.0, refused="not_a_member")]
    verdict = judge(log(), sent, [])
    assert (verdict.violations, verdict.refused) == ([], 1)
    sent[-1].refused = "internal"
    assert judge(log(), sent, []).violations == ["m3 of user 3 was refused: internal"]


# --- what devices were shown -----------------------------------------------------------------------------------------


def test_an_entry_that_was_never_shown_is_lost() -> None:
    verdict = judge(log(), told(), [shown(2, 3)])
    assert verdict.violations == ["bob: room:5 #2-#3 of #4 was never shown"]
    assert verdict.lost == 2


def test_a_device_that_was_shown_nothing_is_seen() -> None:
    assert judge(log(), told(), [Device("bob", BOB)]).lost == 4


def test_an_entry_that_was_shown_twice_is_seen() -> None:
    device = shown()
    device.seen.append(device.seen[-1])
    verdict = judge(log(), told(), [device])
    assert verdict.violations == ["bob: room:5 #4 was shown twice"]
    assert (verdict.duplicated, verdict.out_of_order) == (1, 0)


def test_an_entry_that_came_too_late_is_seen() -> None:
    device = shown()
    device.seen[1], device.seen[2] = device.seen[2], device.seen[1]
    verdict = judge(log(), told(), [device])
    assert verdict.violations == ["bob: room:5 #2 was shown after #3"]
    assert (verdict.duplicated, verdict.out_of_order) == (0, 1)


def test_conversations_have_each_their_own_order() -> None:
    rows = [*log(), Row("dm:1:2", 1, 104, "message", ANN, "m3")]
    sent = [*told(), Sent("m3", ANN, "dm:1:2", 13.0, acked_at=13.1, message_id=104, seq=1)]
    device = shown()
    device.seen.insert(2, Seen("dm:1:2", 1, "message", 104))
    assert judge(rows, sent, [device]).violations == []


def test_an_entry_that_was_never_committed_is_seen() -> None:
    device = shown()
    device.seen.append(Seen(ROOM, 5, "message", 999))
    verdict = judge(log(), told(), [device])
    assert verdict.violations == ["bob: room:5 #5 (message) was shown, and is not in the log for this user"]


def test_who_is_no_member_must_be_shown_nothing() -> None:
    device = Device("eve", EVE, seen=[Seen(ROOM, 2, "message", 101)])
    verdict = judge(log(), told(), [device])
    assert verdict.violations == ["eve: room:5 #2 (message) was shown, and is not in the log for this user"]


def test_an_entry_that_was_shown_as_another_one_is_seen() -> None:
    device = shown()
    device.seen[1] = device.seen[1]._replace(id=999)
    verdict = judge(log(), told(), [device])
    assert verdict.violations == ["bob: room:5 #2 was shown as message 999, and is message 101"]


def test_a_device_is_owed_what_came_after_it_started() -> None:
    device = shown(1, 2)
    device.heads = {ROOM: 2}
    assert judge(log(), told(), [device]).violations == []
    device.heads = {ROOM: 1}
    assert judge(log(), told(), [device]).violations == ["bob: room:5 #2 of #4 was never shown"]


# --- who comes and goes ----------------------------------------------------------------------------------------------


def coming_and_going() -> list[Row]:
    """Eve is added with the second entry, removed with the fourth, and added again with the sixth."""
    eve = frozenset({EVE})
    return [
        Row(ROOM, 1, 100, "created", ANN, "s:1", added=frozenset({ANN, BOB})),
        Row(ROOM, 2, 101, "joined", ANN, "k1", added=eve),
        Row(ROOM, 3, 102, "joined", ANN, "k2", added=frozenset({4})),
        Row(ROOM, 4, 103, "left", ANN, "k3", removed=eve),
        Row(ROOM, 5, 104, "left", ANN, "k4", removed=frozenset({4})),
        Row(ROOM, 6, 105, "joined", ANN, "k5", added=eve),
        Row(ROOM, 7, 106, "joined", ANN, "k6", added=frozenset({4})),
    ]


def eve_saw(*seqs: int) -> Device:
    kinds = {row.seq: row.kind for row in coming_and_going()}
    return Device("eve", EVE, seen=[Seen(ROOM, seq, kinds[seq], None) for seq in seqs])


def test_members_are_owed_what_happens_while_they_are_members() -> None:
    assert [row.seq for row in shown_to(EVE, coming_and_going())] == [2, 3, 4, 6, 7]
    assert judge(coming_and_going(), [], [eve_saw(2, 3, 4, 6, 7)]).violations == []


def test_what_happens_between_is_not_for_them() -> None:
    verdict = judge(coming_and_going(), [], [eve_saw(2, 3, 4, 5, 6, 7)])
    assert verdict.violations == ["eve: room:5 #5 (left) was shown, and is not in the log for this user"]


def test_who_is_away_when_removed_is_told_that_and_no_more() -> None:
    device = eve_saw(2, 6, 7)
    assert judge(coming_and_going(), [], [device]).lost == 2
    device.let.append(Let(ROOM, 2))
    assert judge(coming_and_going(), [], [device]).violations == []


def test_to_be_told_to_reload_excuses_nothing_where_nobody_was_removed() -> None:
    device = shown(3)
    device.let.append(Let(ROOM, 2))
    assert judge(log(), told(), [device]).violations == ["bob: room:5 #3 of #4 was never shown"]


# --- without service -------------------------------------------------------------------------------------------------


def message(conversation: str, sent_at: float, acked_at: float | None) -> Sent:
    return Sent(f"{conversation} {sent_at}", ANN, conversation, sent_at, acked_at=acked_at)


def test_service_is_back_with_the_first_ack_of_what_was_sent_after_the_kill() -> None:
    kill = Kill(100.0, "host", "host-0", frozenset({"room:1", "room:2"}))
    sent = [
        message("room:1", 99.0, 101.0),  # sent before
        message("room:1", 100.5, 103.0),
        message("room:1", 101.0, 102.5),
        message("room:2", 100.2, 104.0),
        message("room:3", 100.1, 100.2),  # on another host
    ]
    assert outage(kill, sent, [], []) == Outage(kill, 2.5, 4.0)


def test_silence_is_not_an_outage() -> None:
    kill = Kill(100.0, "host", "host-0", frozenset({"room:1", "room:2"}))
    sent = [message("room:1", 100.5, 101.0), message("room:2", 130.0, 130.1)]
    assert outage(kill, sent, [], []) == Outage(kill, 1.0, 1.0)


def test_a_kill_that_touched_nobody_has_no_outage() -> None:
    kill = Kill(100.0, "host", "host-0", frozenset())
    assert outage(kill, [message("room:1", 100.5, 101.0)], [], []) == Outage(kill, None, None)


def test_sockets_are_back_when_those_who_lost_theirs_have_caught_up() -> None:
    kill = Kill(100.0, "gateway", "gateway-0", sockets=True)
    devices = [
        Device("one", 1, ups=[10.0, 101.5], downs=[100.1]),
        Device("two", 2, ups=[10.0, 104.0, 120.0], downs=[100.1, 119.0]),
        Device("elsewhere", 3, ups=[10.0, 111.0], downs=[110.0]),
    ]
    assert outage(kill, [], devices, []) == Outage(kill, 1.5, 4.0)


def test_http_is_back_with_the_first_answer_to_a_request_that_began_after() -> None:
    kill = Kill(100.0, "api", "api-0", http=True)
    requests = [Request(99.0, 100.5), Request(100.2, 106.0), Request(101.0, 105.0)]
    assert outage(kill, [], [], requests) == Outage(kill, 5.0, 5.0)


def test_without_a_request_nothing_is_known_about_http() -> None:
    kill = Kill(100.0, "api", "api-0", http=True)
    assert outage(kill, [], [], [Request(99.0, 100.5)]) == Outage(kill, None, None)


def test_a_kill_of_several_things_lasts_as_long_as_the_slowest() -> None:
    kill = Kill(100.0, "node", "node-1", None, sockets=True, http=True)
    sent = [message("room:1", 100.5, 103.0)]
    devices = [Device("one", 1, ups=[107.0], downs=[100.1])]
    assert outage(kill, sent, devices, [Request(100.2, 102.0)]) == Outage(kill, 7.0, 7.0)


def test_kills_that_overlap_say_nothing_about_their_kinds() -> None:
    one = Outage(Kill(100.0, "host", "host-0"), 2.0, 3.0)
    during = Outage(Kill(102.9, "gateway", "gateway-0"), 1.0, 1.0)
    later = Outage(Kill(110.0, "host", "host-1"), 2.0, 3.0)
    kept_away = Outage(Kill(120.0, "postgres-stop", "PostgreSQL", None, away_s=5.0), 1.0, 1.0)
    untouched = Outage(Kill(124.0, "api", "api-0", http=True), None, None)
    assert alone([one, during, later]) == [later]
    assert alone([later, kept_away, untouched]) == [later]
    assert alone([later, kept_away]) == [later, kept_away]


@pytest.mark.parametrize(("share", "number"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_quantiles(share: float, number: int) -> None:
    assert quantile(list(range(100, 0, -1)), share) == number
    assert quantile([], share) == 0.0


# --- the plan --------------------------------------------------------------------------------------------------------


def test_a_plan_is_its_seed_and_has_every_kind() -> None:
    strikes = plan(1, 600.0, EVERY_S, list(KINDS))
    assert strikes == plan(1, 600.0, EVERY_S, list(KINDS))
    assert strikes != plan(2, 600.0, EVERY_S, list(KINDS))
    assert {strike.kind for strike in strikes} == set(KINDS)
    assert all(0 < strike.at_s < 600.0 for strike in strikes)


@pytest.mark.parametrize("seed", range(1, 6))
def test_ten_minutes_have_sixty_strikes(seed: int) -> None:
    assert len(plan(seed, 597.0, EVERY_S, list(KINDS))) >= 60

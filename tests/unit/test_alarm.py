"""The earliest of the times that were set, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from actors.runtime.alarm import Alarm


class Timer:
    def __init__(self, pause_s: float, call: Callable[[], None]) -> None:
        self.pause_s, self.call, self.cancelled = pause_s, call, False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[Timer]:
    """What `Alarm` has asked the event loop for."""
    asked: list[Timer] = []

    class Loop:
        @staticmethod
        def call_later(pause_s: float, call: Callable[[], None]) -> Timer:
            asked.append(Timer(pause_s, call))
            return asked[-1]

    monkeypatch.setattr(asyncio, "get_running_loop", Loop)
    return asked


def test_it_goes_off_at_the_earliest_time(timers: list[Timer]) -> None:
    rung: list[str] = []
    alarm = Alarm(lambda: rung.append("now"))
    alarm.set(None, 1_000)
    alarm.set(1_040, 1_000)
    alarm.set(1_050, 1_001)
    alarm.set(1_010, 1_002)
    assert [(timer.pause_s, timer.cancelled) for timer in timers] == [(0.04, True), (0.008, False)]
    timers[-1].call()
    assert rung == ["now"]
    alarm.set(1_050, 1_010)
    assert timers[-1].pause_s == pytest.approx(0.04)


def test_what_is_due_already_comes_in_a_millisecond(timers: list[Timer]) -> None:
    Alarm(lambda: None).set(0, 1_000)
    assert timers[0].pause_s == pytest.approx(0.001)


def test_it_can_be_stopped_and_set_again(timers: list[Timer]) -> None:
    alarm = Alarm(lambda: None)
    alarm.stop()
    alarm.set(1_010, 1_000)
    alarm.stop()
    assert timers[0].cancelled
    alarm.set(1_020, 1_000)
    assert not timers[1].cancelled

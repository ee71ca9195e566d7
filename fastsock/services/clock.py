"""The one place where services get the time from, so that tests can give them another."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Milliseconds since 1970 UTC."""


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000

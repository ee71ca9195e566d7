"""When to come back: pauses with full jitter, and what each close code asks for.

Full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the n-th pause is uniform
between 0 and min(cap, base * 2^n). It spreads the clients of a server that has died better than a fixed part with a
random part on top.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

Random = Callable[[], float]
"""A random number from 0 to below 1, as `random.random` gives it."""


class Return(Enum):
    """Whether to come back."""

    AGAIN = "again"
    NEW_TOKEN = "with a new token"  # noqa: S105 - no secret
    LONG_PAUSE = "after a long pause"
    NEVER = "never"


class Meaning(NamedTuple):
    """What a close code asks for; the pause is that of the ``least`` failed try or of a later one."""

    comes: Return
    least: int = 0


CLOSE_CODES: dict[int, Meaning] = {
    1001: Meaning(Return.AGAIN, 3),  # everybody of this gateway comes at once: spread over 2 s
    1006: Meaning(Return.AGAIN),  # no close frame: the connection broke, or could not be made
    1008: Meaning(Return.NEW_TOKEN),
    1012: Meaning(Return.AGAIN, 3),
    1013: Meaning(Return.AGAIN, 3),  # full: it will not be better in a moment
    4001: Meaning(Return.NEW_TOKEN),
    4002: Meaning(Return.NEVER),  # revoked
    4003: Meaning(Return.NEVER),  # replaced, or too many connections: coming back would cut another of this user's
    4008: Meaning(Return.AGAIN),  # too slow: the resume brings what is missing
    4029: Meaning(Return.LONG_PAUSE),
    4500: Meaning(Return.AGAIN, 2),
}
"""Other codes are as 1006."""


def meaning_of(code: int) -> Meaning:
    """What a close code asks for."""
    return CLOSE_CODES.get(code, CLOSE_CODES[1006])


def full_jitter_ms(tries: int, base_ms: int, cap_ms: int, random: Random) -> int:
    """The pause after ``tries`` failures before this one (0: the first), milliseconds."""
    return int(random() * min(cap_ms, base_ms * 2 ** min(tries, 30)))

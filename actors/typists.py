"""Who is typing in one conversation, as far as the others have been told.

State in memory and nowhere else: it is lost with its activation, and so is what was dropped on the way. So whoever is
shown ``typing.start`` stops showing it after `TYPING_EXPIRES_MS` without another, whatever else does or does not come.
"""

from __future__ import annotations

from fastsock.core.limits import MAX_TYPISTS, TYPING_EXPIRES_MS, TYPING_REPEAT_MS

_NEVER = 0, -TYPING_REPEAT_MS


class Typists:
    """At most `MAX_TYPISTS` people, and until when each counts as typing unless it is said again.

    Every ``now_ms`` is milliseconds since 1970 UTC and never goes back.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}
        """Until when, and when the others were told last; in the order in which they end."""

    def __len__(self) -> int:
        return len(self._known)

    def start(self, user: int, now_ms: int) -> bool:
        """``user`` is typing; whether the others are to be told."""
        if user not in self._known and len(self) >= MAX_TYPISTS:
            return False
        _, told_ms = self._known.pop(user, _NEVER)
        repeated = now_ms < told_ms + TYPING_REPEAT_MS
        self._known[user] = now_ms + TYPING_EXPIRES_MS, told_ms if repeated else now_ms
        return not repeated

    def stop(self, user: int) -> bool:
        """``user`` no longer is; whether the others are to be told: only of what they were told to have begun."""
        return self._known.pop(user, None) is not None

    def expire(self, now_ms: int) -> list[int]:
        """Take out those who have not said it again for too long."""
        over = [user for user, (until_ms, _) in self._known.items() if until_ms <= now_ms]
        for user in over:
            del self._known[user]
        return over

    def expires_at_ms(self) -> int | None:
        """When the next one ends; None if nobody is typing."""
        return next((until_ms for until_ms, _ in self._known.values()), None)

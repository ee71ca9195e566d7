"""The one clock of a process: wall time that never goes back.

Timestamps are for people, so they start from the wall; intervals must not jump when the wall is set, so from there on
the monotonic clock counts. A machine whose clock is corrected shows it in new processes only.
"""

from __future__ import annotations

import time

_OFFSET_NS = time.time_ns() - time.monotonic_ns()


def now_ms() -> int:
    """Milliseconds since 1970 UTC, never less than before in this process."""
    return (time.monotonic_ns() + _OFFSET_NS) // 1_000_000

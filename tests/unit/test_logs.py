"""Lines of the log, compared with structlog's own."""

from __future__ import annotations

import sys
from typing import Any

import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from fastsock.core.logs import Console

AT = "2027-01-15T08:00:00.123456Z"
ours = Console()
theirs = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

keys = st.text("abcdefgh_", min_size=1)
values = st.text() | st.integers() | st.none() | st.booleans() | st.floats() | st.lists(st.text()) | st.binary()
levels = st.sampled_from(["debug", "info", "warning", "error", "critical"])
events = st.text() | st.integers() | st.none()


@given(event=events, level=levels, fields=st.dictionaries(keys, values))
@example(event="socket opened", level="info", fields={"connection_id": "c1", "user_id": 7, "error": "it's = 2"})
@example(event="nothing", level="error", fields={"last": ""})
@example(event="x" * 31, level="info", fields={})
def test_a_line_is_what_structlog_makes_of_it(event: object, level: str, fields: dict[str, Any]) -> None:
    about = {"event": event, "level": level, "timestamp": AT, **fields}
    assert ours(None, level, dict(about)) == theirs(None, level, dict(about))


def test_a_line_to_the_letter() -> None:
    about = {"user_id": 7, "connection_id": "c1", "reason": "too fast", "event": "socket ended", "level": "info"}
    line = f"{AT} [info     ] socket ended                   connection_id=c1 reason='too fast' user_id=7"
    assert ours(None, "info", {**about, "timestamp": AT}) == line


def test_an_exception_is_shown_without_what_was_in_its_variables() -> None:
    def fail(written: str) -> int:
        return int("none" * len(written[:1]))

    try:
        fail("what somebody wrote")
    except ValueError:
        shown = ours(None, "error", {"event": "failed", "level": "error", "timestamp": AT, "exc_info": sys.exc_info()})
    assert shown.startswith(f"{AT} [error    ] failed")
    assert "Traceback (most recent call last)" in shown
    assert "in fail" in shown
    assert "written = " not in shown
    assert shown.rstrip().endswith("invalid literal for int() with base 10: 'none'")

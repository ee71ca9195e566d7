"""Logs that an operator can grep: one event a line, with ids as fields, never with content or credentials.

A gateway writes two lines for each socket, so those of the console are put together here: 9.4 us a line; 15.5 us with
structlog's own renderer, and with its context variables, of which there are none.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

_EVENT_CHARS = 30
_LEVEL_CHARS = len("exception")
_QUOTED = frozenset(" \t=\r\n\"'")
_UNUSUAL = frozenset({"stack", "exception", "exc_info", "logger", "logger_name"})


def configure(level: str, log_format: Literal["console", "json"]) -> None:
    """Set up structlog for this process: to standard error, times in UTC. May be called again."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if log_format == "json" else Console()
    exceptions = [structlog.processors.format_exc_info] if log_format == "json" else []
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *exceptions,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


class Console:
    """Renders as structlog's ``ConsoleRenderer`` without colours does, to the letter; exceptions it leaves to that."""

    def __init__(self) -> None:
        # rich's tracebacks, the default, would show local variables: passwords, and what people wrote
        self._renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

    def __call__(self, logger: object, name: str, event_dict: structlog.typing.EventDict) -> str:
        if not _UNUSUAL.isdisjoint(event_dict):
            return self._renderer(logger, name, event_dict)
        level, event = event_dict.pop("level"), str(event_dict.pop("event"))
        about = f"{event_dict.pop('timestamp')} [{level:{_LEVEL_CHARS}}] {event:{_EVENT_CHARS}}"
        fields = [f"{key}={_shown(event_dict[key])}" for key in sorted(event_dict)]
        return " ".join([about, *fields]).rstrip(" ")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and _QUOTED.isdisjoint(value) else repr(value)

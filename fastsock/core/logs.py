"""Logs that an operator can grep: one event a line, with ids as fields, never with content or credentials."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure(level: str, log_format: Literal["console", "json"]) -> None:
    """Set up structlog for this process: to standard error, times in UTC. May be called again."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        # rich's tracebacks, the default, would show local variables: passwords, and what people wrote
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
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

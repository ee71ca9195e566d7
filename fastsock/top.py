"""``fastsock top`` and ``fastsock inspect``: what the running system is doing, as tables for people."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from fastsock.core.errors import error_of
from fastsock.schemas import names

if TYPE_CHECKING:
    from rich.console import RenderableType

Survey = dict[str, list[dict[str, Any]]]

HOST_COLUMNS = {
    "host": "host",
    "rooms": "rooms",
    "dms": "dms",
    "users": "users online",
    "topics": "topics",
    "gateways": "peers",
    "entries": "entries/s",
    "frames": "frames/s",
    "entries_waiting": "to the log",
    "deliveries_waiting": "to gateways",
    "forwards_waiting": "to hosts",
    "loading": "loading",
    "fenced": "fenced",
}
GATEWAY_COLUMNS = {
    "gateway": "gateway",
    "sockets": "sockets",
    "users": "users",
    "topics": "topics",
    "frames_in": "frames in/s",
    "frames_out": "frames out/s",
    "requests": "open requests",
    "uplink_waiting": "to hosts",
    "outbox_bytes": "outbox bytes",
}
WRITER_COLUMNS = {
    "writer": "writer",
    "commits": "commits/s",
    "entries": "entries/s",
    "entries_waiting": "waiting",
    "failed_commits": "failed commits",
}
RATES = frozenset({"entries", "frames", "frames_in", "frames_out", "commits"})
"""Counts since the start, shown as what they grow by in a second."""


def top(instance: dict[str, Any], interval_s: float, *, once: bool) -> None:
    """Show a live table until Ctrl-C, or one measured over ``interval_s`` seconds with ``once``.

    ``instance`` is what the running server wrote down: ``ray_address``, ``hosts``, ``writers``.

    Raises:
        RetryableError: ``actor_unavailable``, nothing answers there.

    """
    from actors.runtime import inspection  # noqa: PLC0415 - Ray takes a second to import

    inspection.connect(str(instance["ray_address"]))
    try:
        before, before_s = inspection.survey(instance["hosts"], instance["writers"]), time.monotonic()
        console = Console()
        with Live(console=console, auto_refresh=False, transient=once) as live:
            while True:
                time.sleep(interval_s)
                now, now_s = inspection.survey(instance["hosts"], instance["writers"]), time.monotonic()
                picture = render(before, now, now_s - before_s)
                before, before_s = now, now_s
                if once:
                    break
                live.update(picture, refresh=True)
        console.print(picture)
    except KeyboardInterrupt:
        pass  # how one leaves a live table
    finally:
        inspection.disconnect()


def render(before: Survey, now: Survey, seconds: float) -> RenderableType:
    """The tables: sizes as they are now, counts as what they grew by per second."""
    return Group(
        _table("hosts", HOST_COLUMNS, before["hosts"], now["hosts"], seconds),
        _table("gateways", GATEWAY_COLUMNS, before["gateways"], now["gateways"], seconds),
        _table("persistence", WRITER_COLUMNS, before["writers"], now["writers"], seconds),
    )


def _table(
    title: str, columns: dict[str, str], before: list[dict[str, Any]], now: list[dict[str, Any]], seconds: float
) -> Table:
    key = next(iter(columns))
    table = Table(title=title, title_justify="left", expand=True)
    for field, heading in columns.items():
        table.add_column(heading, justify="left" if field == key else "right")
    old = {row[key]: row for row in before}
    for row in now:
        if "error" in row:
            table.add_row(row[key], f"[red]{row['error']}[/red]")
            continue
        cells = []
        for field in columns:
            value = row.get(field, 0)
            if field in RATES:
                value = round((value - old.get(row[key], {}).get(field, value)) / seconds)
            cells.append(f"{value:,}" if isinstance(value, int) else str(value))
        table.add_row(*cells)
    return table


def inspect(instance: dict[str, Any], name: str) -> None:
    """Show one actor's state as JSON.

    Raises:
        FastSockError: ``invalid_data``, not a name; ``actor_unavailable``, nothing answers.

    """
    try:
        names.parse(name)
    except ValueError as error:
        raise error_of("invalid_data", str(error)) from None
    from actors.runtime import inspection  # noqa: PLC0415 - Ray takes a second to import

    inspection.connect(str(instance["ray_address"]))
    try:
        state = inspection.inspect(name, inspection.placement())
    finally:
        inspection.disconnect()
    Console().print_json(json.dumps(state))

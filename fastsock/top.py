"""``fastsock top`` and ``fastsock inspect``: what the running system is doing, as tables for people."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rich import box
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
    "users": "users",
    "topics": "topics",
    "entries": "msg/s",
    "frames": "out/s",
    "entries_waiting": "to log",
    "deliveries_waiting": "down",
    "forwards_waiting": "across",
}
GATEWAY_COLUMNS = {
    "gateway": "gateway",
    "sockets": "sockets",
    "users": "users",
    "topics": "topics",
    "asked": "in/s",
    "frames_out": "out/s",
    "requests": "asking",
    "uplink_waiting": "up",
    "outbox_bytes": "unsent B",
}
WRITER_COLUMNS = {
    "writer": "writer",
    "commits": "commits/s",
    "entries": "msg/s",
    "entries_waiting": "queue",
    "failed_commits": "failed",
}
NAME_CHARS = 14
"""Of a process's name: enough to tell one from another, in 80 columns."""
RATES = frozenset({"entries", "frames", "asked", "frames_out", "commits"})
"""Counts since the start, shown as what they grow by in a second."""


def top(instance: dict[str, Any], interval_s: float, *, once: bool, as_json: bool = False) -> None:
    """Show a live table until Ctrl-C, or one measured over ``interval_s`` seconds with ``once``.

    With ``as_json`` print every figure as it stands, at once, for programs.

    ``instance`` is what the running server wrote down: ``ray_address``, ``hosts``, ``writers``.

    Raises:
        RetryableError: ``actor_unavailable``, nothing answers there.

    """
    from actors.runtime import inspection  # noqa: PLC0415 - Ray takes a second to import

    inspection.connect(str(instance["ray_address"]))
    try:
        if as_json:
            Console().print_json(json.dumps(inspection.survey(instance["hosts"], instance["writers"])))
            return
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
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for field, heading in columns.items():
        table.add_column(heading, justify="left" if field == key else "right", no_wrap=True)
    old = {row[key]: row for row in before}
    for row in now:
        if "error" in row:
            table.add_row(str(row[key]).removeprefix("fastsock-")[:NAME_CHARS], f"[red]{row['error']}[/red]")
            continue
        cells = [str(row[key]).removeprefix("fastsock-")[:NAME_CHARS]]
        for field in list(columns)[1:]:
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

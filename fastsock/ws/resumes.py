"""What a resume needs of the database: how a user stands to their conversations, and pages of the log.

The pure gateway decides what is to be read (`actors.replays`); here it is read, for many sockets at once, and made into
frames. A page is encoded in one go, some 2 ms, and the event loop turns between two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from actors import gateway as gw
from fastsock.core.errors import error_of
from fastsock.core.limits import RETRY_AFTER_MS
from fastsock.schemas import events
from fastsock.schemas.frames import frame_of
from fastsock.schemas.log import Entry, Standing, Subscription
from fastsock.ws.connection import TaskOwner
from fastsock.ws.loader import Loader
from fastsock.ws.socket import Socket

EVENT = "session.resume"
MAX_STANDINGS = 200
"""Users of one read."""
MAX_PAGES = 4
"""Pages of one read: some 800 entries, 38 MB if all of them are as large as can be."""

Page = tuple[str, int, int]
"""Conversation, the number before the page, and its last."""


class Reads(Protocol):
    """What a gateway reads from the database. Any exception means: not now."""

    async def subscriptions(self, user_ids: Sequence[int]) -> dict[int, list[Subscription]]:
        """The memberships of each user."""
        ...

    async def standings(self, user_ids: Sequence[int]) -> dict[int, Standing]:
        """How each user stands to their conversations."""
        ...

    async def pages(self, wanted: Sequence[Page]) -> dict[Page, list[Entry]]:
        """The entries of each page, in order."""
        ...


class Resumes:
    """The resumes of one gateway. ``perform`` carries out what the gateway wants done."""

    def __init__(
        self,
        gateway: gw.Gateway[Socket],
        reads: Reads,
        tasks: TaskOwner,
        perform: Callable[[list[gw.Output[Socket]]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._gateway = gateway
        self._perform = perform
        self._now_ms = now_ms
        self._asked: dict[str, tuple[Socket, dict[str, int]]] = {}
        self._standings = Loader(
            "standings", _standings(reads), MAX_STANDINGS, tasks, self._stands, self._standing_unknown
        )
        self._pages = Loader("pages", _pages(reads), MAX_PAGES, tasks, self._page, self._no_page)
        self._begun = 0
        self._done = 0
        self._fed = 0

    def begin(self, socket: Socket, wanted: dict[str, int]) -> None:
        """The socket asks for a resume: what it has missed is written to it, then ``session.resumed``."""
        if not self._gateway.resuming(socket):
            error = error_of("resume_under_way", "a resume of this socket is under way", RETRY_AFTER_MS)
            socket.connection.write(events.error_frame(error, EVENT))
            return
        self._begun += 1
        self._asked[socket.connection_id] = socket, wanted
        self._standings.want((socket.user_id, socket.connection_id))

    def do(self, output: gw.Feed[Socket] | gw.ReadPage | gw.Resumed[Socket]) -> None:
        """Carry out what the gateway wants done for a resume."""
        match output:
            case gw.ReadPage(conversation, since, upto):
                self._pages.want((conversation, since, upto))
            case gw.Feed(socket, payloads):
                self._fed += len(payloads)
                socket.connection.feed(payloads, lambda: self._perform(self._gateway.fed(socket)))
            case gw.Resumed(socket, standing, reached, oldest, left):
                self._done += 1
                assert isinstance(standing, Standing), "it was handed to the gateway as the context"
                frame = events.resumed_frame(socket.user_id, reached, oldest, left, standing.markers)
                socket.connection.write(frame)

    def stats(self) -> dict[str, int]:
        waiting = {"standings_waiting": len(self._standings), "pages_waiting": len(self._pages)}
        begun = {"resumes_begun": self._begun, "resumes_done": self._done, "replayed": self._fed}
        return {**begun, **waiting, **self._standings.counts, **self._pages.counts}

    # --- what the loaders say ------------------------------------------------------------------------------------

    def _stands(self, key: tuple[int, str], standing: Standing) -> None:
        socket, wanted = self._asked.pop(key[1])
        self._perform(self._gateway.resume(socket, wanted, standing, standing, self._now_ms()))

    def _standing_unknown(self, key: tuple[int, str]) -> None:
        socket, _ = self._asked.pop(key[1])
        error = error_of("storage_unavailable", "the database does not answer", RETRY_AFTER_MS)
        socket.connection.write(events.error_frame(error, EVENT))
        self._perform(self._gateway.resume_failed(socket))

    def _page(self, page: Page, payloads: list[bytes]) -> None:
        self._perform(self._gateway.page_read(page[0], page[1], payloads, self._now_ms()))

    def _no_page(self, page: Page) -> None:
        self._perform(self._gateway.page_failed(page[0], page[1], self._now_ms()))


def _standings(reads: Reads) -> Callable[[Sequence[tuple[int, str]]], Awaitable[dict[tuple[int, str], Standing]]]:
    """Each socket's question is asked anew: an answer to an older one may not know what its client has seen since."""

    async def load(keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Standing]:
        found = await reads.standings(list({user: None for user, _ in keys}))
        return {key: found[key[0]] for key in keys}

    return load


def _pages(reads: Reads) -> Callable[[Sequence[Page]], Awaitable[dict[Page, list[bytes]]]]:
    async def load(keys: Sequence[Page]) -> dict[Page, list[bytes]]:
        payloads = {}
        for page, entries in (await reads.pages(keys)).items():
            payloads[page] = [frame_of(entry) for entry in entries]
            await asyncio.sleep(0)
        return payloads

    return load

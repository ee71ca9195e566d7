"""Access tokens: one that is used by everybody, and a new one when somebody's is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from fastsock.client.errors import ApiError, NotAuthenticated

TokenSource = str | Callable[[], Awaitable[str]]
"""A token, or what gives a fresh one each time it is called.

It may raise `NotAuthenticated` to say that there will be none; `OSError`, `TimeoutError`, an `httpx.TransportError` and
a retryable `ApiError` are tried again; anything else stops the client and is raised to the program.
"""


def passing(error: Exception) -> bool:
    """Whether it may be better in a moment."""
    if isinstance(error, ApiError):
        return error.retryable
    return isinstance(error, OSError | TimeoutError | httpx.TransportError)


class Tokens:
    """The present token of one user, shared by the socket and the HTTP requests."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._token = source if isinstance(source, str) else None
        self._renewing = asyncio.Lock()

    @property
    def renewable(self) -> bool:
        """Whether there can be another token than the first."""
        return not isinstance(self._source, str)

    async def current(self) -> str:
        """The token; the first one is fetched now."""
        return self._token if self._token is not None else await self.renewed(None)

    async def renewed(self, refused: str | None) -> str:
        """Another token than ``refused``: a fresh one, unless somebody else has fetched one meanwhile.

        Raises:
            NotAuthenticated: there will be none.

        """
        async with self._renewing:
            if isinstance(self._source, str):
                return self._source
            if self._token is None or self._token == refused:
                try:
                    self._token = await self._source()
                except ApiError as error:
                    if error.retryable:
                        raise
                    raise NotAuthenticated(1008, f"no token: {error}") from error
            return self._token

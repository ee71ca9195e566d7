"""Calling named Ray actors: looking them up, waiting with a limit, and the ways in which it fails.

Everything that crosses is bytes, text and numbers. Ray's own types say little about what a call answers, so the answer
is ``Any`` here and gets its type where it is decoded.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayError

from actors.runtime.names import NAMESPACE

CALL_TIMEOUT_S = 10.0
"""A call that has no answer for so long counts as failed; actors answer in milliseconds."""

CALL_ERRORS = (RayError, TimeoutError, ValueError)
"""How a call to an actor fails; `ray.get_actor` raises ValueError for a name that is not there (yet)."""


class Actors:
    """Named actors, each looked up once, and again after a call to it has failed for good.

    An actor that is being restarted keeps its identity, so nobody has to be asked for it.
    """

    def __init__(self) -> None:
        self._handles: dict[str, ActorHandle[Any]] = {}

    async def call(self, name: str, method: str, *arguments: object, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """What the actor's method answers.

        Raises:
            RayError, TimeoutError, ValueError: as `CALL_ERRORS` says. The call may have been carried out all the same.

        """
        try:
            handle = self._handles.get(name)
            if handle is None:
                handle = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
                self._handles[name] = handle
            answer = getattr(handle, method).remote(*arguments)
            async with asyncio.timeout(timeout_s):  # unlike wait_for it starts no task
                return await answer
        except ActorUnavailableError:
            raise
        except CALL_ERRORS:
            self._handles.pop(name, None)
            raise


def call_now(name: str, method: str, *arguments: object, timeout_s: float = CALL_TIMEOUT_S) -> Any:
    """The same for whoever has no event loop.

    Raises:
        RayError, ValueError: as `CALL_ERRORS` says.

    """
    handle = ray.get_actor(name, namespace=NAMESPACE)
    return ray.get(getattr(handle, method).remote(*arguments), timeout=timeout_s)


def in_short(error: BaseException) -> str:
    """An error for one line of a log."""
    return f"{type(error).__name__}: {error}"[:300]

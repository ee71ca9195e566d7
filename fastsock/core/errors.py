"""One tree of errors, one table of what each becomes on the wire.

    FastSockError
     +-- ProtocolError    the peer broke the contract: the same bytes will fail again
     +-- PolicyError      well-formed, and refused: somebody else, or another time, might be allowed
     +-- RetryableError   the same request may succeed later; carries ``retry_after_ms``
     +-- InternalError    our fault; the cause is in the log under the same id

Every error has a ``code``: stable, lower snake case, part of the public contract. `TABLE` gives each code its class,
its HTTP status and, where the failure ends a socket, its WebSocket close code. Whatever crosses a process crosses as
a ``Failure`` (``actors.effects``), never as a pickled exception, and `error_of` turns it back.

A message is lower case and names the value and the limit: "room 42 is full: it has 5,000 of 5,000 members".
"""

from __future__ import annotations

from typing import NamedTuple


class FastSockError(Exception):
    """The root. ``code`` must be a key of `TABLE`; ``message`` is for people, ``retry_after_ms`` for clients."""

    def __init__(self, code: str, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(code, message, retry_after_ms)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return self.message

    @property
    def retryable(self) -> bool:
        """Whether the same request, sent again unchanged, may succeed."""
        return isinstance(self, RetryableError)

    @property
    def http_status(self) -> int:
        return TABLE[self.code].http_status

    @property
    def close_code(self) -> int | None:
        """The code that ends a socket, or None where an ``error`` event is enough."""
        return TABLE[self.code].close_code


class ProtocolError(FastSockError):
    """The peer broke the contract."""


class PolicyError(FastSockError):
    """Well-formed, refused."""


class RetryableError(FastSockError):
    """The same request may succeed later."""


class InternalError(FastSockError):
    """Ours."""


class Meaning(NamedTuple):
    """What one code means on each wire."""

    kind: type[FastSockError]
    http_status: int
    close_code: int | None = None


TABLE: dict[str, Meaning] = {
    # the peer broke the contract
    "bad_json": Meaning(ProtocolError, 400),
    "bad_frame": Meaning(ProtocolError, 400),
    "unknown_event": Meaning(ProtocolError, 400),
    "invalid_data": Meaning(ProtocolError, 422),
    "content_too_long": Meaning(ProtocolError, 422),
    "frame_too_large": Meaning(ProtocolError, 413, 1009),
    "binary_frame": Meaning(ProtocolError, 400),
    # who are you
    "not_authenticated": Meaning(PolicyError, 401, 1008),
    "bad_credentials": Meaning(PolicyError, 400),
    "token_expired": Meaning(PolicyError, 401, 4001),
    "account_inactive": Meaning(PolicyError, 403, 1008),
    # well-formed, refused
    "email_taken": Meaning(PolicyError, 400),
    "weak_password": Meaning(PolicyError, 422),
    "not_a_member": Meaning(PolicyError, 403),
    "not_the_author": Meaning(PolicyError, 403),
    "not_allowed": Meaning(PolicyError, 403),
    "room_not_found": Meaning(PolicyError, 404),
    "user_not_found": Meaning(PolicyError, 404),
    "message_not_found": Meaning(PolicyError, 404),
    "message_deleted": Meaning(PolicyError, 409),
    "already_a_member": Meaning(PolicyError, 409),
    "room_full": Meaning(PolicyError, 409),
    "too_many_members": Meaning(PolicyError, 422),
    "key_reused": Meaning(PolicyError, 409),
    "refused_by_storage": Meaning(PolicyError, 422),
    "too_many_connections": Meaning(PolicyError, 429, 4003),
    "slow_consumer": Meaning(PolicyError, 429, 4008),
    # later, perhaps
    "rate_limited": Meaning(RetryableError, 429),
    "resume_under_way": Meaning(RetryableError, 409),
    "rate_limit_persistent": Meaning(RetryableError, 429, 4029),
    "overloaded": Meaning(RetryableError, 503),
    "storage_unavailable": Meaning(RetryableError, 503),
    "actor_unavailable": Meaning(RetryableError, 503),
    "server_full": Meaning(RetryableError, 503, 1013),
    "going_away": Meaning(RetryableError, 503, 1012),
    # ours
    "internal": Meaning(InternalError, 500, 4500),
}


def error_of(code: str, message: str, retry_after_ms: int | None = None) -> FastSockError:
    """The exception for a code that came over a wire; a code this version does not know becomes ``internal``."""
    meaning = TABLE.get(code)
    if meaning is None:
        return InternalError("internal", f"unknown error code {code!r}: {message}")
    return meaning.kind(code, message, retry_after_ms)

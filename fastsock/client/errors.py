"""What can go wrong, as exceptions.

    ClientError
     +-- Refused             the server refuses this message for good
     +-- ApiError            the server refuses this HTTP request
     +-- Stopped             the client has stopped for good and will not come back
          +-- NotAuthenticated   no token is accepted
          +-- Closed             by `Client.close`

Whatever has failed in the background is raised by the iterator and by every `Client.send` that waits.
"""

from __future__ import annotations


class ClientError(Exception):
    """The root."""


class Refused(ClientError):  # noqa: N818 - past tense, as it is
    """The server (or, before it, the client) refuses a message; the same message would be refused again.

    ``code`` is stable (`fastsock.core.errors.TABLE`), ``message`` is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ApiError(ClientError):
    """An HTTP request was refused.

    ``retryable`` says whether the same request may succeed later, ``retry_after_ms`` when; None: unknown.
    """

    def __init__(self, status: int, code: str, message: str, *, retryable: bool, retry_after_ms: int | None) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.code})"


class Stopped(ClientError):  # noqa: N818 - past tense, as it is
    """The client has stopped for good; ``code`` is the close code that said so.

    What was not acknowledged by then may have been delivered or not. Sent again with the same ``client_msg_id`` by
    another client of the same user, it is delivered once.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the server has closed with {self.code}, which means: do not come back: {self.reason or 'no reason'}"


class NotAuthenticated(Stopped):
    """No token is accepted, or none can be had. ``code`` is the close code, or 1008 if it did not come to that."""

    def __str__(self) -> str:
        return f"not authenticated: {self.reason}"


class Closed(Stopped):
    """The client was closed by its own program."""

    def __str__(self) -> str:
        return "the client is closed"

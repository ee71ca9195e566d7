"""Who somebody is: access tokens, and passwords.

A token is a JWT (RFC 7519) signed with HS256: ``sub`` is the user's id as a string, ``exp`` when it ends. Whoever holds
the secret can check it, so no request costs a database query for it; the price is that a token lives until it ends.

A password is hashed with Argon2id (RFC 9106). That takes tens of milliseconds and megabytes on purpose, so it happens
in a small pool of threads beside the event loop, and only so many may wait for it: a crowd at the login page must not
take the processor or the memory from people who chat.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from fastsock.core.errors import error_of
from fastsock.core.limits import RETRY_AFTER_MS
from fastsock.schemas.names import MAX_ID

T = TypeVar("T")

ALGORITHM = "HS256"
MAX_TOKEN_CHARS = 4_096
"""Ours have about 130; what is longer is not looked at."""

REMEMBERED_TOKENS = 10_000
"""Tokens whose signature need not be checked again: whoever comes back shows the same one. 450 bytes each."""

ARGON2_MEMORY_KIB = 19_456
ARGON2_PASSES = 2
ARGON2_LANES = 1
"""OWASP's Password Storage Cheat Sheet, the recommended minimum for Argon2id: 19 MiB, 2 passes, 1 lane.

Measured here: 35 ms of one core. RFC 9106's second choice (64 MiB, 3 passes, 4 lanes) costs 220 ms and 64 MiB for each
login in progress, on machines whose two cores also carry everybody's messages.
"""
PASSWORD_THREADS = 2
PASSWORD_QUEUE = 100
"""Passwords that may wait for a thread: some 2 s of work. At the bound: ``overloaded``."""


class Claims(NamedTuple):
    """What a valid token says."""

    user_id: int
    expires_at: float
    """Seconds since 1970 UTC."""


def create_access_token(user_id: int, secret: str, ttl_s: int, now: float) -> str:
    """A token for this user that ends ``ttl_s`` after ``now`` (seconds since 1970 UTC)."""
    return jwt.encode({"sub": str(user_id), "iat": int(now), "exp": int(now) + ttl_s}, secret, ALGORITHM)


def verify(token: str, secret: str, now: float) -> Claims:
    """What the token says, if it was made with this secret and has not ended at ``now`` (seconds since 1970 UTC).

    Raises:
        PolicyError: ``token_expired``, or ``not_authenticated`` for everything else that is wrong with it.

    """
    if len(token) > MAX_TOKEN_CHARS:
        raise error_of("not_authenticated", f"the token has {len(token):,} of at most {MAX_TOKEN_CHARS:,} characters")
    subject, expires_at = _signed(token, secret)
    if not now < expires_at:
        raise error_of("token_expired", "the token has expired")
    if not (
        subject.isascii() and subject.isdigit() and len(subject) <= len(str(MAX_ID)) and 1 <= int(subject) <= MAX_ID
    ):
        raise error_of("not_authenticated", "the token's sub is not a user's id")
    return Claims(int(subject), float(expires_at))


@functools.lru_cache(REMEMBERED_TOKENS)
def _signed(token: str, secret: str) -> tuple[str, int | float]:
    """Subject and end of a token that was made with this secret; whether it has ended is the caller's question.

    Only what this returns is remembered: whoever does not have the secret takes nobody's place. Checking takes 34 us,
    remembering 1 us.

    Raises:
        PolicyError: ``not_authenticated``.

    """
    options: jwt.types.Options = {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False}
    try:
        claims = jwt.decode(token, secret, [ALGORITHM], options)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:  # the last two: bytes that only look like a token
        raise error_of("not_authenticated", "the token is not valid") from error
    subject, expires_at = claims["sub"], claims["exp"]
    if not isinstance(expires_at, int | float):
        raise error_of("not_authenticated", "the token's exp is not a number")
    return subject, expires_at


class Verdict(NamedTuple):
    """What became of a password check."""

    valid: bool
    rehashed: str | None
    """The hash to store from now on, where the stored one was made with other parameters; else None."""


class Passwords:
    """Hashes and checks passwords, a few at a time, outside the event loop. May be used from several event loops."""

    def __init__(
        self,
        *,
        threads: int = PASSWORD_THREADS,
        queue_limit: int = PASSWORD_QUEUE,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._hasher = hasher or PasswordHasher(
            memory_cost=ARGON2_MEMORY_KIB, time_cost=ARGON2_PASSES, parallelism=ARGON2_LANES
        )
        self._limit = threads + queue_limit
        self._room = threading.BoundedSemaphore(self._limit)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """The password's hash, with its salt and parameters in it (the PHC string format).

        Raises:
            RetryableError: ``overloaded``, too many are waiting.

        """
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Whether the password is the one that ``stored`` was made from.

        ``stored`` is None where there is no such account; that takes as long as a wrong password, so that the answer's
        time does not tell who has an account.

        Raises:
            RetryableError: ``overloaded``, too many are waiting.
            InvalidHashError: ``stored`` is not a hash that `hash` made.

        """
        return await self._run(lambda: self._check(password, stored))

    def close(self) -> None:
        """Let the threads end; what still waits is not done."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, password: str, stored: str | None) -> Verdict:
        try:
            self._hasher.verify(stored or self._nobodys, _bytes(password))
        except VerifyMismatchError:
            return Verdict(valid=False, rehashed=None)
        if stored is None:
            return Verdict(valid=False, rehashed=None)
        outdated = self._hasher.check_needs_rehash(stored)
        return Verdict(valid=True, rehashed=self._hasher.hash(_bytes(password)) if outdated else None)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise error_of(
                "overloaded", f"{self._limit:,} of {self._limit:,} password checks are in progress", RETRY_AFTER_MS
            )
        future = self._pool.submit(work)
        # The thread's own future, not the event loop's: a request that went away leaves its work behind.
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)


def _bytes(password: str) -> bytes:
    """UTF-8, and for lone surrogates, which no form of ours sends, what Python makes of them: a wrong password."""
    return password.encode("utf-8", "surrogatepass")

"""Accounts: sign up, log in, and who a token belongs to."""

from __future__ import annotations

from typing import NamedTuple

from fastsock.core.errors import error_of
from fastsock.core.limits import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS
from fastsock.core.security import Passwords, create_access_token, verify
from fastsock.db.users import UserRow, Users
from fastsock.services.clock import Clock


class Session(NamedTuple):
    """What a log-in gives."""

    access_token: str
    expires_in_s: int


class Accounts:
    """Signs people up and lets them in."""

    def __init__(self, users: Users, passwords: Passwords, *, secret: str, ttl_s: int, now_ms: Clock) -> None:
        self._users = users
        self._passwords = passwords
        self._secret = secret
        self._ttl_s = ttl_s
        self._now_ms = now_ms

    async def sign_up(self, email: str, password: str, full_name: str | None) -> UserRow:
        """Make an account; ``email`` is in its normal form.

        Raises:
            PolicyError: ``email_taken``, ``weak_password``.

        """
        _check_length(password)
        if await self._users.by_email(email) is not None:  # before the costly part; the database has the last word
            raise error_of("email_taken", f"the e-mail address {email} is already registered")
        return await self._users.create(email, await self._passwords.hash(password), full_name)

    async def log_in(self, email: str, password: str) -> Session:
        """A token for whoever knows the password.

        Raises:
            PolicyError: ``bad_credentials`` for an unknown address and a wrong password alike, after the same time;
                ``account_inactive`` to whoever knows the password.

        """
        user = await self._users.by_email(email.strip().lower()) if _storable(email) else None
        verdict = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not verdict.valid:
            raise error_of("bad_credentials", "incorrect email or password")
        if not user.is_active:
            raise error_of("account_inactive", f"user {user.id} is inactive")
        if verdict.rehashed is not None:
            await self._users.set_password_hash(user.id, verdict.rehashed)
        return Session(create_access_token(user.id, self._secret, self._ttl_s, self._now_ms() / 1000), self._ttl_s)

    def close(self) -> None:
        """Let the threads that hash end."""
        self._passwords.close()

    def caller(self, token: str | None) -> int:
        """The user whom the token belongs to; None is no token. Asks no database.

        Raises:
            PolicyError: ``not_authenticated``, ``token_expired``.

        """
        if token is None:
            raise error_of("not_authenticated", "no token: send it as Authorization: Bearer TOKEN")
        return verify(token, self._secret, self._now_ms() / 1000).user_id


def _storable(text: str) -> bool:
    """Whether a database could hold it; a form may bring U+0000, and in odd encodings lone surrogates."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _check_length(password: str) -> None:
    if len(password) < MIN_PASSWORD_CHARS:
        raise error_of("weak_password", f"the password has {len(password)} of at least {MIN_PASSWORD_CHARS} characters")
    if len(password) > MAX_PASSWORD_CHARS:
        raise error_of("invalid_data", f"the password has {len(password):,} of at most {MAX_PASSWORD_CHARS} characters")

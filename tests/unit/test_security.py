"""Tokens and passwords."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from typing import Any, Literal

import jwt
import pytest
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError
from hypothesis import given
from hypothesis import strategies as st

from fastsock.core import security
from fastsock.core.errors import FastSockError
from fastsock.core.security import (
    ARGON2_MEMORY_KIB,
    REMEMBERED_TOKENS,
    Claims,
    Passwords,
    Verdict,
    create_access_token,
    verify,
)
from fastsock.schemas.names import MAX_ID

SECRET = "a secret of more than thirty-two bytes for the tests"
NOW = 1_800_000_000.0
CHEAP = PasswordHasher(memory_cost=8, time_cost=1, parallelism=1)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(hasher=CHEAP)
    yield made
    made.close()


def refusal(token: str, now: float = NOW) -> tuple[str, str]:
    with pytest.raises(FastSockError) as caught:
        verify(token, SECRET, now)
    return caught.value.code, str(caught.value)


def signed(**claims: object) -> str:
    return jwt.encode(claims, SECRET, "HS256")


# --- tokens


@given(user_id=st.integers(1, MAX_ID), ttl_s=st.integers(1, 10**9), now=st.floats(0, 2**40))
def test_a_token_says_what_it_was_made_for(user_id: int, ttl_s: int, now: float) -> None:
    token = create_access_token(user_id, SECRET, ttl_s, now)
    assert verify(token, SECRET, now) == Claims(user_id, int(now) + ttl_s)


def test_a_token_has_the_claims_of_earlier_back_ends() -> None:
    token = create_access_token(7, SECRET, 60, NOW)
    assert jwt.decode(token, options={"verify_signature": False}) == {
        "sub": "7",
        "iat": 1_800_000_000,
        "exp": 1_800_000_060,
    }
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_a_token_of_an_earlier_back_end_is_taken() -> None:
    assert verify(signed(sub="7", exp=1_800_000_060), SECRET, NOW) == Claims(7, 1_800_000_060.0)


def test_a_token_ends_at_its_second() -> None:
    token = create_access_token(7, SECRET, 60, NOW)
    assert verify(token, SECRET, NOW + 59.999).user_id == 7
    assert refusal(token, NOW + 60) == ("token_expired", "the token has expired")


def test_a_token_of_another_secret_is_refused() -> None:
    token = create_access_token(7, "another secret of more than thirty-two bytes", 60, NOW)
    assert refusal(token) == ("not_authenticated", "the token is not valid")


def test_a_token_without_signature_is_refused() -> None:
    unsigned = jwt.encode({"sub": "7", "exp": 1_900_000_000}, "", "none")
    assert refusal(unsigned) == ("not_authenticated", "the token is not valid")


def test_a_token_of_another_algorithm_is_refused() -> None:
    other = jwt.encode({"sub": "7", "exp": 1_900_000_000}, SECRET * 2, "HS512")
    assert refusal(other) == ("not_authenticated", "the token is not valid")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The tokens whose signature is checked from now on, when nothing is remembered."""
    checked: list[str] = []
    decode = jwt.decode

    def counted(token: str, *arguments: Any) -> Any:
        checked.append(token)
        return decode(token, *arguments)

    security._signed.cache_clear()
    monkeypatch.setattr(jwt, "decode", counted)
    yield checked
    security._signed.cache_clear()


def test_a_token_that_was_checked_is_remembered_until_it_ends(checks: list[str]) -> None:
    token = create_access_token(7, SECRET, 60, NOW)
    for age_s in (0, 1, 59.999):
        assert verify(token, SECRET, NOW + age_s) == Claims(7, NOW + 60)
    assert refusal(token, NOW + 60) == ("token_expired", "the token has expired")
    assert verify(token, SECRET, NOW) == Claims(7, NOW + 60)
    assert checks == [token]


def test_a_token_is_remembered_for_its_secret_alone(checks: list[str]) -> None:
    token = create_access_token(7, SECRET, 60, NOW)
    verify(token, SECRET, NOW)
    with pytest.raises(FastSockError, match="the token is not valid"):
        verify(token, "another secret of more than thirty-two bytes", NOW)
    assert checks == [token, token]


def test_a_token_that_is_not_valid_is_not_remembered(checks: list[str]) -> None:
    valid = create_access_token(7, SECRET, 60, NOW)
    verify(valid, SECRET, NOW)
    forged = valid[:-4] + ("AAAA" if valid[-4:] != "AAAA" else "BBBB")
    for _ in range(2):
        assert refusal(forged) == ("not_authenticated", "the token is not valid")
        assert refusal(signed(sub="7", exp="soon"))[0] == "not_authenticated"
    assert len(checks) == 5
    assert security._signed.cache_info().currsize == 1


def test_of_too_many_tokens_those_are_forgotten_that_were_not_shown_for_longest(checks: list[str]) -> None:
    tokens = [create_access_token(user, SECRET, 60, NOW) for user in range(1, REMEMBERED_TOKENS + 2)]
    for token in tokens:
        verify(token, SECRET, NOW)
    assert checks == tokens
    verify(tokens[-1], SECRET, NOW)
    verify(tokens[1], SECRET, NOW)
    assert checks == tokens
    verify(tokens[0], SECRET, NOW)
    assert checks == [*tokens, tokens[0]]


@pytest.mark.parametrize("subject", ["", "0", "-1", "1.0", " 7", "seven", "\u0667", str(MAX_ID + 1), "9" * 2_000])
def test_a_subject_that_is_no_user_is_refused(subject: str) -> None:
    assert refusal(signed(sub=subject, exp=1_900_000_000)) == (
        "not_authenticated",
        "the token's sub is not a user's id",
    )


@pytest.mark.parametrize("claims", [{"sub": "7"}, {"exp": 1_900_000_000}, {"sub": 7, "exp": 1_900_000_000}])
def test_a_token_without_its_claims_is_refused(claims: dict[str, object]) -> None:
    assert refusal(signed(**claims)) == ("not_authenticated", "the token is not valid")


@pytest.mark.parametrize(
    ("exp", "code"), [("soon", "not_authenticated"), (None, "not_authenticated"), (float("nan"), "token_expired")]
)
def test_an_end_that_is_no_time_is_refused(exp: object, code: str) -> None:
    assert refusal(signed(sub="7", exp=exp))[0] == code


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_nonsense_is_refused(token: str) -> None:
    assert refusal(token) == ("not_authenticated", "the token is not valid")


def test_a_header_that_is_nested_too_deeply_is_refused() -> None:
    header = base64.urlsafe_b64encode(b'{"a":' + b"[" * 1_400).rstrip(b"=").decode()
    body = base64.urlsafe_b64encode(json.dumps({"sub": "7"}).encode()).rstrip(b"=").decode()
    assert refusal(f"{header}.{body}.AAAA") == ("not_authenticated", "the token is not valid")


def test_a_token_that_is_too_long_is_not_looked_at() -> None:
    assert refusal("a" * 4_097) == ("not_authenticated", "the token has 4,097 of at most 4,096 characters")


# --- passwords


async def test_the_right_password_is_valid_and_a_wrong_one_is_not(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")
    assert await passwords.verify("correct horse", stored) == Verdict(valid=True, rehashed=None)
    assert await passwords.verify("battery staple", stored) == Verdict(valid=False, rehashed=None)


async def test_hashes_carry_the_documented_parameters_and_their_own_salt() -> None:
    passwords = Passwords()
    one, other = await asyncio.gather(passwords.hash("correct horse"), passwords.hash("correct horse"))
    passwords.close()
    assert one.startswith(f"$argon2id$v=19$m={ARGON2_MEMORY_KIB},t=2,p=1$")
    assert one != other


async def test_nobodys_password_is_checked_with_the_same_effort_and_is_never_valid() -> None:
    checked: list[str] = []

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - the base's name
            checked.append(str(hash))
            return super().verify(hash, password)

    watched = Passwords(hasher=Watched(memory_cost=8, time_cost=1, parallelism=1))
    assert await watched.verify("correct horse", None) == Verdict(valid=False, rehashed=None)
    watched.close()
    assert [made.startswith("$argon2id$v=19$m=8,t=1,p=1$") for made in checked] == [True]


async def test_an_older_hash_is_made_anew_when_the_password_is_known(passwords: Passwords) -> None:
    older = PasswordHasher(memory_cost=16, time_cost=1, parallelism=1).hash("correct horse")
    assert await passwords.verify("battery staple", older) == Verdict(valid=False, rehashed=None)
    valid, rehashed = await passwords.verify("correct horse", older)
    assert valid
    assert rehashed is not None
    assert rehashed.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert await passwords.verify("correct horse", rehashed) == Verdict(valid=True, rehashed=None)


async def test_any_text_is_a_password(passwords: Passwords) -> None:
    for odd in ("", "\0", "\ud800", "p\u00e4ss \U0001f600" * 1_000):
        assert (await passwords.verify(odd, await passwords.hash(odd))).valid
        assert not (await passwords.verify(f"{odd}x", await passwords.hash(odd))).valid


async def test_what_is_not_a_hash_is_said_so(passwords: Passwords) -> None:
    with pytest.raises(InvalidHashError):
        await passwords.verify("correct horse", "plain text")


async def test_a_crowd_is_refused_at_the_bound_and_served_below_it() -> None:
    gate = threading.Event()

    class Slow(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            if password == b"wait":
                gate.wait(30)
            return super().hash(password, salt=salt)

    passwords = Passwords(threads=1, queue_limit=1, hasher=Slow(memory_cost=8, time_cost=1, parallelism=1))
    waiting = [asyncio.create_task(passwords.hash("wait")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(FastSockError) as caught:
        await passwords.hash("one too many")
    assert (caught.value.code, str(caught.value), caught.value.retry_after_ms) == (
        "overloaded",
        "2 of 2 password checks are in progress",
        500,
    )
    waiting[0].cancel()  # its request went away; the thread is still busy with it
    await asyncio.sleep(0)
    with pytest.raises(FastSockError):
        await passwords.hash("still one too many")
    gate.set()
    assert (await waiting[1]).startswith("$argon2id$")
    assert (await passwords.hash("served")).startswith("$argon2id$")
    passwords.close()


async def test_the_event_loop_goes_on_meanwhile() -> None:
    passwords = Passwords(threads=1)
    hashing = asyncio.create_task(passwords.hash("correct horse"))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    passwords.close()
    assert turns > 10

"""The tree of errors and the one table of what each becomes."""

from __future__ import annotations

import pickle
import re

import pytest

from fastsock.core.errors import (
    TABLE,
    FastSockError,
    InternalError,
    PolicyError,
    ProtocolError,
    RetryableError,
    error_of,
)


@pytest.mark.parametrize("code", TABLE)
def test_every_code_makes_an_error_of_its_class_that_survives_a_process_boundary(code: str) -> None:
    meaning = TABLE[code]
    error = error_of(code, "room 42 is full", 500)
    assert type(error) is meaning.kind
    assert (error.code, str(error), error.retry_after_ms) == (code, "room 42 is full", 500)
    assert (error.http_status, error.close_code) == (meaning.http_status, meaning.close_code)
    assert error.retryable == (meaning.kind is RetryableError)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert again.args == error.args == (code, "room 42 is full", 500)
    assert str(again) == "room 42 is full"


@pytest.mark.parametrize("code", TABLE)
def test_every_line_of_the_table_is_sane(code: str) -> None:
    kind, http_status, close_code = TABLE[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert kind in {ProtocolError, PolicyError, RetryableError, InternalError}
    assert 500 <= http_status <= 503 if kind is InternalError else 400 <= http_status <= 503
    assert close_code is None or 1000 <= close_code < 5000


def test_close_codes_are_those_of_the_protocol() -> None:
    codes = {code: meaning.close_code for code, meaning in TABLE.items() if meaning.close_code is not None}
    assert codes == {
        "frame_too_large": 1009,
        "not_authenticated": 1008,
        "account_inactive": 1008,
        "token_expired": 4001,
        "too_many_connections": 4003,
        "slow_consumer": 4008,
        "rate_limit_persistent": 4029,
        "server_full": 1013,
        "going_away": 1012,
        "internal": 4500,
    }


def test_retryable_is_what_may_succeed_later() -> None:
    assert {code for code, meaning in TABLE.items() if meaning.kind is RetryableError} == {
        "rate_limited",
        "resume_under_way",
        "rate_limit_persistent",
        "overloaded",
        "storage_unavailable",
        "actor_unavailable",
        "server_full",
        "going_away",
    }


def test_a_code_of_another_version_becomes_an_internal_error() -> None:
    error = error_of("from_the_future", "who knows")
    assert type(error) is InternalError
    assert error.code == "internal"
    assert str(error) == "unknown error code 'from_the_future': who knows"
    assert error.retry_after_ms is None
    assert not error.retryable


def test_the_root_catches_them_all() -> None:
    with pytest.raises(FastSockError, match=r"^user 9 is not a member of room:42$"):
        raise error_of("not_a_member", "user 9 is not a member of room:42")

"""Signing up, logging in, and who is who."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fastsock.core.errors import error_of
from fastsock.core.security import create_access_token
from tests.unit.api_world import SECRET, World, new_world, refusal, refused

PASSWORD = "correct horse battery"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with new_world(tmp_path) as made:
        yield made


async def sign_up(world: World, **body: Any) -> Any:
    return await world.ask(
        None, "POST", "/auth/signup", json={"email": "ann@example.com", "password": PASSWORD, **body}
    )


async def log_in(world: World, username: str = "ann@example.com", password: str = PASSWORD) -> Any:
    return await world.ask(None, "POST", "/auth/login/access-token", data={"username": username, "password": password})


# --- sign up


async def test_signing_up_gives_the_user_without_the_password(world: World) -> None:
    answer = await sign_up(world, full_name="Ann Arbor")
    assert answer.status_code == 200
    assert answer.json() == {"id": 1, "email": "ann@example.com", "full_name": "Ann Arbor", "is_active": True}


async def test_a_name_is_not_needed(world: World) -> None:
    assert (await sign_up(world)).json()["full_name"] is None


async def test_fields_of_other_versions_are_ignored(world: World) -> None:
    answer = await sign_up(world, is_superuser=True, theme="dark")
    assert answer.json() == {"id": 1, "email": "ann@example.com", "full_name": None, "is_active": True}


async def test_an_address_can_be_used_once_however_it_is_written(world: World) -> None:
    await sign_up(world)
    expected = refused(400, "email_taken", "the e-mail address ann@example.com is already registered")
    assert refusal(await sign_up(world)) == expected
    assert refusal(await sign_up(world, email="ANN@Example.COM")) == expected


async def test_addresses_of_an_intranet_are_addresses(world: World) -> None:
    assert (await sign_up(world, email="ann@office.local")).status_code == 200
    assert (await sign_up(world, email="ann@localhost")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        ({"password": "seven77"}, 422, "weak_password", "the password has 7 of at least 8 characters"),
        ({"password": "p" * 129}, 422, "invalid_data", "the password has 129 of at most 128 characters"),
        ({"password": None}, 422, "invalid_data", "password: input should be a valid string"),
        ({"password": ["p"]}, 422, "invalid_data", "password: input should be a valid string"),
        (
            {"full_name": "n" * 201},
            422,
            "invalid_data",
            "full_name: string should have at most 200 characters, not 201 characters",
        ),
        (
            {"full_name": "a\0b"},
            422,
            "invalid_data",
            "full_name: must not contain the character U+0000, not 'a\\x00b'",
        ),
    ],
)
async def test_what_cannot_be_an_account_is_named(
    world: World, body: dict[str, Any], status: int, code: str, detail: str
) -> None:
    assert refusal(await sign_up(world, **body)) == refused(status, code, detail)


async def test_a_bad_address_is_named(world: World) -> None:
    status, body = refusal(await sign_up(world, email="ann at home"))
    assert (status, body["code"]) == (422, "invalid_data")
    assert body["detail"].startswith("email: not an e-mail address: ")
    assert body["detail"].endswith(", not 'ann at home'")


async def test_missing_fields_are_named_all_of_them(world: World) -> None:
    answer = await world.ask(None, "POST", "/auth/signup", json={})
    assert refusal(answer) == refused(422, "invalid_data", "email: field required; password: field required")


# --- log in


async def test_logging_in_gives_a_token_that_works(world: World) -> None:
    await sign_up(world)
    answer = (await log_in(world)).json()
    assert answer == {"access_token": answer["access_token"], "token_type": "bearer", "expires_in": 86_400}
    me = await world.http.get("/api/v1/users/me", headers={"Authorization": f"bearer {answer['access_token']}"})
    assert me.json()["email"] == "ann@example.com"


async def test_the_address_may_be_written_in_capitals_and_the_form_as_multipart(world: World) -> None:
    await sign_up(world)
    fields = {"username": (None, " Ann@Example.com "), "password": (None, PASSWORD), "grant_type": (None, "password")}
    answer = await world.ask(None, "POST", "/auth/login/access-token", files=fields)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("ann@example.com", "another"),
        ("bob@example.com", PASSWORD),
        ("nobody at all", PASSWORD),
        ("ann@example.com\0", PASSWORD),
        ("ann@example.com", f"{PASSWORD}\0"),
        ("ann@example.com", "p" * 100_000),
    ],
)
async def test_wrong_credentials_are_all_refused_alike(world: World, username: str, password: str) -> None:
    await sign_up(world)
    expected = refused(400, "bad_credentials", "incorrect email or password")
    assert refusal(await log_in(world, username, password)) == expected


async def test_a_form_in_an_odd_encoding_is_a_form(world: World) -> None:
    part = 'Content-Disposition: form-data; name="{}"\r\n\r\n+2AA-\r\n--x'
    content = "--x\r\n" + part.format("username") + "\r\n" + part.format("password") + "--\r\n"
    odd = {"Content-Type": "multipart/form-data; boundary=x; charset=utf-7"}  # in which +2AA- is a lone surrogate
    answer = await world.ask(None, "POST", "/auth/login/access-token", content=content, headers=odd)
    assert refusal(answer) == refused(400, "bad_credentials", "incorrect email or password")


async def test_credentials_in_json_are_not_a_form(world: World) -> None:
    answer = await world.ask(None, "POST", "/auth/login/access-token", json={"username": "a", "password": "b"})
    assert refusal(answer) == refused(422, "invalid_data", "username: field required; password: field required")


async def test_a_crowd_at_the_login_is_told_when_to_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise error_of("overloaded", "102 of 102 password checks are in progress", 500)

    monkeypatch.setattr("fastsock.core.security.Passwords.verify", full)
    answer = await log_in(world)
    assert refusal(answer) == (
        503,
        {
            "detail": "102 of 102 password checks are in progress",
            "code": "overloaded",
            "retryable": True,
            "retry_after_ms": 500,
        },
    )
    assert answer.headers["Retry-After"] == "1"


# --- tokens


async def test_no_token_a_wrong_one_and_an_old_one_are_told_apart(world: World) -> None:
    ann = await world.person("Ann")
    answer = await world.ask(None, "GET", "/users/me")
    assert refusal(answer) == refused(401, "not_authenticated", "no token: send it as Authorization: Bearer TOKEN")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    for header in ("Basic YTpi", "", "Bearer"):
        assert (await world.ask(None, "GET", "/users/me", headers={"Authorization": header})).status_code == 401
    answer = await world.ask(None, "GET", "/users/me", headers={"Authorization": "Bearer nonsense"})
    assert refusal(answer) == refused(401, "not_authenticated", "the token is not valid")
    world.now_ms += 3_600_000
    answer = await world.ask(ann, "GET", "/users/me")
    assert refusal(answer) == refused(401, "token_expired", "the token has expired")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/me"),
        ("PATCH", "/users/me"),
        ("GET", "/users/"),
        ("GET", "/chat/rooms"),
        ("POST", "/chat/rooms"),
        ("GET", "/chat/rooms/1"),
        ("GET", "/chat/rooms/1/members"),
        ("POST", "/chat/rooms/1/members"),
        ("DELETE", "/chat/rooms/1/members/1"),
        ("GET", "/chat/unread"),
        ("GET", "/chat/history/room/1"),
        ("GET", "/chat/history/user/1"),
        ("PUT", "/chat/messages/1"),
        ("DELETE", "/chat/messages/1"),
        ("GET", "/webrtc/ice-servers"),
    ],
)
async def test_nothing_is_told_or_done_without_a_token(world: World, method: str, path: str) -> None:
    assert refusal(await world.ask(None, method, path)) == refused(
        401, "not_authenticated", "no token: send it as Authorization: Bearer TOKEN"
    )


# --- users


async def test_a_name_can_be_changed_emptied_and_left_alone(world: World) -> None:
    ann = await world.person("Ann")
    changed = await world.ask(ann, "PATCH", "/users/me", json={"full_name": "  Ann of Green Gables "})
    assert changed.json() == {
        "id": ann.id,
        "email": "ann@example.com",
        "full_name": "Ann of Green Gables",
        "is_active": True,
    }
    assert (await world.ask(ann, "PATCH", "/users/me", json={"is_active": False})).json() == changed.json()
    assert (await world.ask(ann, "PATCH", "/users/me", json={"full_name": None})).json()["full_name"] is None
    assert (await world.get(ann, "/users/me"))["full_name"] is None


async def test_a_token_may_outlive_its_user(world: World) -> None:
    ann = await world.person("Ann")
    ghost = ann._replace(token=create_access_token(999, SECRET, 60, world.now_ms / 1000))
    expected = refused(401, "not_authenticated", "user 999, whom the token belongs to, does not exist")
    assert refusal(await world.ask(ghost, "GET", "/users/me")) == expected
    assert refusal(await world.ask(ghost, "PATCH", "/users/me", json={"full_name": "G"})) == expected


async def test_users_are_listed_with_and_without_a_slash_in_pages_and_by_name(world: World) -> None:
    ann, bob, cat = await world.people("Ann", "Bob", "Cat")
    everybody = await world.get(ann, "/users/")
    assert [user["id"] for user in everybody] == [ann.id, bob.id, cat.id]
    assert everybody[1] == {"id": bob.id, "email": "bob@example.com", "full_name": "Bob", "is_active": True}
    assert await world.get(ann, "/users") == everybody
    assert await world.get(ann, "/users", skip=1, limit=1) == everybody[1:2]
    assert await world.get(ann, "/users/", q="BO") == everybody[1:2]
    assert await world.get(ann, "/users/", q="%") == []
    assert await world.get(ann, "/users/", q="") == everybody


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=201", "limit: input should be less than or equal to 200, not '201'"),
        ("limit=0", "limit: input should be greater than or equal to 1, not '0'"),
        ("skip=-1", "skip: input should be greater than or equal to 0, not '-1'"),
        (
            "skip=9007199254740992",
            "skip: input should be less than or equal to 9007199254740991, not '9007199254740992'",
        ),
        ("skip=ten", "skip: input should be a valid integer, unable to parse string as an integer, not 'ten'"),
        ("q=%00", "q: must not contain the character U+0000, not '\\x00'"),
    ],
)
async def test_pages_have_limits(world: World, query: str, detail: str) -> None:
    ann = await world.person("Ann")
    assert refusal(await world.ask(ann, "GET", f"/users/?{query}")) == refused(422, "invalid_data", detail)

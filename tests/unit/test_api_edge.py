"""What holds for every request: errors, bounds, headers, health, pages, the description; and nonsense."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from fastsock.api.edge import DOCS_POLICY, PAGE_POLICY
from fastsock.core.errors import TABLE
from fastsock.core.security import create_access_token
from fastsock.db import migrate
from tests.postgres import PostgresServer
from tests.unit.api_world import API, NOW_MS, SECRET, Person, World, new_world, refusal, refused

ROUTES = {
    f"POST {API}/auth/signup",
    f"POST {API}/auth/login/access-token",
    f"GET {API}/users/me",
    f"PATCH {API}/users/me",
    f"GET {API}/users/",
    f"GET {API}/chat/rooms",
    f"POST {API}/chat/rooms",
    f"GET {API}/chat/rooms/{{room_id}}",
    f"GET {API}/chat/rooms/{{room_id}}/members",
    f"POST {API}/chat/rooms/{{room_id}}/members",
    f"DELETE {API}/chat/rooms/{{room_id}}/members/{{user_id}}",
    f"GET {API}/chat/unread",
    f"GET {API}/chat/history/room/{{room_id}}",
    f"GET {API}/chat/history/user/{{user_id}}",
    f"PUT {API}/chat/messages/{{message_id}}",
    f"DELETE {API}/chat/messages/{{message_id}}",
    f"GET {API}/webrtc/ice-servers",
    "GET /healthz",
    "GET /readyz",
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with new_world(tmp_path) as made:
        yield made


def described(world: World) -> dict[str, dict[str, Any]]:
    """Every documented operation, by method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, operations in world.app.openapi()["paths"].items()
        for method, operation in operations.items()
    }


# --- errors that no route knows


async def test_what_is_not_there_is_said_in_the_same_words(world: World) -> None:
    answer = await world.http.get("/api/v1/nothing")
    assert refusal(answer) == refused(404, "not_found", "there is nothing at /api/v1/nothing")
    answer = await world.http.get(f"/api/v1/{'n' * 100}")
    assert refusal(answer) == refused(404, "not_found", f"there is nothing at /api/v1/{'n' * 32}...")
    answer = await world.http.delete("/api/v1/chat/rooms")
    assert refusal(answer) == refused(405, "method_not_allowed", "/api/v1/chat/rooms does not take DELETE")


async def test_what_nobody_foresaw_has_an_id_and_no_traceback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await world.person("Ann")

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("the secret cause")

    monkeypatch.setattr("fastsock.services.users.People.me", broken)
    with capture_logs() as logs:
        answer = await world.ask(ann, "GET", "/users/me")
    error_id = answer.json()["id"]
    assert re.fullmatch("[0-9a-f]{32}", error_id)
    assert refusal(answer) == (
        500,
        {"detail": f"internal error {error_id}", "code": "internal", "retryable": False, "id": error_id},
    )
    [entry] = logs
    assert (entry["event"], entry["id"], entry["path"]) == ("request failed", error_id, "/api/v1/users/me")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("content", "status", "code", "detail"),
    [
        (
            b"{",
            400,
            "bad_json",
            "the body is not JSON: Expecting property name enclosed in double quotes at character 1",
        ),
        (b"", 422, "invalid_data", "body: field required"),
        (b"[]", 422, "invalid_data", "body: input should be a valid dictionary or object to extract fields from"),
        (b"[" * 100_000, 400, "invalid_data", "there was an error parsing the body"),
        (b'{"name": ' + b"9" * 5_000 + b"}", 400, "invalid_data", "there was an error parsing the body"),
        (b'{"name": "\xff"}', 400, "invalid_data", "there was an error parsing the body"),
        (
            b'{"name": "\\ud800"}',
            422,
            "invalid_data",
            "name: input should be a valid string, unable to parse raw data as a unicode string, not '\\ud800'",
        ),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    world: World, content: bytes, status: int, code: str, detail: str
) -> None:
    ann = await world.person("Ann")
    answer = await world.ask(ann, "POST", "/chat/rooms", content=content, headers={"Content-Type": "application/json"})
    assert refusal(answer) == refused(status, code, detail)


# --- bounds


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_refused(world: World, announced: bool) -> None:
    body = json.dumps({"name": "n" * 300_000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    ann = await world.person("Ann")
    answer = await world.ask(
        ann,
        "POST",
        "/chat/rooms",
        content=body if announced else pieces(),
        headers={"Content-Type": "application/json"},
    )
    assert refusal(answer) == refused(413, "frame_too_large", "the body has more than the 262,144 bytes allowed")


async def test_a_form_that_is_too_large_is_refused(world: World) -> None:
    form = {"username": "ann@example.com", "password": "p" * 300_000}
    answer = await world.ask(None, "POST", "/auth/login/access-token", data=form)
    assert refusal(answer) == refused(413, "frame_too_large", "the body has more than the 262,144 bytes allowed")


# --- headers


async def test_answers_are_kept_by_nobody_and_pages_are_asked_for_again(world: World) -> None:
    for path, policy, cached in (
        ("/healthz", PAGE_POLICY, "no-store"),
        ("/api/v1/users/me", PAGE_POLICY, "no-store"),
        ("/docs", DOCS_POLICY, "no-cache"),
        ("/docs/files/swagger-ui.css", DOCS_POLICY, "no-cache"),
        ("/openapi.json", PAGE_POLICY, "no-cache"),
    ):
        headers = (await world.http.get(path)).headers
        assert headers["Content-Security-Policy"] == policy, path
        assert headers["Cache-Control"] == cached, path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"


async def test_pages_elsewhere_may_call_only_where_that_is_set(world: World, tmp_path: Path) -> None:
    elsewhere = {"Origin": "https://chat.example.org"}
    asking = {**elsewhere, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
    assert "Access-Control-Allow-Origin" not in (await world.http.get("/healthz", headers=elsewhere)).headers
    (tmp_path / "open").mkdir()
    async with new_world(tmp_path / "open", cors_origins=("https://chat.example.org",)) as open_world:
        for path in ("/healthz", "/api/v1/users/me"):
            answer = await open_world.http.get(path, headers=elsewhere)
            assert answer.headers["Access-Control-Allow-Origin"] == "https://chat.example.org"
        allowed = await open_world.http.options("/api/v1/chat/messages/1", headers=asking)
        assert (allowed.status_code, allowed.headers["Access-Control-Allow-Headers"]) == (
            200,
            "Accept, Accept-Language, Authorization, Content-Language, Content-Type, Idempotency-Key",
        )


# --- health


async def test_alive_and_ready(world: World) -> None:
    assert (await world.http.get("/healthz")).json() == {"status": "ok"}
    assert (await world.http.get("/readyz")).json() == {"status": "ok"}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_without_its_database_a_server_is_alive_not_ready_and_says_so(tmp_path: Path, closed_port: int) -> None:
    gone = f"postgresql+asyncpg://ann@127.0.0.1:{closed_port}/fastsock"
    async with new_world(tmp_path, elsewhere=gone) as world:
        assert (await world.http.get("/healthz")).status_code == 200
        ann = Person(1, "ann@example.com", create_access_token(1, SECRET, 60, NOW_MS / 1000))
        away = {"code": "storage_unavailable", "retryable": True, "retry_after_ms": 500}
        with capture_logs() as logs:
            answer = await world.ask(ann, "GET", "/chat/rooms")
        assert refusal(answer) == (503, {"detail": "the database is not available", **away})
        assert answer.headers["Retry-After"] == "1"
        status, body = refusal(await world.http.get("/readyz"))
        assert f"127.0.0.1:{closed_port}" in body["detail"]
        assert (status, body) == (503, {"detail": body["detail"], **away})
        expected = {"event": "storage unavailable", "path": "/api/v1/chat/rooms", "cause": body["detail"]}
        assert logs == [{**expected, "log_level": "warning"}]


# --- calls


async def test_ice_servers_are_configured_and_turn_is_each_users_own(tmp_path: Path) -> None:
    stun = {"urls": ["stun:stun.example.com:3478"]}
    turn = "turn:turn.example.com"
    async with new_world(tmp_path, ice_servers=(stun,), turn_urls=(turn,), turn_secret="north") as world:
        ann = await world.person("Ann")
        answer = await world.get(ann, "/webrtc/ice-servers")
        assert answer["ice_servers"][0] == stun
        assert answer["ice_servers"][1]["urls"] == [turn]
        assert answer["ice_servers"][1]["username"] == f"{NOW_MS // 1000 + 86_400}:{ann.id}"
        assert set(answer["ice_servers"][1]) == {"urls", "username", "credential"}


async def test_without_configuration_there_are_no_ice_servers(world: World) -> None:
    assert await world.get(await world.person("Ann"), "/webrtc/ice-servers") == {"ice_servers": []}


# --- pages


async def test_the_page_of_the_api_needs_nothing_from_elsewhere(world: World) -> None:
    page = await world.http.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<title>FastSock API</title>" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    found = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text)
    loaded = [one or other for one, other in found]
    assert loaded == [
        "/docs/files/swagger-ui.css",
        "/docs/files/favicon.png",
        "/docs/files/swagger-ui-bundle.js",
        "/openapi.json",
    ]
    types = [(await world.http.get(path)).headers["Content-Type"].partition(";")[0] for path in loaded]
    assert types == ["text/css", "image/png", "text/javascript", "application/json"]


async def test_the_web_client_is_served_with_types_that_browsers_take(world: World) -> None:
    page = await world.http.get("/")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert (await world.http.head("/")).status_code == 200
    modules = re.findall(r"""(?:src|href)="(/web/[^"]+)\"""", page.text)
    assert modules
    for path in modules:
        answer = await world.http.get(path)
        assert answer.status_code == 200, path
        expected = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[Path(path).suffix]
        assert answer.headers["Content-Type"].partition(";")[0] == expected
        again = await world.http.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
    assert refusal(await world.http.get("/web/../core/config.py"))[0] == 404
    assert refusal(await world.http.get("/web/%2e%2e/core/config.py"))[0] == 404


# --- the description


def test_every_route_is_described_and_no_other(world: World) -> None:
    assert set(described(world)) == ROUTES


def test_every_description_has_its_answer_its_refusals_and_its_words(world: World) -> None:
    for route, operation in described(world).items():
        assert operation["description"], route
        assert operation["tags"], route
        [good] = [answer for status, answer in operation["responses"].items() if status == "200"]
        assert good["content"]["application/json"]["schema"], route
        for status, answer in operation["responses"].items():
            if status != "200":
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Problem"}, (
                    route
                )
                for code in answer["description"].removeprefix("`code`: ").split(", "):
                    assert code == "the reason" or str(TABLE[code].http_status) == status, route
        needs_token = "/api/" in route and "/auth/" not in route
        assert operation.get("security", []) == ([{"Login": []}] if needs_token else []), route
        assert ("401" in operation["responses"]) == needs_token, route


def test_authorize_logs_in_with_the_form(world: World) -> None:
    assert world.app.openapi()["components"]["securitySchemes"] == {
        "Login": {
            "type": "oauth2",
            "description": "Username is the e-mail address.",
            "flows": {"password": {"scopes": {}, "tokenUrl": "/api/v1/auth/login/access-token"}},
        }
    }


def test_operations_have_short_names_for_generated_clients(world: World) -> None:
    names = [operation["operationId"] for operation in described(world).values()]
    assert len(set(names)) == len(names)
    assert {"sign_up", "log_in", "create_room", "room_history"} <= set(names)


# --- nonsense

numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(), max_size=20) | st.sampled_from(["\0", "\ud800", "", "1", "null", "n" * 300])
nonsense = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("email", "password", "full_name", "name", "member_ids", "user_ids", "content")
bodies = nonsense | st.dictionaries(st.sampled_from(FIELDS), nonsense, min_size=1)
raw = st.binary(max_size=60) | st.sampled_from(
    [b"", b"{", b"[" * 100_000, b'{"name": 1e999}', b'{"name": "\\ud800"}', b'"\xff"', b"NaN", b"9" * 5_000]
)
queries = st.dictionaries(st.sampled_from(["skip", "limit", "before", "after", "q"]), texts | numbers.map(str))


KINDS = [*["application/json"] * 4, "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense"]

ids = st.sampled_from(["1", "2", "0", "-1", str(2**53 - 1), str(2**53), "9" * 4_999, "x", "%00", "%ff", "\u0663", " 1"])


def as_json(body: object) -> bytes:
    """Whatever Python can put into JSON, lone surrogates as escapes included."""
    return json.dumps(body).encode()


def harmless(answer: httpx.Response) -> None:
    """Neither a failure of ours nor an answer that a client could not read."""
    assert answer.status_code < 500, answer.text
    body = answer.json()
    if answer.status_code >= 400:
        assert set(body) == {"detail", "code", "retryable"}
        assert body["detail"]
        assert len(body["detail"]) < 2_000


tried = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@tried
@given(data=st.data())
async def test_nonsense_never_fails(world: World, data: st.DataObject) -> None:
    await try_nonsense(world, data)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with PostgresServer() as server:
        url = server.create_database()
        migrate.upgrade(url)
        yield url


@pytest.fixture
async def world_on_postgresql(tmp_path: Path, postgresql: str) -> AsyncIterator[World]:
    async with new_world(tmp_path, elsewhere=postgresql) as made:
        yield made


@tried
@given(data=st.data())
async def test_nonsense_never_fails_on_postgresql(world_on_postgresql: World, data: st.DataObject) -> None:
    """The stricter of the two: it refuses U+0000, and numbers that SQLite takes."""
    await try_nonsense(world_on_postgresql, data)


async def try_nonsense(world: World, data: st.DataObject) -> None:
    if world.somebody is None:
        world.somebody = await world.person("Ann")
        await world.room(world.somebody)
    method, _, path = data.draw(st.sampled_from(sorted(ROUTES))).partition(" ")
    path = re.sub(r"\{\w+\}", lambda _: data.draw(ids), path)
    content = data.draw(raw | bodies.map(as_json))
    kind = data.draw(st.sampled_from(KINDS))
    query = {key: value.encode("utf-8", "surrogatepass") for key, value in data.draw(queries).items()}
    headers = {**world.somebody.bearer, "Content-Type": kind}
    answer = await world.http.request(method, path, content=content, params=query, headers=headers)
    event(f"{answer.status_code} {answer.json().get('code') if answer.status_code >= 400 else ''}")
    harmless(answer)

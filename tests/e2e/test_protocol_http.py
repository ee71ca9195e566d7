"""The HTTP half of ``protocol.md`` on a running server, through its ingress: every route, its answers and refusals.

What each route refuses in all detail is for the unit tests of `fastsock.api`; here is what clients see.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import uuid
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from fastsock.core.limits import DEFAULT_PAGE
from fastsock.schemas.names import MAX_ID
from tests.e2e.people import API, PASSWORD
from tests.e2e.test_protocol_messages import message
from tests.e2e.test_protocol_socket import ISO
from tests.e2e.wire import Account, Town

pytestmark = pytest.mark.cluster

USER = {"id", "email", "full_name", "is_active"}
ROUTES = {
    "POST /api/v1/auth/signup": False,
    "POST /api/v1/auth/login/access-token": False,
    "GET /api/v1/users/me": True,
    "PATCH /api/v1/users/me": True,
    "GET /api/v1/users/": True,
    "GET /api/v1/chat/rooms": True,
    "POST /api/v1/chat/rooms": True,
    "GET /api/v1/chat/rooms/{room_id}": True,
    "GET /api/v1/chat/rooms/{room_id}/members": True,
    "POST /api/v1/chat/rooms/{room_id}/members": True,
    "DELETE /api/v1/chat/rooms/{room_id}/members/{user_id}": True,
    "GET /api/v1/chat/unread": True,
    "GET /api/v1/chat/history/room/{room_id}": True,
    "GET /api/v1/chat/history/user/{user_id}": True,
    "PUT /api/v1/chat/messages/{message_id}": True,
    "DELETE /api/v1/chat/messages/{message_id}": True,
    "GET /api/v1/webrtc/ice-servers": True,
    "GET /healthz": False,
    "GET /readyz": False,
}
"""Every route of this version, and whether it asks for a token."""


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and detail of a refusal whose body has the form of all of them."""
    body = answer.json()
    assert set(body) == {"detail", "code", "retryable"}, body
    assert body["retryable"] is False
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, body["code"], body["detail"]


async def say(town: Town, who: Account, *contents: str, **where: object) -> list[dict[str, Any]]:
    """Send messages over a socket; their acks."""
    wire = await town.open(who)
    acks = [await wire.post(content, **where) for content in contents]
    await wire.close()
    return acks


# --- accounts ----------------------------------------------------------------------------------------------------


async def test_sign_up_and_log_in(town: Town) -> None:
    email = f"ada.{uuid.uuid4().hex}@example.com"
    body = {"email": email.upper(), "password": PASSWORD, "full_name": "Ada Lovelace"}
    answer = await town.http.post(f"{town.api}/auth/signup", json=body)
    assert answer.status_code == 200
    user = answer.json()
    assert user == {"id": user["id"], "email": email, "full_name": "Ada Lovelace", "is_active": True}

    again = await town.http.post(f"{town.api}/auth/signup", json=body)
    assert refusal(again) == (400, "email_taken", f"the e-mail address {email} is already registered")

    login = f"{town.api}/auth/login/access-token"
    answer = await town.http.post(login, data={"username": email, "password": PASSWORD, "grant_type": "password"})
    assert answer.status_code == 200
    token = answer.json()
    assert token == {"access_token": token["access_token"], "token_type": "bearer", "expires_in": 24 * 3600}
    assert answer.headers["cache-control"] == "no-store"
    me = await town.http.get(f"{town.api}/users/me", headers={"Authorization": f"Bearer {token['access_token']}"})
    assert (me.status_code, me.json()) == (200, user)

    for form in ({"username": email, "password": "wrong horse"}, {"username": "nobody@example.com", "password": "x"}):
        refused = await town.http.post(login, data=form)
        assert refusal(refused) == (400, "bad_credentials", "incorrect email or password")
    json_instead = await town.http.post(login, json={"username": email, "password": PASSWORD})
    assert json_instead.status_code == 422


async def test_an_account_needs_an_address_and_a_password(town: Town) -> None:
    url = f"{town.api}/auth/signup"
    short = await town.http.post(url, json={"email": "a@example.com", "password": "short"})
    assert refusal(short) == (422, "weak_password", "the password has 5 of at least 8 characters")
    bad = await town.http.post(url, json={"email": "nobody", "password": PASSWORD})
    status, code, detail = refusal(bad)
    assert (status, code) == (422, "invalid_data")
    assert detail.startswith("email: not an e-mail address: ")
    assert PASSWORD not in bad.text
    nothing = await town.http.post(url, content=b"{", headers={"Content-Type": "application/json"})
    assert refusal(nothing)[:2] == (400, "bad_json")


async def test_two_people_cannot_have_one_address(town: Town) -> None:
    body = {"email": f"twins.{uuid.uuid4().hex}@example.com", "password": PASSWORD}
    answers = await asyncio.gather(*(town.http.post(f"{town.api}/auth/signup", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 400} == {"email_taken"}


@pytest.mark.parametrize("route", [route for route, guarded in ROUTES.items() if guarded])
async def test_nothing_is_done_without_a_token(town: Town, route: str) -> None:
    method, path = route.split(" ")
    url = town.server.url + re.sub(r"\{\w+\}", "1", path)
    expired, foreign = town.token(1, -1), town.token(1, 60, secret="s" * 64)
    for headers, code, detail in (
        ({}, "not_authenticated", "no token: send it as Authorization: Bearer TOKEN"),
        ({"Authorization": "Basic eDp5"}, "not_authenticated", "no token: send it as Authorization: Bearer TOKEN"),
        ({"Authorization": "Bearer nonsense"}, "not_authenticated", "the token is not valid"),
        ({"Authorization": f"Bearer {foreign}"}, "not_authenticated", "the token is not valid"),
        ({"Authorization": f"Bearer {expired}"}, "token_expired", "the token has expired"),
    ):
        answer = await town.http.request(method, url, headers=headers)
        assert refusal(answer) == (401, code, detail)
        assert answer.headers["www-authenticate"] == "Bearer"


# --- users -------------------------------------------------------------------------------------------------------


async def test_users_see_themselves_and_the_others(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    me = (await town.ask(ada, "GET", "users/me")).json()
    assert me == {"id": ada.id, "email": ada.email, "full_name": "Ada", "is_active": True}
    found = (await town.ask(ada, "GET", f"users/?q={bea.email.split('@')[0]}")).json()
    assert found == [{"id": bea.id, "email": bea.email, "full_name": "Bea", "is_active": True}]

    everybody = await _all_users(town, ada)
    assert [user["id"] for user in everybody] == sorted(user["id"] for user in everybody)
    assert {ada.id, bea.id} <= {user["id"] for user in everybody}
    assert all(set(user) == USER for user in everybody)
    assert (await town.ask(ada, "GET", "users/?skip=1&limit=1")).json() == everybody[1:2]
    assert (await town.ask(ada, "GET", "users?limit=1")).json() == everybody[:1]  # the slash may be left out
    assert refusal(await town.ask(ada, "GET", "users/?limit=201")) == (
        422,
        "invalid_data",
        "limit: input should be less than or equal to 200, not '201'",
    )


async def _all_users(town: Town, who: Account) -> list[dict[str, Any]]:
    users: list[dict[str, Any]] = []
    while page := (await town.ask(who, "GET", f"users/?skip={len(users)}&limit=200")).json():
        users += page
    return users


async def test_users_change_their_names_and_nothing_else(town: Town) -> None:
    ada = await town.person("ada")
    answer = await town.ask(ada, "PATCH", "users/me", full_name="  Ada, Countess of Lovelace ", email="x@example.com")
    expected = {"id": ada.id, "email": ada.email, "full_name": "Ada, Countess of Lovelace", "is_active": True}
    assert (answer.status_code, answer.json()) == (200, expected)
    assert (await town.ask(ada, "PATCH", "users/me", phone="unknown")).json() == expected
    assert (await town.ask(ada, "GET", "users/me")).json() == expected
    long = await town.ask(ada, "PATCH", "users/me", full_name="x" * 201)
    assert refusal(long)[:2] == (422, "invalid_data")


# --- rooms -------------------------------------------------------------------------------------------------------


async def test_rooms_are_made_listed_and_seen_by_their_members(town: Town) -> None:
    ada, bea, eve = await town.people("ada", "bea", "eve")
    answer = await town.ask(ada, "POST", "chat/rooms", name=" Engine room ", member_ids=[bea.id, bea.id, ada.id])
    assert answer.status_code == 200
    room = answer.json()
    assert room == {
        "id": room["id"],
        "name": "Engine room",
        "is_group": True,
        "owner_id": ada.id,
        "member_count": 2,
        "created_at": room["created_at"],
    }
    assert ISO.fullmatch(room["created_at"])
    alone = (await town.ask(ada, "POST", "chat/rooms", name="Alone")).json()
    assert (alone["owner_id"], alone["member_count"]) == (ada.id, 1)

    assert (await town.ask(bea, "GET", "chat/rooms")).json() == [room]
    assert {one["id"] for one in (await town.ask(ada, "GET", "chat/rooms")).json()} == {room["id"], alone["id"]}
    assert (await town.ask(eve, "GET", "chat/rooms")).json() == []
    path = f"chat/rooms/{room['id']}"
    assert (await town.ask(bea, "GET", path)).json() == room
    assert (await town.ask(bea, "GET", f"{path}/members")).json() == [
        {"user_id": ada.id, "role": "owner", "joined_seq": 1},
        {"user_id": bea.id, "role": "member", "joined_seq": 1},
    ]

    not_a_member = (403, "not_a_member", f"user {eve.id} is not a member of room:{room['id']}")
    for method, rest in (("GET", ""), ("GET", "/members"), ("DELETE", f"/members/{bea.id}")):
        assert refusal(await town.ask(eve, method, path + rest)) == not_a_member
    assert refusal(await town.ask(eve, "POST", f"{path}/members", user_ids=[eve.id])) == not_a_member
    nowhere = await town.ask(ada, "GET", f"chat/rooms/{MAX_ID}")
    assert refusal(nowhere) == (404, "room_not_found", f"room {MAX_ID} does not exist")


async def test_a_room_needs_a_name_and_people_who_exist(town: Town) -> None:
    ada = await town.person("ada")
    nobody = await town.ask(ada, "POST", "chat/rooms", name="Ghosts", member_ids=[ada.id, MAX_ID])
    assert refusal(nobody) == (404, "user_not_found", f"no such users, or not active: {MAX_ID}")
    assert refusal(await town.ask(ada, "POST", "chat/rooms", name="  "))[:2] == (422, "invalid_data")
    assert refusal(await town.ask(ada, "POST", "chat/rooms", name="x" * 201))[:2] == (422, "invalid_data")
    assert refusal(await town.ask(ada, "POST", "chat/rooms", name="x", member_ids=[True]))[:2] == (422, "invalid_data")
    assert (await town.ask(ada, "GET", "chat/rooms")).json() == []


async def test_members_are_added_removed_and_leave(town: Town) -> None:
    ada, bea, cleo, dora = await town.people("ada", "bea", "cleo", "dora")
    room = await town.room(ada, bea)
    path = f"chat/rooms/{room}/members"
    added = await town.ask(ada, "POST", path, user_ids=[cleo.id, bea.id, dora.id])
    assert added.status_code == 200
    assert added.json() == {
        "room_id": room,
        "seq": 2,
        "timestamp": added.json()["timestamp"],
        "user_ids": [cleo.id, dora.id],
        "by": ada.id,
    }
    members = (await town.ask(cleo, "GET", path)).json()
    assert [(member["user_id"], member["role"], member["joined_seq"]) for member in members] == [
        (ada.id, "owner", 1),
        (bea.id, "member", 1),
        (cleo.id, "member", 2),
        (dora.id, "member", 2),
    ]
    assert (await town.ask(ada, "GET", f"chat/rooms/{room}")).json()["member_count"] == 4

    plain = f"user {bea.id} is a member of room:{room}, not its owner or an admin"
    assert refusal(await town.ask(bea, "POST", path, user_ids=[1])) == (403, "not_allowed", plain)
    assert refusal(await town.ask(bea, "DELETE", f"{path}/{cleo.id}")) == (403, "not_allowed", plain)
    again = await town.ask(ada, "POST", path, user_ids=[bea.id])
    assert refusal(again) == (409, "already_a_member", f"already in room:{room}: {bea.id}")
    ghost = await town.ask(ada, "POST", path, user_ids=[MAX_ID])
    assert refusal(ghost) == (404, "user_not_found", f"no such users, or not active: {MAX_ID}")

    removed = await town.ask(ada, "DELETE", f"{path}/{cleo.id}")
    assert (removed.status_code, removed.json()["user_ids"], removed.json()["by"]) == (200, [cleo.id], ada.id)
    left = await town.ask(dora, "DELETE", f"{path}/{dora.id}")
    assert (left.status_code, left.json()["user_ids"], left.json()["by"]) == (200, [dora.id], dora.id)
    gone = await town.ask(dora, "DELETE", f"{path}/{dora.id}")
    assert refusal(gone) == (403, "not_a_member", f"user {dora.id} is not a member of room:{room}")
    assert [member["user_id"] for member in (await town.ask(bea, "GET", path)).json()] == [ada.id, bea.id]
    assert (await town.ask(cleo, "GET", "chat/rooms")).json() == []


async def test_a_change_with_an_idempotency_key_happens_once(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada)
    url, headers = f"{town.api}/chat/rooms/{room}/members", {**ada.headers, "Idempotency-Key": "add-bea"}
    first = await town.http.post(url, json={"user_ids": [bea.id]}, headers=headers)
    assert first.status_code == 200
    assert (await town.ask(bea, "DELETE", f"chat/rooms/{room}/members/{bea.id}")).status_code == 200
    again = await town.http.post(url, json={"user_ids": [bea.id]}, headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())
    assert [member["user_id"] for member in (await town.ask(ada, "GET", f"chat/rooms/{room}/members")).json()] == [
        ada.id
    ]


# --- what was said -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_room", [True, False], ids=["room", "person"])
async def test_history_is_paged_oldest_first(town: Town, of_room: bool) -> None:
    ada, bea = await town.people("ada", "bea")
    room = await town.room(ada, bea)
    where = {"room_id": room} if of_room else {"receiver_id": bea.id}
    acks = await say(town, ada, *(f"message {number}" for number in range(7)), **where)
    path = f"chat/history/room/{room}" if of_room else f"chat/history/user/{ada.id}"
    whole = [message(ack, ada, f"message {number}") for number, ack in enumerate(acks)]
    first = acks[0]["seq"]

    async def read(query: str = "") -> list[dict[str, Any]]:
        answer = await town.ask(bea, "GET", path + query)
        assert answer.status_code == 200, answer.text
        page: list[dict[str, Any]] = answer.json()
        return page

    assert await read() == whole
    assert await read("?limit=3") == whole[4:]
    assert await read("?limit=3&skip=3") == whole[1:4]
    assert await read("?limit=3&skip=6") == whole[:1]
    assert await read("?skip=7") == []
    assert await read(f"?before={first + 4}&limit=2") == whole[2:4]
    assert await read(f"?after={first + 1}&limit=2") == whole[2:4]
    assert await read(f"?after={first + 6}") == []
    assert await read("?after=0") == whole
    assert await read("?limit=1&skip=0&unknown=1") == whole[6:]
    both = await town.ask(bea, "GET", f"{path}?before=5&after=2")
    assert refusal(both) == (422, "invalid_data", "before: 5 and after: 2 exclude each other")
    for query in ("?limit=0", "?limit=201", "?skip=-1", "?before=-1", "?limit=many"):
        assert refusal(await town.ask(bea, "GET", path + query))[:2] == (422, "invalid_data")


async def test_a_page_of_history_has_fifty_messages(town: Town) -> None:
    ada = await town.person("ada")
    wire = await town.open(ada)
    await asyncio.gather(*(wire.post(f"note {number}", receiver_id=ada.id) for number in range(50)))
    await say(town, ada, "one more", receiver_id=ada.id)
    page = (await town.ask(ada, "GET", f"chat/history/user/{ada.id}")).json()
    assert DEFAULT_PAGE == 50
    assert [item["seq"] for item in page] == list(range(2, 52))


async def test_history_is_for_those_who_belong(town: Town) -> None:
    ada, bea, eve = await town.people("ada", "bea", "eve")
    room = await town.room(ada, bea)
    await say(town, ada, "for the room", room_id=room)
    await say(town, ada, "for you", receiver_id=bea.id)
    refused = await town.ask(eve, "GET", f"chat/history/room/{room}")
    assert refusal(refused) == (403, "not_a_member", f"user {eve.id} is not a member of room:{room}")
    assert "for the room" not in refused.text
    for other in (ada, bea):
        assert (await town.ask(eve, "GET", f"chat/history/user/{other.id}")).json() == []
    assert refusal(await town.ask(ada, "GET", f"chat/history/room/{MAX_ID}")) == (
        404,
        "room_not_found",
        f"room {MAX_ID} does not exist",
    )
    assert refusal(await town.ask(ada, "GET", f"chat/history/user/{MAX_ID}")) == (
        404,
        "user_not_found",
        f"no such users, or not active: {MAX_ID}",
    )
    assert (await town.ask(bea, "DELETE", f"chat/rooms/{room}/members/{bea.id}")).status_code == 200
    gone = await town.ask(bea, "GET", f"chat/history/room/{room}")
    assert refusal(gone) == (403, "not_a_member", f"user {bea.id} is not a member of room:{room}")


async def test_unread_counts_have_ids_as_strings(town: Town) -> None:
    ada, bea = await town.people("ada", "bea")
    room, silent = await town.room(ada, bea), await town.room(ada, bea)
    assert (await town.ask(bea, "GET", "chat/unread")).json() == {"users": {}, "rooms": {}}
    acks = await say(town, ada, "one", "two", "three", room_id=room)
    await say(town, ada, "you", receiver_id=bea.id)
    await say(town, bea, "mine", room_id=silent)
    assert (await town.ask(bea, "GET", "chat/unread")).json() == {
        "users": {str(ada.id): 1},
        "rooms": {str(room): 3},
    }
    assert (await town.ask(ada, "GET", "chat/unread")).json() == {"users": {}, "rooms": {str(silent): 1}}
    assert (await town.ask(ada, "DELETE", f"chat/messages/{acks[1]['message_id']}")).status_code == 200
    assert (await town.ask(bea, "GET", "chat/unread")).json()["rooms"] == {str(room): 2}


async def test_messages_are_changed_by_their_authors(town: Town) -> None:
    ada, bea, eve = await town.people("ada", "bea", "eve")
    room = await town.room(ada, bea)
    [ack] = await say(town, bea, "mine", room_id=room)
    identity = ack["message_id"]
    path = f"chat/messages/{identity}"

    by_another = f"user {ada.id} may not change it: message {identity} is by user {bea.id}"
    refused = await town.ask(ada, "PUT", path, content="yours")
    assert refusal(refused) == (403, "not_the_author", by_another)
    not_a_member = (403, "not_a_member", f"user {eve.id} is not a member of room:{room}")
    assert refusal(await town.ask(eve, "PUT", path, content="yours")) == not_a_member
    assert refusal(await town.ask(eve, "DELETE", path)) == not_a_member
    [hers] = await say(town, ada, "ada's", room_id=room)
    by_another = f"user {bea.id} may not change it: message {hers['message_id']} is by user {ada.id}"
    refused = await town.ask(bea, "DELETE", f"chat/messages/{hers['message_id']}")
    assert refusal(refused) == (403, "not_the_author", by_another)

    edited = await town.ask(bea, "PUT", path, content="still mine")
    assert edited.status_code == 200
    assert edited.json() == {
        **message(ack, bea, "still mine"),
        "edited_at": edited.json()["edited_at"],
    }
    assert ISO.fullmatch(edited.json()["edited_at"])
    history = (await town.ask(ada, "GET", f"chat/history/room/{room}")).json()
    assert history[0] == edited.json()

    for content, code, detail in (
        (" ", "invalid_data", "content: must not be blank"),
        (
            "x" * 16_385,
            "content_too_long",
            "content: 16,385 characters in 16,385 bytes; at most 16,384 characters and 49,152 bytes are allowed",
        ),
    ):
        assert refusal(await town.ask(bea, "PUT", path, content=content)) == (422, code, detail)
    assert refusal(await town.ask(bea, "PUT", f"chat/messages/{MAX_ID}", content="x")) == (
        404,
        "message_not_found",
        f"there is no message {MAX_ID}",
    )

    deleted = await town.ask(bea, "DELETE", path)
    assert (deleted.status_code, deleted.json()) == (200, {"ok": True})
    refused = await town.ask(bea, "PUT", path, content="back")
    assert refusal(refused)[:2] == (409, "message_deleted")
    tombstone = (await town.ask(ada, "GET", f"chat/history/room/{room}")).json()[0]
    assert (tombstone["id"], tombstone["content"], tombstone["deleted"]) == (identity, "", True)


async def test_ice_servers_are_for_users(town: Town) -> None:
    ada = await town.person("ada")
    answer = await town.ask(ada, "GET", "webrtc/ice-servers")
    assert (answer.status_code, answer.json()) == (200, {"ice_servers": []})  # none is configured here


# --- pages and what is around them -------------------------------------------------------------------------------


async def test_the_description_has_every_route(town: Town) -> None:
    described = (await town.http.get(f"{town.server.url}/openapi.json")).json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == set(ROUTES)
    for route, guarded in ROUTES.items():
        operation = operations[route]
        assert operation["description"], route
        assert operation["tags"], route
        assert operation["responses"]["200"]["content"]["application/json"]["schema"] != {}, route
        assert bool(operation.get("security")) is guarded, route
        assert ("401" in operation["responses"]) is guarded, route
        for parameter in operation.get("parameters", []):
            assert parameter["schema"], route
    login = described["components"]["securitySchemes"]["Login"]["flows"]["password"]
    assert login["tokenUrl"].endswith(f"{API.removeprefix('/')}/auth/login/access-token")


@pytest.mark.parametrize("page", ["/", "/docs"])
async def test_pages_load_nothing_from_elsewhere(town: Town, page: str) -> None:
    answer = await town.http.get(town.server.url + page)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert (policy["object-src"], policy["base-uri"], policy["frame-ancestors"]) == ("'none'", "'none'", "'none'")
    assert not re.search(r"https?:|\*", answer.headers["content-security-policy"])
    assert ("'unsafe-inline'" in policy.get("script-src", "")) is (page == "/docs")  # Swagger UI needs it, ours not
    assert answer.headers["x-content-type-options"] == "nosniff"

    seen: set[str] = set()
    todo = _references(answer.text, page)
    assert any(path.endswith(".js") for path in todo)
    assert any(path.endswith(".css") for path in todo)
    while todo:
        path = todo.pop()
        seen.add(path)
        assert path.startswith("/"), f"{page} loads {path}"
        asset = await town.http.get(town.server.url + path)
        assert asset.status_code == 200, path
        if path.startswith("/web/") and path.endswith(".js"):
            assert asset.headers["content-type"].startswith("text/javascript")
            imports = re.findall(r"""(?:from|import)\s*\(?["']([^"']+)["']""", asset.text)
            todo |= {urljoin(path, name) for name in imports} - seen
    assert len(seen) >= 3


def _references(html: str, page: str) -> set[str]:
    """What the page loads."""
    found = re.findall(r"""<(?:script|link|img)[^>]*?(?:src|href)=["']([^"']+)["']""", html)
    return {urljoin(page, reference) for reference in found}


async def test_what_is_not_there_is_said_in_the_same_words(town: Town) -> None:
    ada = await town.person("ada")
    for path, detail in (
        ("/api/v1/nothing", "there is nothing at /api/v1/nothing"),
        ("/nothing.js", "there is nothing at /nothing.js"),
        ("/web/../../core/config.py", "there is nothing at /core/config.py"),
        ("/web/%2e%2e/core/config.py", None),
    ):
        status, code, said = refusal(await town.http.get(town.server.url + path, headers=ada.headers))
        assert (status, code) == (404, "not_found")
        assert detail in {None, said}
    assert refusal(await town.ask(ada, "DELETE", "chat/rooms")) == (
        405,
        "method_not_allowed",
        "/api/v1/chat/rooms does not take DELETE",
    )


async def test_the_gateway_answers_http_too(town: Town) -> None:
    healthy = await town.http.get(f"{town.api}/ws/healthz")
    assert (healthy.status_code, healthy.json()["status"]) == (200, "ok")
    chat = await town.http.get(f"{town.api}/ws/chat")
    assert (chat.status_code, chat.headers["upgrade"]) == (426, "websocket")
    assert chat.json() == {"detail": "/api/v1/ws/chat is a WebSocket: ask for an upgrade", "code": "bad_frame"}
    nothing = await town.http.get(f"{town.api}/ws/nothing")
    assert nothing.status_code == 404
    assert nothing.json()["detail"] == "there is nothing at /api/v1/ws/nothing"
    for path in ("/healthz", "/readyz"):
        answer = await town.http.get(town.server.url + path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_body_that_is_too_large_is_refused(town: Town) -> None:
    ada = await town.person("ada")
    answer = await town.ask(ada, "POST", "chat/rooms", name="x" * 300_000)
    assert refusal(answer) == (413, "frame_too_large", "the body has more than the 262,144 bytes allowed")


async def test_a_token_says_nothing_but_who_and_until_when(town: Town) -> None:
    ada = await town.person("ada")
    payload = ada.token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims == {"sub": str(ada.id), "iat": claims["iat"], "exp": claims["iat"] + 24 * 3600}

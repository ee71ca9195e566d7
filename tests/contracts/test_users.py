"""Accounts."""

from __future__ import annotations

import asyncio

import pytest

from fastsock.core.errors import PolicyError
from fastsock.db.engine import Database
from fastsock.db.users import UserRow, Users
from tests.contracts.entries import deactivate


@pytest.fixture
def users(db: Database) -> Users:
    return Users(db)


async def test_an_account_is_found_however_its_address_is_written(users: Users) -> None:
    made = await users.create("Ann@Example.com", "hash", "Ann Ärger")
    assert made == UserRow(
        id=10, email="ann@example.com", full_name="Ann Ärger", is_active=True, created_at_ms=made.created_at_ms,
        password_hash="hash",
    )  # fmt: skip
    assert await users.by_email("ANN@example.COM") == made
    assert await users.by_id(10) == made
    assert await users.by_email("bob@example.com") is None
    assert await users.by_id(11) is None
    assert repr(made) == "UserRow(id=10)", "no hash in a log"


async def test_an_address_has_one_account(users: Users) -> None:
    await users.create("ann@example.com", "hash", None)
    with pytest.raises(PolicyError) as caught:
        await users.create("ANN@example.com", "other", None)
    taken = ("email_taken", "the e-mail address ann@example.com is already registered")
    assert (caught.value.code, caught.value.message) == taken
    assert [user.password_hash for user in await users.list(9, 10)] == ["hash"]


async def test_of_many_who_want_an_address_one_gets_it(users: Users) -> None:
    tries = [users.create("ann@example.com", f"{number}", None) for number in range(5)]
    made = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(user, UserRow) for user in made) == 1
    assert sum(isinstance(error, PolicyError) and error.code == "email_taken" for error in made) == 4


async def test_who_exists_and_is_active(users: Users, db: Database) -> None:
    await deactivate(db, 3)
    assert await users.existing([1, 2, 3, 99, 2]) == {1, 2}
    assert await users.existing([]) == set()
    assert await users.existing(range(1, 40_000)) == {1, 2, 4, 5, 6, 7, 8, 9}


async def test_lists(users: Users, db: Database) -> None:
    await users.create("zoe_100%@example.com", "hash", "Zoë ÄRGER")
    await users.create("anna@example.com", "hash", None)
    await deactivate(db, 2)

    async def ids(skip: int, limit: int, q: str | None = None) -> list[int]:
        return [user.id for user in await users.list(skip, limit, q)]

    assert await ids(0, 100) == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert await ids(2, 3) == [4, 5, 6]
    assert await ids(0, 100, "ärger") == [10], "whatever the case, in any script"
    assert await ids(0, 100, "ZOE_1") == [10]
    assert await ids(0, 100, "100%") == [10], "% and _ mean themselves"
    assert await ids(0, 100, "a_n") == []
    assert await ids(0, 100, "user 4") == [4]
    assert await ids(1, 1, "example.com") == [3]


async def test_changes(users: Users) -> None:
    named = await users.set_full_name(1, "Ann")
    assert named is not None
    assert named.full_name == "Ann"
    assert await users.by_id(1) == named
    unnamed = await users.set_full_name(1, None)
    assert unnamed is not None
    assert unnamed.full_name is None
    rehashed = await users.set_password_hash(1, "better")
    assert rehashed is not None
    assert rehashed.password_hash == "better"
    assert await users.set_full_name(99, "Nobody") is None
    assert await users.set_password_hash(99, "none") is None


async def test_ids_are_never_given_again(users: Users, db: Database) -> None:
    made = await users.create("ann@example.com", "hash", None)
    async with db.transaction() as connection:
        await connection.exec_driver_sql(f"DELETE FROM users WHERE id = {made.id}")  # noqa: S608
    assert (await users.create("ann@example.com", "hash", None)).id == made.id + 1

"""Names: made, taken apart, and turned into what a viewer calls them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsock.schemas import names

ids = st.integers(1, names.MAX_ID)


def test_names_look_like_the_contract_says() -> None:
    assert names.room(42) == "room:42"
    assert names.user(7) == "user:7"
    assert names.dm(3, 7) == names.dm(7, 3) == "dm:3:7"
    assert names.dm(3, 3) == "dm:3:3"


@given(ids, ids)
def test_every_name_that_is_made_can_be_taken_apart(one: int, other: int) -> None:
    assert names.parse(names.room(one)) == ("room", (one,))
    assert names.parse(names.user(one)) == ("user", (one,))
    assert names.parse(names.dm(one, other)) == ("dm", (min(one, other), max(one, other)))


@pytest.mark.parametrize(
    "name", ["", "rooms", "rooms:1", "room:1:2", "dm:1", "dm:1:2:3", "user:1:2", "ROOM:1", ":1", "call:1", "room:1\n:"]
)
def test_a_name_of_another_shape_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="names look like") as caught:
        names.parse(name)
    assert str(caught.value) == f"not an actor's name: {name!r}; names look like room:42, dm:3:7 or user:7"


@pytest.mark.parametrize(
    "name",
    [
        "room",
        "room:",
        "room:0",
        "room:-1",
        "room:01",
        "room:+1",
        "room: 1",
        "room:1 ",
        "room:1\n",
        "room:1_0",
        "room:x",
        "room:\u0661",  # an Arabic one: `int` would take it
        "dm:1:",
        "dm:0:1",
        f"user:{names.MAX_ID + 1}",
        "user:99999999999999999999",
    ],
)
def test_an_id_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="ids are") as caught:
        names.parse(name)
    assert str(caught.value) == f"not an actor's name: {name!r}; ids are integers from 1 to 9007199254740991"


def test_a_direct_conversation_has_one_name_only() -> None:
    with pytest.raises(ValueError, match="lesser") as caught:
        names.parse("dm:7:3")
    assert str(caught.value) == "not an actor's name: 'dm:7:3'; the lesser id comes first"


def test_a_direct_conversation_is_named_after_the_other() -> None:
    assert names.peer("dm:3:7", 3) == 7
    assert names.peer("dm:3:7", 7) == 3
    assert names.peer("dm:3:3", 3) == 3
    assert names.public("dm:3:7", 3) == "user:7"
    assert names.public("dm:3:7", 7) == "user:3"
    assert names.public("room:42", 7) == "room:42"
    assert names.private("user:7", 3) == "dm:3:7"
    assert names.private("room:42", 3) == "room:42"


def test_the_private_name_of_a_direct_conversation_is_not_public() -> None:
    with pytest.raises(ValueError, match="public") as caught:
        names.private("dm:3:7", 3)
    expected = "not a public name: 'dm:3:7'; a direct conversation is named after the other user, user:7"
    assert str(caught.value) == expected


@given(ids, ids, ids)
def test_private_is_the_inverse_of_public(viewer: int, other: int, room: int) -> None:
    for conversation in (names.dm(viewer, other), names.room(room)):
        assert names.private(names.public(conversation, viewer), viewer) == conversation


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused_with_its_reason(text: str) -> None:
    try:
        kind, parts = names.parse(text)
    except ValueError as error:
        assert str(error).startswith(f"not an actor's name: {text!r}; ")  # noqa: PT017 - one of two legal outcomes
    else:
        assert text == ":".join([kind, *map(str, parts)])

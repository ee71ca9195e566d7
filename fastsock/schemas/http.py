"""The bodies of HTTP requests and responses, as ``protocol.md`` and ``/docs`` show them.

What comes in is checked here as far as it can be without asking anybody: types, lengths, ids that a JavaScript number
holds, characters that a database can store. What goes out is described here; `Message` describes
`fastsock.schemas.frames.Message`, which is what is really encoded, so that history and live frames cannot differ.
"""

from __future__ import annotations

from typing import Annotated, Literal

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from fastsock.core.limits import MAX_FULL_NAME_CHARS, MAX_MEMBERS_PER_REQUEST, MAX_ROOM_NAME_CHARS
from fastsock.schemas.log import Role
from fastsock.schemas.names import MAX_ID

SPECIAL_USE_DOMAIN_NAMES.clear()  # the library's documented switch: ``.local``, ``.test`` and the like are names too

# --- values ------------------------------------------------------------------------------------------------------


def _storable(text: str) -> str:
    if "\0" in text:  # PostgreSQL's text has no place for it
        msg = "must not contain the character U+0000"
        raise ValueError(msg)
    return text


def _no_boolean(value: object) -> object:
    """JSON's true is Python's 1; user 1 was not meant."""
    if isinstance(value, bool):
        msg = "must be an integer"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueErrors
    return value


def _email(text: str) -> str:
    """A valid address in lower case; ``me@server.local`` is one, since chat servers live in offices too.

    RFC 5321, 2.4, lets a mail system tell ``Ann@`` from ``ann@``; none in use does, and people type both.
    """
    try:
        return validate_email(text, check_deliverability=False, globally_deliverable=False).normalized.lower()
    except EmailNotValidError as error:
        msg = f"not an e-mail address: {str(error)[:1].lower()}{str(error)[1:]}"
        raise ValueError(msg) from error


Id = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=MAX_ID)]
"""An id of a user, a room or a message: 1 to 2^53 - 1."""
Text = Annotated[str, AfterValidator(_storable)]
"""Characters that every database stores; lone surrogates are refused by pydantic, U+0000 here."""
Email = Annotated[
    str, AfterValidator(_email), Field(json_schema_extra={"format": "email"}, examples=["ann@example.com"])
]
FullName = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=MAX_FULL_NAME_CHARS), AfterValidator(_storable)
]
RoomName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_ROOM_NAME_CHARS),
    AfterValidator(_storable),
]


class Body(BaseModel):
    """What a client sends; fields this version does not know are ignored, as ``protocol.md`` says."""

    model_config = ConfigDict(extra="ignore")


# --- accounts and users --------------------------------------------------------------------------------------------


class SignUp(Body):
    """A new account."""

    email: Email
    password: Annotated[str, Field(description="8 to 128 characters", examples=["correct horse battery"])]
    full_name: Annotated[FullName | None, Field(examples=["Ann Arbor"])] = None


class Token(BaseModel):
    """What a client sends as ``Authorization: Bearer`` and as ``?token=`` of the WebSocket."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - its kind
    expires_in: Annotated[int, Field(description="seconds from now")]


class User(BaseModel):
    """A user, as others see them."""

    id: int
    email: str
    full_name: str | None
    is_active: bool


class Profile(Body):
    """What a user may change about themselves. A field that is left out stays as it is; null empties it."""

    full_name: Annotated[FullName | None, Field(examples=["Ann Arbor"])] = None


# --- rooms ---------------------------------------------------------------------------------------------------------


class NewRoom(Body):
    """A room to be. The caller belongs to it, named or not, and owns it."""

    name: Annotated[RoomName, Field(examples=["Engine room"])]
    member_ids: Annotated[list[Id], Field(description="up to 5,000 members in all", examples=[[2, 3]])] = []


class Room(BaseModel):
    """A room, as its members see it."""

    id: int
    name: str
    is_group: Literal[True] = True
    owner_id: int
    member_count: int
    created_at: str


class Member(BaseModel):
    """A member of a room."""

    user_id: int
    role: Role
    joined_seq: Annotated[int, Field(description="the log entry that made them a member")]


class NewMembers(Body):
    """Users to add to a room, as plain members. Who is in it already stays as they are."""

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_MEMBERS_PER_REQUEST, examples=[[4]])]


class Joined(BaseModel):
    """The data of the event ``room.member_joined`` that every member gets."""

    room_id: int
    seq: int
    timestamp: str
    user_ids: list[int]
    by: int


class Left(Joined):
    """The data of the event ``room.member_left`` that every member gets."""


class Unread(BaseModel):
    """Unread messages per conversation; those without any are left out. Keys are ids as strings."""

    users: dict[str, int]
    rooms: dict[str, int]


# --- messages ------------------------------------------------------------------------------------------------------


class Message(BaseModel):
    """A message, as ``message.receive`` carries it."""

    id: int
    content: Annotated[str, Field(description="empty for a deleted message")]
    sender_id: int
    receiver_id: Annotated[int | None, Field(description="null in a room")]
    room_id: Annotated[int | None, Field(description="null between two people")]
    message_type: Annotated[str, Field(description="text, image, file or system")]
    timestamp: Annotated[str, Field(examples=["2026-01-31T10:00:00.123Z"])]
    is_read: bool
    status: str
    reply_to: int | None
    reactions: Annotated[dict[str, list[str]], Field(description="per emoji, the ids of the users as strings")]
    seq: Annotated[int, Field(description="its place in the conversation's order")]
    client_msg_id: str | None
    edited_at: str | None
    deleted: bool


class NewContent(Body):
    """The new text of a message."""

    content: Annotated[Text, Field(description="up to 16,384 characters", examples=["Good morning!"])]


class Done(BaseModel):
    """It is so."""

    ok: Literal[True] = True


# --- calls and operation -------------------------------------------------------------------------------------------


class IceServer(BaseModel):
    """One entry of ``RTCConfiguration.iceServers`` (W3C WebRTC 1.0, 4.2.2)."""

    urls: str | list[str]
    username: str | None = None
    credential: str | None = None
    credentialType: str | None = None  # noqa: N815 - the browser's name


class IceServers(BaseModel):
    """What a browser's ``RTCPeerConnection`` needs to find its way."""

    ice_servers: list[IceServer]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Problem(BaseModel):
    """Every error's body."""

    detail: Annotated[str, Field(description="for people: names the value and the limit")]
    code: Annotated[str, Field(description="for programs: stable")]
    retryable: Annotated[bool, Field(description="whether the same request may succeed later")]
    retry_after_ms: Annotated[int | None, Field(description="how long to wait before that; left out where unknown")] = (
        None
    )
    id: Annotated[str | None, Field(description="of an internal error: under which it stands in the log")] = None

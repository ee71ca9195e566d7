"""The Python client: for bots, services, load generators and tests.

    async with Client.login("http://127.0.0.1:8000", "ann@example.com", "correct horse") as client:
        ack = await client.send("hello", room_id=42)          # or to=7; returns when it is committed
        async for event in client:
            match event:
                case MessageReceived(content=text, sender_id=who) if who != client.user_id:
                    await client.send(f"you said {text}", room_id=event.room_id, reply_to=event.id)
                case Reload(conversation=name):               # too much was missed
                    ...                                       # read it by client.api.history(...)

It reconnects by itself, with a new token where one is needed, and goes on where it was: in each conversation events
come in order, none is missing and none comes twice, whatever dies in between. A message is sent again until the server
has answered for good, and is delivered once. `Client.positions`, saved when events are dealt with and given to the
next process (``positions=``), carries all that over a restart, as ``client_msg_id=`` does for messages that were on
their way. A program that only sends says ``listen=False``; else events wait for the iterator, and when 10,000 wait, the
socket is not read any more. `Client.api` has rooms, members, history, edits: HTTP, typed. What can go wrong is in
`fastsock.client.errors`; what ends the client is raised by the iterator and by every `Client.send`.

`Core` is all of it without the network: frames and times in, actions out. Tests drive that one.
"""

from __future__ import annotations

from fastsock.client.api import Api
from fastsock.client.client import Client
from fastsock.client.core import Core
from fastsock.client.errors import ApiError, ClientError, Closed, NotAuthenticated, Refused, Stopped
from fastsock.client.events import (
    Ack,
    Connected,
    Disconnected,
    Event,
    Left,
    MemberJoined,
    MemberLeft,
    MessageDeleted,
    MessageReceived,
    MessageUpdated,
    Other,
    Reload,
    Resumed,
    RoomCreated,
    ServerError,
)
from fastsock.client.settings import Settings

__all__ = [
    "Ack",
    "Api",
    "ApiError",
    "Client",
    "ClientError",
    "Closed",
    "Connected",
    "Core",
    "Disconnected",
    "Event",
    "Left",
    "MemberJoined",
    "MemberLeft",
    "MessageDeleted",
    "MessageReceived",
    "MessageUpdated",
    "NotAuthenticated",
    "Other",
    "Refused",
    "Reload",
    "Resumed",
    "RoomCreated",
    "ServerError",
    "Settings",
    "Stopped",
]

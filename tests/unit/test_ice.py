"""ICE servers and the credentials that coturn checks."""

from __future__ import annotations

import base64
import hashlib
import hmac

from fastsock.services.ice import CREDENTIAL_TTL_S, IceServerList, credential

STUN = {"urls": "stun:stun.example.com:3478"}
NOW_MS = 1_800_000_000_999


def test_without_turn_everybody_gets_the_configured_list() -> None:
    assert IceServerList([STUN]).for_user(7, NOW_MS) == [STUN]
    assert IceServerList([]).for_user(7, NOW_MS) == []


def test_turn_credentials_name_their_end_and_their_user() -> None:
    servers = IceServerList([STUN], turn_urls=["turn:t.example.com", "turns:t.example.com"], turn_secret="north")
    username = f"{1_800_000_000 + CREDENTIAL_TTL_S}:7"
    assert servers.for_user(7, NOW_MS) == [
        STUN,
        {
            "urls": ["turn:t.example.com", "turns:t.example.com"],
            "username": username,
            "credential": base64.b64encode(hmac.new(b"north", username.encode(), hashlib.sha1).digest()).decode(),
        },
    ]


def test_a_known_credential() -> None:
    """Computed by ``printf 1800086400:7 | openssl dgst -sha1 -hmac north -binary | base64``."""
    assert credential("north", "1800086400:7") == "dRcl/f+pSdQCHat+cEw77+S7Sl4="


def test_two_users_get_two_credentials() -> None:
    servers = IceServerList([], turn_urls=["turn:t.example.com"], turn_secret="north")
    assert servers.for_user(7, NOW_MS) != servers.for_user(8, NOW_MS)


def test_turn_needs_both_its_secret_and_its_urls() -> None:
    assert IceServerList([STUN], turn_urls=["turn:t.example.com"]).for_user(7, NOW_MS) == [STUN]
    assert IceServerList([STUN], turn_secret="north").for_user(7, NOW_MS) == [STUN]


def test_what_was_configured_cannot_be_changed_by_what_was_given_out() -> None:
    servers = IceServerList([STUN], turn_urls=["turn:t.example.com"], turn_secret="north")
    servers.for_user(7, NOW_MS).clear()
    assert len(servers.for_user(7, NOW_MS)) == 2

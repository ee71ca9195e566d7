"""ICE servers: the configured list, and TURN with credentials of one's own.

The credentials are those of "A REST API For Access To TURN Services" (draft-uberti-behave-turn-rest-00), which coturn
checks with ``use-auth-secret``: the username is ``expiry:user_id``, the credential base64(HMAC-SHA1(secret, username)).
Nothing is stored; the TURN server knows the same secret.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence

CREDENTIAL_TTL_S = 86_400
"""The draft's recommendation: a credential has to outlive the call that it was made for, ICE restarts included."""


class IceServerList:
    """The servers for each user."""

    def __init__(
        self,
        static: Sequence[Mapping[str, object]],
        *,
        turn_urls: Sequence[str] = (),
        turn_secret: str | None = None,
        ttl_s: int = CREDENTIAL_TTL_S,
    ) -> None:
        self._static = [dict(entry) for entry in static]
        self._turn_urls = list(turn_urls)
        self._turn_secret = turn_secret
        self._ttl_s = ttl_s

    def for_user(self, user_id: int, now_ms: int) -> list[Mapping[str, object]]:
        """The configured servers, and TURN with this user's credential where a secret and urls are configured."""
        if not (self._turn_secret and self._turn_urls):
            return [*self._static]
        username = f"{now_ms // 1000 + self._ttl_s}:{user_id}"
        turn = {"urls": self._turn_urls, "username": username, "credential": credential(self._turn_secret, username)}
        return [*self._static, turn]


def credential(secret: str, username: str) -> str:
    """base64(HMAC-SHA1(secret, username))."""
    return base64.b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()

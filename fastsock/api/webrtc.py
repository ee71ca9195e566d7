"""What calls need from HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from fastsock.api.dependencies import Caller, Served
from fastsock.api.errors import documented
from fastsock.schemas import http

router = APIRouter(prefix="/webrtc", tags=["calls"])


@router.get(
    "/ice-servers", responses=documented("not_authenticated", "token_expired"), response_model_exclude_none=True
)
async def ice_servers(caller: Caller, services: Served) -> http.IceServers:
    """STUN and TURN servers for the caller's `RTCPeerConnection`."""
    found = services.ice.for_user(caller, services.now_ms())
    return http.IceServers(ice_servers=[http.IceServer.model_validate(entry) for entry in found])

"""What FastSock's actors and applications are called in Ray: what the dashboard shows and `ray.get_actor` finds."""

from __future__ import annotations

NAMESPACE = "fastsock"
"""Ray's namespace of the named actors."""
GATEWAY_APPLICATION = "gateway"
API_APPLICATION = "api"


def host(index: int) -> str:
    return f"fastsock-host-{index}"


def writer(index: int) -> str:
    return f"fastsock-persistence-{index}"

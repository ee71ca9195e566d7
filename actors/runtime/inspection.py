"""Looking at a running system from outside: what ``fastsock top`` and ``fastsock inspect`` ask.

Hosts and writers are asked directly. Gateways are Serve replicas and have no name to be asked by, so each reports its
figures to one host every `REPORT_S` seconds; the host passes on what is fresh.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import ray

from actors.placement import Placement
from actors.runtime import names
from actors.runtime.calls import CALL_ERRORS, call_now
from fastsock.core.errors import RetryableError

ASK_TIMEOUT_S = 5.0


def connect(address: str) -> None:
    """Join the Ray cluster at this address as an observer.

    Raises:
        RetryableError: ``actor_unavailable``, nothing answers there.

    """
    try:
        ray.init(address=address, namespace=names.NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RetryableError("actor_unavailable", f"no Ray answers at {address}: {error}") from None


def disconnect() -> None:
    ray.shutdown()


def survey(hosts: int, writers: int) -> dict[str, list[dict[str, Any]]]:
    """The figures of every host, writer and gateway; one that does not answer is listed with an ``error``.

    Writers beside hosts are listed with the others.
    """
    asked = [names.host(index) for index in range(hosts)] + [names.writer(index) for index in range(writers)]
    answers = {name: _ask(name) for name in asked}
    host_rows = [answers[names.host(index)] for index in range(hosts)]
    gateways: dict[str, dict[str, Any]] = {}
    for row in host_rows:
        gateways.update(row.pop("gateway_reports", {}))
    beside = [row.pop("writer_beside") for row in host_rows if "writer_beside" in row]
    return {
        "hosts": host_rows,
        "writers": [*(answers[names.writer(index)] for index in range(writers)), *beside],
        "gateways": [{"gateway": peer, **figures} for peer, figures in sorted(gateways.items())],
    }


def _ask(name: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = call_now(name, "ready", timeout_s=ASK_TIMEOUT_S)
    except CALL_ERRORS as error:
        return {"host": name, "writer": name, "error": f"{type(error).__name__}"}
    return answer


def inspect(name: str, placement: Placement) -> dict[str, Any]:
    """The state of one actor, with the host it lives on; ``active`` is False for one that is not in memory.

    Looking activates nothing.

    Raises:
        RetryableError: ``actor_unavailable``, its host does not answer.

    """
    host = placement.owner(name)
    try:
        body: bytes | None = call_now(host, "describe", name, timeout_s=ASK_TIMEOUT_S)
    except CALL_ERRORS as error:
        raise RetryableError("actor_unavailable", f"{host} does not answer: {type(error).__name__}") from None
    place = {"actor": name, "host": host, "epoch": placement.epoch, "active": body is not None}
    state: dict[str, Any] = {} if body is None else json.loads(body)
    return {**place, **state}


def placement() -> Placement:
    """The placement that the hosts know.

    Raises:
        RetryableError: ``actor_unavailable``, no host answers.

    """
    try:
        body: bytes = call_now(names.host(0), "current_placement", timeout_s=ASK_TIMEOUT_S)
    except CALL_ERRORS as error:
        raise RetryableError("actor_unavailable", f"{names.host(0)} does not answer: {type(error).__name__}") from None
    return Placement.decode(body)

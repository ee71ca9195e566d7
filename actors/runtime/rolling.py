"""Replacing what runs by new processes, one part after the other, under load: ``fastsock roll``.

Nothing is lost when a part is killed, so none of this is needed to be safe; it is there so that nobody waits longer
than need be, and nobody sees an error:

* A *host* that is not the only one gives its names away first: the placement without it is stored, every host learns
  it, and gateways attach where the names live by then. It takes no more batches, ends what it has begun, and is
  restarted with nothing in it. Then the placement with it is stored. So each of its names moves twice, and waits for a
  load from the database each time. The only host takes no more batches either; whoever sends waits for its restart.
* A *writer* is restarted as it is: the hosts keep what it has not answered, and send it again.
* *Gateways* and API replicas are replaced by Serve. New ones run before the first old one goes (`max_surge_percent` in
  `fastsock.main`); that one sends its sockets away with 1012, and they come back to those that have fewest: the new.

Processes that start load the code that is installed by then, and the settings of the run that they belong to. Where
this is broken off, drained hosts take batches again by themselves, and the next roll puts back what the placement
lacks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from itertools import count, takewhile
from typing import Any

import ray
from ray import serve

from actors.placement import Placement
from actors.runtime import cluster, names
from actors.runtime.calls import CALL_ERRORS, call_now, in_short
from fastsock.core.config import Settings
from fastsock.core.errors import FastSockError, RetryableError

ASK_TIMEOUT_S = 5.0
BACK_WITHIN_S = 60.0
"""A restarted process that does not work after so long will not by itself; on a quiet machine it takes 1.5 s."""
DRAIN_WITHIN_S = 5.0
"""A host with unfinished work is restarted after so long: a database that is away is waited for no longer either."""
DRAINED_FOR_S = 15.0
"""A host that was drained and is not restarted takes batches again after so long: requests wait for 20 s."""
REPLACED_WITHIN_S = 300.0
"""For all replicas of an application; each takes 3 to 6 s to start, and behind other load balancers 30 s to drain."""
LOOK_S = 0.02
SERVE_LOOK_S = 0.2
PLACE_ATTEMPTS = 3

Tell = Callable[[str], None]


def roll_writers(tell: Tell) -> None:
    """Restart the writers.

    Raises:
        RetryableError: ``actor_unavailable``, one does not come back.

    """
    for name in _running(names.writer):
        took_s, pid = _restart(name)
        tell(f"{_short(name)} is replaced: process {pid}, which worked after {took_s:.1f} s.")


def roll_hosts(tell: Tell) -> None:
    """Replace the hosts.

    Raises:
        RetryableError: ``actor_unavailable``, one does not answer or come back. Where there are others its names stay
            with them.

    """
    hosts = _running(names.host)
    for name in hosts:
        _ask_until(name, "ready", lambda _figures: True)  # nothing may move to a host that does not work
    for name in hosts:
        _replace(name, hosts, tell)


def _running(name_of: Callable[[int], str]) -> list[str]:
    """The actors of one kind, which are numbered from 0."""
    there = set(ray.util.list_named_actors())
    found = list(takewhile(there.__contains__, map(name_of, count())))
    if not found:
        raise RetryableError("actor_unavailable", f"there is no {name_of(0)} on this Ray")
    return found


def _replace(name: str, hosts: list[str], tell: Tell) -> None:
    others = tuple(other for other in hosts if other != name)
    pins = _placement(name).pins
    if others:
        _place(hosts, others[0], lambda now: now.with_hosts(others))
    if not _drained(name):
        tell(f"{_short(name)} still has work after {DRAIN_WITHIN_S:g} s. Whoever waits for it will ask again.")
    took_s, pid = _restart(name)
    if others:
        _place(hosts, others[0], lambda now: now.with_hosts((*now.hosts, name), pins))
    whose = f"its work went to {', '.join(map(_short, others))} and back" if others else "its work waited"
    tell(f"{_short(name)} is replaced: process {pid}, which worked after {took_s:.1f} s; {whose}.")


def _drained(name: str) -> bool:
    give_up_at = time.monotonic() + DRAIN_WITHIN_S
    while not _ask(name, "drain", DRAINED_FOR_S):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(LOOK_S)
    return True


def _placement(host: str) -> Placement:
    return Placement.decode(_ask(host, "current_placement"))


def _place(hosts: list[str], by_way_of: str, change: Callable[[Placement], Placement]) -> None:
    """Have one host change the stored placement, and all of them learn it."""
    for _ in range(PLACE_ATTEMPTS):
        _ask(by_way_of, "learn")
        current = _placement(by_way_of)
        wanted = change(current)
        if wanted == current or _ask(by_way_of, "place", wanted.encode()):
            break
    else:
        raise RetryableError("actor_unavailable", f"others have changed the placement {PLACE_ATTEMPTS} times meanwhile")
    for name in hosts:
        _ask_until(name, "learn", lambda epoch: bool(epoch >= wanted.epoch))


def _restart(name: str) -> tuple[float, int]:
    """Kill an actor's process and wait for the next one; how many seconds that took, and its pid."""
    before = _ask(name, "ready")["pid"]
    began_s = time.monotonic()
    ray.kill(ray.get_actor(name, namespace=names.NAMESPACE), no_restart=False)
    pid = _ask_until(name, "ready", lambda figures: figures["pid"] != before)["pid"]
    return time.monotonic() - began_s, pid


def _ask(name: str, method: str, *arguments: object) -> Any:
    """What an actor answers.

    Raises:
        RetryableError: ``actor_unavailable``, it does not, or with an error of its own.

    """
    try:
        return call_now(name, method, *arguments, timeout_s=ASK_TIMEOUT_S)
    except CALL_ERRORS as error:
        raise RetryableError("actor_unavailable", f"{name} does not {method}: {_reason(error)}") from None


def _ask_until(name: str, method: str, accepted: Callable[[Any], bool]) -> Any:
    """The first answer that is accepted; an actor that is being restarted is asked again.

    Raises:
        RetryableError: ``actor_unavailable``, none is for `BACK_WITHIN_S`.

    """
    give_up_at = time.monotonic() + BACK_WITHIN_S
    while True:
        why = "its answer is still the old one"
        try:
            answer = _ask(name, method)
            if accepted(answer):
                return answer
        except RetryableError as error:
            why = error.message
        if time.monotonic() > give_up_at:
            raise RetryableError("actor_unavailable", f"{name} does not work within {BACK_WITHIN_S:.0f} s: {why}")
        time.sleep(LOOK_S)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "cause", None)
    return cause.message if isinstance(cause, FastSockError) else in_short(error)


def roll_replicas(parts: cluster.Parts, tell: Tell) -> None:
    """Replace the gateways and API replicas; the settings are those of the hosts.

    Raises:
        RetryableError: ``actor_unavailable``, the new ones do not start, or the old ones do not end; Serve goes on
            with the old ones as long as the new ones do not run.

    """
    settings = Settings.from_wire(_ask(names.host(0), "settings"))
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    applications = {
        names.GATEWAY_APPLICATION: ("gateways", settings.gateways),
        names.API_APPLICATION: ("API replicas", settings.api_replicas),
    }
    for application, (what, number) in applications.items():
        began_s = time.monotonic()
        _deploy(application, what, settings, parts)
        _wait_for_old(application, what, number, began_s + REPLACED_WITHIN_S)
        tell(f"{number} {what} are replaced, after {time.monotonic() - began_s:.1f} s.")


def _deploy(application: str, what: str, settings: Settings, parts: cluster.Parts) -> None:
    """Have Serve replace the replicas; returns when all new ones run."""
    failures: list[BaseException] = []

    def deploy() -> None:
        try:
            cluster.start_application(application, settings, parts)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told below, by the thread that people see
            failures.append(error)

    deploying = threading.Thread(target=deploy, daemon=True)  # Serve would wait for ever
    deploying.start()
    deploying.join(REPLACED_WITHIN_S)
    if deploying.is_alive() or failures:
        why = in_short(failures[0]) if failures else f"they are not ready within {REPLACED_WITHIN_S:.0f} s"
        raise RetryableError("actor_unavailable", f"the new {what} do not start, the old ones go on: {why}")


def _wait_for_old(application: str, what: str, number: int, give_up_at: float) -> None:
    """Wait until the replicas are as many as there should be, and all run."""
    while (states := _replicas(application)) != {"RUNNING": number}:
        if time.monotonic() > give_up_at:
            text = f"the old {what} have not ended within {REPLACED_WITHIN_S:.0f} s: {states}"
            raise RetryableError("actor_unavailable", text)
        time.sleep(SERVE_LOOK_S)


def _replicas(application: str) -> dict[str, int]:
    """How many replicas of an application are in which state."""
    found: dict[str, int] = {}
    for deployment in serve.status().applications[application].deployments.values():
        for state, number in deployment.replica_states.items():
            found[state] = found.get(state, 0) + number
    return found


def _short(name: str) -> str:
    return name.removeprefix("fastsock-")

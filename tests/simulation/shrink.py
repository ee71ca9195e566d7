"""A failing history, made small: what had to happen for it to fail, and what happened then.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over the actions of
the plan: parts are left out while the same kind of violation remains.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.simulation.clients import Violation
from tests.simulation.history import History
from tests.simulation.plan import Plan, draw
from tests.simulation.trace import concerning

MAX_RERUNS = 200
MAX_SECONDS = 60.0
MAX_LINES = 80
"""Of a trace; the last ones count."""
_NAMES = re.compile(r"\b(?:room:\d+|dm:\d+:\d+)\b")
_NUMBERS = re.compile(r"\d+|\bNone\b")
_LISTS = re.compile(r"(\S+)(?:, \1)+")


def kind(violation: str) -> str:
    """A violation's text without whom and what it is about: what two of one kind say is the same defect, most likely.

    The seed and the step, which `History.play` puts before it, do not count.
    """
    text = re.sub(r"^seed \d+, step \d+: ", "", violation.splitlines()[0])
    text = _NUMBERS.sub("#", _NAMES.sub("conversation", text))
    return _LISTS.sub(r"\1", text)[:80]


def violation_of(plan: Plan) -> str | None:
    """What the history of this plan says, None if nothing is violated."""
    try:
        History(plan).play()
    except Violation as violation:
        return str(violation)
    return None


def smallest(
    items: Sequence[int],
    fails: Callable[[tuple[int, ...]], bool],
    max_reruns: int = MAX_RERUNS,
    max_seconds: float = MAX_SECONDS,
) -> tuple[int, ...]:
    """A part of the items that still ``fails``, from which nothing can be left out, or what is left at the bound.

    That all of them fail is taken for granted.
    """
    kept, parts, reruns = tuple(items), 2, 0
    give_up = time.monotonic() + max_seconds
    while len(kept) > 1:
        size = -(-len(kept) // parts)
        for start in range(0, len(kept), size):
            if reruns >= max_reruns or time.monotonic() > give_up:
                return kept
            reruns += 1
            rest = kept[:start] + kept[start + size :]
            if rest and fails(rest):
                kept, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(2 * parts, len(kept))
    return kept


def shrink(plan: Plan, violation: str, max_reruns: int = MAX_RERUNS) -> Plan:
    """The smallest part of the plan found that leads to a violation of the same kind."""
    wanted = kind(violation)

    def fails(kept: tuple[int, ...]) -> bool:
        said = violation_of(plan.only(kept))
        return said is not None and kind(said) == wanted

    return plan.only(smallest(plan.kept, fails, max_reruns))


def retrace(plan: Plan, violation: str) -> str:
    """The history of this plan again: its actions, and what happened to what the violation is about."""
    history = History(plan, tracing=True)
    with suppress(Violation):
        history.play()
    lines = concerning(history.lines, violation)
    actions = [f"  {index:>3}: {plan.actions[index]}" for index in plan.kept]
    left_out = len(plan.actions) - len(plan.kept)
    skipped = [f"(... {len(lines) - MAX_LINES} lines before)"] if len(lines) > MAX_LINES else []
    head = f"with these actions, {left_out} left out:"
    return "\n".join([head, *actions, "what happened:", *skipped, *map(str, lines[-MAX_LINES:])])


def explain(seed: int, violation: str) -> str:
    """For people: the smallest history of this seed that fails like this, its trace, and how to run it again."""
    plan = shrink(draw(seed), violation)
    said = violation_of(plan) or violation
    rerun = f"python -m tests.simulation --first {seed} --seeds 1 --only {','.join(map(str, plan.kept))}"
    return f"{violation}\nmade small: {said}\n{retrace(plan, said)}\nrun it again: {rerun}"

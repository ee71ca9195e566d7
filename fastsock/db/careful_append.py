"""An append that is looked at: what `MessageLog.append` does where all was not as it hoped."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from fastsock.db import log_writes
from fastsock.db.append_plan import Numbered, Place, decide, side_effects
from fastsock.db.log_reads import look_up
from fastsock.db.refusals import REFUSALS, concerns_a_row, overtaken, own_words
from fastsock.schemas.log import Append, Outcome, Refused


class OvertakenError(Exception):
    """Somebody else has stored what this append was about to, since it looked."""


async def append_carefully(connection: AsyncConnection, groups: Sequence[Append]) -> list[list[Outcome]]:
    """Store what is new of the groups, in the transaction of this connection; what becomes of each entry.

    Raises:
        OvertakenError: take the transaction back, and try again in a new one.

    """
    known = await look_up(connection, groups)
    heads = list(known.heads.items())
    refusals: dict[Place, Refused] = {}
    while True:  # each turn adds a refusal, so there are no more of them than entries
        plan = decide(groups, known, refusals)
        try:
            async with connection.begin_nested():
                if not plan.new or await log_writes.store(connection, plan.new, heads):
                    return plan.outcomes
                raise OvertakenError
        except REFUSALS as error:
            _check(error)
            blamed = await _blame(connection, plan.new)
            if not blamed:
                raise
            refusals |= blamed


async def _blame(connection: AsyncConnection, new: Sequence[Numbered]) -> dict[Place, Refused]:
    """Which of the rows the database refuses, found by halving: some 2 log2(n) tries for one of n."""
    words = await _refused(connection, new)
    if words is None:
        return {}
    if len(new) == 1:
        return {new[0].place: Refused("refused_by_storage", f"the database refuses it: {words}")}
    middle = len(new) // 2
    return await _blame(connection, new[:middle]) | await _blame(connection, new[middle:])


async def _refused(connection: AsyncConnection, new: Sequence[Numbered]) -> str | None:
    """What the database says when it is to store these rows, and nothing of them stays; None if it takes them."""
    savepoint = await connection.begin_nested()
    try:
        await log_writes.insert(connection, new, ())
        await log_writes.change_members(connection, side_effects(new))
    except REFUSALS as error:
        _check(error)
        return own_words(error)
    finally:
        if savepoint.is_active:
            await savepoint.rollback()
    return None


def _check(error: BaseException) -> None:
    """Go on only if it is a row that the database does not like."""
    if overtaken(error):
        raise OvertakenError from None
    if not concerns_a_row(error):
        raise error

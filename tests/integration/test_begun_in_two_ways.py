"""Whether a message is kept and begun by one transaction or by two cannot be told from what is stored, but for times."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trio
from hypothesis import strategies as st
from lone_messages import ANNA, BEN, accounts, message, moved_by, receiving, rest, swept, taken

from hermes.events import Address, InboundEvent, Person
from hermes.reception import Reception
from hermes.sessions import Sessions
from hermes.settings import SessionsConfig
from hermes.store.reception import Delivered, Place
from hermes.testing.gateway_process import until
from hermes.testing.spine import Spine


class InTwoSteps(Reception):
    """One that begins nothing: whoever is woken takes it up."""

    async def _begin(
        self, _sessions: Sessions, _place: Place, _event: InboundEvent, _cursors: Mapping[str, bytes]
    ) -> Delivered | None:
        return None


# What a day brings: who writes what where, a message that nobody was woken for, what a turn does.
SENDERS = (("7", "dm", ANNA), ("8", "dm", BEN), ("-5", "group", ANNA), ("-5", "group", BEN), ("9", "dm", Person("9")))
KINDS: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {"to_us": True}, {"to_us": True}, {"album": "a"}, {"continues": True}, {"text": "/queue more"}, {"text": "/new"},
    {"kind": "button", "text": "x"}, {"attended": True}, {"text": " "}, {"thread": "t", "to_us": True},
)  # fmt: skip
HOW = ("alone", "alone", "alone", "batch", "unseen")
DAYS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(SENDERS), st.sampled_from(KINDS), st.sampled_from(HOW)),
    min_size=1, max_size=8,
)  # fmt: skip
EXAMPLES = hypothesis.settings.get_profile("hermes").max_examples // 4
TABLES = {
    "inbox": "id", "sessions": "created_at", "turns": "started_at", "messages": "created_at, seq", "outbox": "id",
    "cursors": "account, name", "addresses": "account, chat, thread", "pairing_codes": "account, person", "steps": "opened_at",
}  # fmt: skip
VARIES = re.compile(r"_at$|_until$|^until$|^code$|^boot_id$|^used$|^expires|^created|^updated|^last_")


async def day(
    home: Path, kind: type[Reception], events: Sequence[tuple[int, Any, dict[str, Any], str]]
) -> dict[str, Any]:
    """What a database holds after these were delivered one after the other, each after the turns of the one before."""
    platforms = accounts(context_messages=3)
    settings = SessionsConfig(merge_window_s=0.01)
    async with receiving(home, kind=kind, platforms=platforms, sessions=settings) as (spine, inbox):
        await swept(spine)
        place = Place(
            account="tg", platform="x", access=platforms["tg"].access, busy="interrupt", pairing_text=lambda _: "a code",
            merge_window_s=0.01,
        )  # fmt: skip
        for number, (again, (chat, chat_kind, sender), more, how) in enumerate(events):
            more = dict(more)
            address = Address("tg", chat, more.pop("thread", None))
            event = message(
                number - again if again > 3 else number, sender=sender, chat_kind=chat_kind, address=address, **more
            )
            if how == "unseen":
                await spine.store.inbox.deliver(place, [event], moved_by(number))
                continue
            batch = [event]
            if how == "batch":
                batch.append(message(number + 100, sender=sender, chat_kind=chat_kind, address=address))
            await inbox.deliver(*batch, cursors={} if event.attended else moved_by(number))
            await quiet_sessions(spine)
        for key in await spine.store.inbox.waiting_keys(99):
            spine.sessions.wake(key)
            await quiet_sessions(spine)
        return {table: await table_of(spine, table) for table in TABLES}


async def quiet_sessions(spine: Spine) -> None:
    """Whatever was begun or is held for more parts is over."""
    await until(lambda: rest(spine), "sessions that rest")
    assert taken(spine) == 0


async def table_of(spine: Spine, table: str) -> list[tuple[Any, ...]]:
    """Its rows in their order, with the names that are made up replaced by their place in that order, and without times."""

    def look(con: sqlite3.Connection) -> list[dict[str, Any]]:
        found = con.execute(f"SELECT * FROM {table} ORDER BY {TABLES[table]}")
        names = [each[0] for each in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    rows = await spine.store.database.read(look)
    return [tuple((name, value) for name, value in row.items() if not VARIES.search(name)) for row in rows]


def named(tables: dict[str, Any]) -> str:
    """The tables as a text in which the n-th made-up name is n."""
    text = "\n".join(f"{table} {row!r}" for table, rows in tables.items() for row in rows)
    seen: dict[str, str] = {}
    text = re.sub(
        r"\b(sess|turn|evt)_[0-9a-f]+\b", lambda found: seen.setdefault(found[0], f"{found[1]} {len(seen)}"), text
    )
    return re.sub(r"\('key', '[0-9a-z]{20,}'\)|approve tg \w+|\"created_at\":[0-9.]+", "…", text)


@pytest.mark.wall_clock_s(300)
@hypothesis.settings(max_examples=EXAMPLES)
@hypothesis.example(events=[(0, SENDERS[0], {}, "unseen"), (0, SENDERS[0], {}, "alone")])
@hypothesis.example(events=[(0, SENDERS[0], {}, each) for each in ("alone", "unseen", "alone")])
@hypothesis.given(events=DAYS)
def test_a_day_leaves_the_same_rows_as_in_two_steps(events: list[tuple[int, Any, dict[str, Any], str]]) -> None:
    async def main(kind: type[Reception]) -> str:
        with tempfile.TemporaryDirectory() as home:
            return named(await day(Path(home), kind, events))

    assert trio.run(main, Reception) == trio.run(main, InTwoSteps)

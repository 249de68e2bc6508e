"""What most messages have no need of, and some do: a statement that tells so beside its rows is believed by what comes after."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hermes.access import AccessPolicy
from hermes.events import Address, InboundEvent, Person, Receipt, ReplyRef, StoredContent
from hermes.intake import TurnEnd
from hermes.messages import assistant
from hermes.platform_config import AccountConfig
from hermes.settings import Config
from hermes.store import Store, open_store, outbox, sessions
from hermes.store.outbox import Ended, Look
from hermes.store.reception import Place
from hermes.store.rows import Claim
from hermes.store.schema import M001
from hermes.store.turns import Finish
from platforms.telegram import platform as telegram

POLICY = AccessPolicy(allowed_users=frozenset({"7"}))
CHAT = Address("tg", "7")
KEY = "tg:dm:7"


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[Store]:
    account = AccountConfig(account="tg", spec=telegram, config=None, access=POLICY)
    config = Config(home=tmp_path, workspace=tmp_path, platforms={"tg": account})
    async with open_store(tmp_path / "hermes.db", config, "boot") as store:
        yield store


def place(**more: Any) -> Place:
    return Place(account="tg", platform="telegram", access=POLICY, busy="queue", pairing_text=str, **more)


def event(number: int, text: str = "hi") -> InboundEvent:
    return InboundEvent(
        id=str(number), address=CHAT, chat_kind="dm", sender=Person("7", "Anna"), text=text,
        reply=ReplyRef(message_id=str(number)),
    )  # fmt: skip


async def take_up(store: Store) -> Claim | None:
    return (await store.turns.take_up(KEY, "turn_1", frozenset(), remembers=True)).claim


async def finish(store: Store, claim: Claim, *reply: str) -> None:
    last = assistant("yes")
    end = TurnEnd(
        event_id=claim.rows[0].event_id, session_id=claim.session.id, state="done", turn_id=claim.turn_id, message=last
    )
    parts = [StoredContent(text=text) for text in reply]
    await store.turns.finish(Finish(claim=claim, end=end, messages=[last], rows="answered", reply=parts))


async def rows(store: Store, sql: str) -> list[tuple[Any, ...]]:
    return await store.database.read(lambda con: con.execute(sql).fetchall())


async def test_a_turn_does_not_begin_while_a_command_of_its_mailbox_waits(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.inbox.deliver(place(), [event(1, "/new"), event(2, "two")], {})
        assert await take_up(store) is None
        (command,) = await store.inbox.next_commands(9)
        await store.inbox.finish_command(command, ())
        assert await take_up(store) is not None


@pytest.mark.parametrize("reply", [("one", "two"), ()])
async def test_what_is_shown_of_a_reply_becomes_the_reply_or_ends(tmp_path: Path, reply: tuple[str, ...]) -> None:
    async with opened(tmp_path) as store:
        await store.inbox.deliver(place(), [event(1)], {})
        claim = await take_up(store)
        assert claim is not None
        draft = await store.outbox.open_live(
            CHAT, StoredContent(text="o"), reply=None, source="turn", turn_id=claim.turn_id
        )
        assert draft is not None
        await store.outbox.shown(draft.id, Receipt(message_id="9", address=CHAT))
        await finish(store, claim, *reply)
        found = await rows(store, "SELECT id, state FROM outbox ORDER BY seq")
        assert found[0] == (draft.id, "pending" if reply else "sent")
        assert [state for _, state in found[1:]] == ["pending"] * len(reply[1:])


async def test_a_turn_that_begins_with_its_event_belongs_to_the_conversation_that_begins_with_it(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as store:
        await store.inbox.deliver(place(), [event(1)], {})
        claim = await take_up(store)
        assert claim is not None
        await finish(store, claim)
        anew = place(reset=lambda _last_at, _now: "anew")
        _, following = await store.inbox.deliver_and_take_up(
            anew, event(2), {}, KEY, "turn_2", frozenset(), remembers=False
        )
        assert following is not None
        assert following.claim is not None
        assert following.claim.session.id != claim.session.id
        assert await rows(store, "SELECT id FROM sessions WHERE ended_at IS NULL") == [(following.claim.session.id,)]


async def test_what_another_process_sends_now_is_not_ended_by_this_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.outbox.add(CHAT, [StoredContent(text="hi")], reply=None, source="send")
        look: Any = {"deduplicates": False, "edits": True, "methods": frozenset({"send"})}
        part = (await store.outbox.advance(CHAT, None, **look)).part
        assert part is not None
        ended = Ended(part=part, how="sent", receipt=Receipt(message_id="9", address=CHAT))
        other = Look(boot_id="other", now=2.0, expire_s=1e9, hold=False, **look)
        await store.database.write(lambda con: outbox.advance(con, CHAT, other, ended))
        assert await rows(store, "SELECT state FROM outbox") == [("sending",)]
        await store.outbox.advance(CHAT, ended, **look)
        assert await rows(store, "SELECT state FROM outbox") == [("sent",)]


def test_only_a_conversation_that_expires_is_kept_for_longer_by_an_event() -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as con:
        con.executescript(M001)
        for name, expires_at in (("stays", None), ("expires", 5.0)):
            sessions.create(con, session_id=name, key=name, source="", principal="", now=1.0, expires_at=expires_at)
            assert [sessions.next_event(con, name, 9.0)[1] for _ in range(2)] == [1, 2]
            taken = sessions.next_event(con, name, 10.0)[0]
            assert taken == sessions.get(con, name)
            assert taken is not None
            assert taken.expires_at == (None if expires_at is None else 10.0)

"""What a sweep forgets, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes.settings import RetentionConfig
from hermes.testing.spine import Spine, intake, open_spine

AT_ONCE = RetentionConfig(finished_rows_s=0, dedup_s=0, idempotency_s=0, responses_s=0, ephemeral_s=0)


async def count(spine: Spine, table: str) -> int:
    ((number,),) = await spine.rows(f"SELECT count(*) FROM {table}")
    return int(number)


async def sweep(spine: Spine, settings: RetentionConfig) -> int:
    total = 0
    while gone := await spine.store.forget_old(settings):
        total += gone
    return total


async def test_rows_that_are_done_go_and_the_conversation_stays(tmp_path: Path) -> None:
    async with open_spine(tmp_path) as spine:
        await spine.ask("one")
        await spine.ask("two")
        assert await sweep(spine, RetentionConfig()) == 0, "nothing is old"
        assert await sweep(spine, AT_ONCE) == 4
        assert [await count(spine, table) for table in ("inbox", "turns", "messages", "sessions")] == [0, 0, 4, 1]
        assert (await spine.ask("three")).state == "done"
        assert len(await spine.store.sessions.history("s")) == 6


async def test_what_waits_or_runs_is_never_forgotten(tmp_path: Path) -> None:
    async with open_spine(tmp_path) as spine:
        await spine.store.inbox.accept(intake("later", key="waiting", mode="detached"))
        assert await sweep(spine, AT_ONCE) == 0
        assert await count(spine, "inbox") == 1


async def test_a_session_of_one_request_goes_with_everything(tmp_path: Path) -> None:
    async with open_spine(tmp_path, retention=AT_ONCE) as spine:
        await spine.ask("once", key="single", ephemeral=True)
        await spine.ask("kept", key="kept")
        await sweep(spine, AT_ONCE)
        assert await spine.rows("SELECT id FROM sessions") == [("kept",)]
        assert await spine.rows("SELECT DISTINCT session_id FROM messages") == [("kept",)]


@pytest.mark.parametrize(("days", "left"), [(0, 2), (30, 1)])
async def test_old_conversations_go_only_if_that_is_configured(tmp_path: Path, days: int, left: int) -> None:
    async with open_spine(tmp_path) as spine:
        for key in ("old", "new"):
            await spine.ask("hi", key=key)
        await spine.store.database.write(
            lambda con: (
                con.execute("UPDATE sessions SET updated_at = updated_at - 31 * 86400 WHERE id = 'old'").rowcount
            )
        )
        await sweep(spine, RetentionConfig(sessions_days=days))
        assert await count(spine, "sessions") == left


async def test_a_sweep_takes_a_bounded_batch(tmp_path: Path) -> None:
    async with open_spine(tmp_path) as spine:

        def fill(con: object) -> None:
            con.executemany(  # type: ignore[attr-defined]
                "INSERT INTO inbox (account, chat, event_id, kind, session_key, seq, mode, source, principal, busy, may_change,"
                " accepted_at, state, finished_at) VALUES ('a', '', ?, 'message', 's', 1, 'detached', 't', 'p', 'queue', 0,"
                " 1, 'answered', 1)",
                [(f"e{number}",) for number in range(1200)],
            )

        await spine.store.database.write(fill)
        assert [await spine.store.forget_old(AT_ONCE) for _ in range(4)] == [500, 500, 200, 0]

"""Letting people in: from a stranger's message to the owner's command, over a real store."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import RequestError
from hermes.pairing_control import pairing_actions
from hermes.settings import Config
from hermes.store import Store, open_store, pairing


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "hermes.db", Config(home=tmp_path, workspace=tmp_path), "boot", clock) as store:
        yield store


async def offer(store: Store, person: str, clock: Clock, account: str = "tg") -> str | None:
    return await store.database.write(lambda con: pairing.offer(con, account, person, clock.now))


async def test_a_code_lets_in_whom_it_was_told_to_once(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        actions = pairing_actions(store, lambda: {"tg", "dc"})
        code = await offer(store, "9", clock)
        assert code is not None
        assert len(code) == pairing.LENGTH
        assert set(code) <= set(pairing.ALPHABET)
        kept = await store.database.read(lambda con: con.execute("SELECT * FROM pairing_codes").fetchall())
        assert code not in str(kept)
        listed = await actions["pairing-list"]({})
        assert [(each["account"], each["person"]) for each in listed["waiting"]] == [("tg", "9")]
        assert code not in str(listed)
        with pytest.raises(RequestError) as failed:
            await actions["pairing-approve"]({"account": "dc", "code": code})
        assert failed.value.status == 404
        done = await actions["pairing-approve"]({"account": "tg", "code": f" {code.lower()} "})
        assert done == {"account": "tg", "person": "9", "allowed": True}
        with pytest.raises(RequestError):
            await actions["pairing-approve"]({"account": "tg", "code": code})
        listed = await actions["pairing-list"]({})
        assert (listed["waiting"], listed["allowed"]) == ([], [{"account": "tg", "person": "9", "since": clock.now}])
        assert (await actions["pairing-revoke"]({"account": "tg", "person": "9"}))["allowed"] is False
        with pytest.raises(RequestError):
            await actions["pairing-revoke"]({"account": "tg", "person": "9"})


async def test_who_is_shut_out_is_not_let_in_by_a_code_that_waits(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        first = await offer(store, "9", clock)
        await store.accounts.approve("tg", str(first))
        second = await offer(store, "9", clock)
        assert second is not None
        assert await store.accounts.revoke("tg", "9")
        with pytest.raises(RequestError):
            await store.accounts.approve("tg", second)
        assert not await store.accounts.is_paired("tg", "9")


async def test_every_code_that_waits_is_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long a guess takes tells nothing of the code, nor of whose it is."""
    compared: list[bool] = []

    def compare(one: str, other: str) -> bool:
        compared.append(hmac.compare_digest(one, other))
        return compared[-1]

    monkeypatch.setattr(pairing, "hmac", SimpleNamespace(compare_digest=compare))
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        codes = [await offer(store, person, clock) for person in "abc"]
        assert await store.accounts.approve("tg", str(codes[0])) == "a"
        assert sorted(compared) == [False, False, True]  # also after the one that was meant
        with pytest.raises(RequestError):
            await store.accounts.approve("tg", "WRONG")
        assert compared[3:] == [False, False]


async def test_a_code_is_told_seldom_to_few_and_lives_for_an_hour(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        first = await offer(store, "a", clock)
        assert first is not None
        assert await offer(store, "a", clock) is None
        clock.now += pairing.PAUSE_S
        second = await offer(store, "a", clock)
        assert second not in (None, first)
        assert await offer(store, "b", clock)
        assert await offer(store, "c", clock)
        assert await offer(store, "d", clock) is None
        assert await offer(store, "d", clock, "dc")
        with pytest.raises(RequestError):
            await store.accounts.approve("tg", first)  # a newer one took its place
        clock.now += pairing.LASTS_S
        with pytest.raises(RequestError):
            await store.accounts.approve("tg", str(second))
        assert await offer(store, "d", clock)


async def test_guesses_are_counted_also_when_they_come_at_once(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        code = await offer(store, "9", clock)
        codes: list[str | None] = []

        async def guess(number: int) -> None:
            with pytest.raises(RequestError) as failed:
                await store.accounts.approve("tg", f"WRONG{number:03}")
            codes.append(failed.value.code)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(guess, number)
        assert sorted(map(str, codes)) == ["pairing_code_unknown"] * 5 + ["pairing_locked"] * 15
        with pytest.raises(RequestError) as failed:
            await store.accounts.approve("tg", str(code))
        assert failed.value.status == 429
        assert failed.value.retry_after_s == pairing.LASTS_S
        assert not await store.database.read(lambda con: pairing.is_allowed(con, "tg", "9"))
        clock.now += pairing.LASTS_S - 60
        with pytest.raises(RequestError, match="wait 1 minutes"):
            await store.accounts.approve("tg", str(code))
        clock.now += 61
        code = await offer(store, "9", clock)
        assert await store.accounts.approve("tg", str(code)) == "9"


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("approve", {}),
        ("approve", {"account": "tg"}),
        ("approve", {"account": "tg", "code": ""}),
        ("approve", {"account": "tg", "code": "x" * 65}),
        ("approve", {"account": "tg", "code": "\ud800"}),
        ("approve", {"account": "tg", "code": 12345678}),
        ("approve", {"account": "nobody", "code": "ABCDEFGH"}),
        ("revoke", {"account": "tg", "person": 9}),
        ("revoke", {"account": "tg", "person": "\n"}),
        ("revoke", {"account": "tg", "person": "x" * 513}),
    ],
)
async def test_what_is_asked_wrongly_is_refused(tmp_path: Path, action: str, body: dict[str, object]) -> None:
    async with opened(tmp_path, Clock()) as store:
        with pytest.raises(RequestError) as failed:
            await pairing_actions(store, lambda: {"tg"})[f"pairing-{action}"](body)
        assert failed.value.status in (400, 404)
        remembered = await store.accounts.recall("tg", "pairing failures")
        assert remembered is None  # it was no guess


@given(st.text(alphabet=pairing.ALPHABET, min_size=8, max_size=8), st.sampled_from(["tg", "dc"]))
def test_a_digest_is_of_one_account(code: str, account: str) -> None:
    digests = {pairing._digest(each, code) for each in ("tg", "dc", "t")}
    assert len(digests) == 3
    assert code not in pairing._digest(account, code)

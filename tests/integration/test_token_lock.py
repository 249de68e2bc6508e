"""One user of a token at a time, across homes and processes, known to the kernel alone."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import PlatformConflict
from hermes.settings import Secret
from hermes.testing import cancel_at_every_step, no_leaks
from hermes.token_lock import open_token_lock, token_hash

TOKEN = token_hash("telegram", [Secret("4242:planted")])
OTHER = token_hash("telegram", [Secret("4243:planted")])
HOLDER = """
import sys, trio
from pathlib import Path
from hermes.token_lock import open_token_lock
async def main():
    async with open_token_lock(Path(sys.argv[1]), sys.argv[2], "the account telegram of /srv/one"):
        sys.stdout.write("held\\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read)
trio.run(main)
"""


async def test_the_second_user_is_told_who_the_first_is_and_others_are_free(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "hermes"
    async with no_leaks():
        async with open_token_lock(directory, TOKEN, "the account telegram of /srv/one"):
            with pytest.raises(PlatformConflict, match="the account telegram of /srv/one"):
                async with open_token_lock(directory, TOKEN, "me"):
                    pass
            async with open_token_lock(directory, OTHER, "me"):
                pass
        async with open_token_lock(directory, TOKEN, "me"):
            (file,) = directory.iterdir()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert "planted" not in file.name + file.read_text()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert list(directory.iterdir()) == []


async def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    holder = await trio.lowlevel.open_process(
        [sys.executable, "-c", HOLDER, str(tmp_path), TOKEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    async with holder.stdin, holder.stdout:
        assert (await holder.stdout.receive_some(100)).startswith(b"held")
        with pytest.raises(PlatformConflict, match="/srv/one"):
            async with open_token_lock(tmp_path, TOKEN, "me"):
                pass
        holder.kill()
        await holder.wait()
        assert len(os.listdir(tmp_path)) == 1
        async with open_token_lock(tmp_path, TOKEN, "me"):
            pass


async def test_many_at_once_and_one_wins(tmp_path: Path) -> None:
    outcomes: list[str] = []
    told: list[str] = []
    over = trio.Event()

    async def start(number: int) -> None:
        try:
            async with open_token_lock(tmp_path, TOKEN, f"number {number}"):
                outcomes.append("held")
                await over.wait()
        except PlatformConflict as error:
            told.append(str(error))
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(start, number)
        while len(outcomes) < 20:
            await trio.lowlevel.checkpoint()
        over.set()
    assert sorted(outcomes) == ["held"] + ["refused"] * 19
    assert len(set(told)) == 1
    assert "number" in told[0]


@pytest.mark.parametrize("spoil", ["a file in the way", "a link in the way"])
async def test_a_directory_that_cannot_be_used_costs_the_lock_and_nothing_else(
    spoil: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "hermes"
    if spoil == "a file in the way":
        directory.write_text("")
    else:
        directory.mkdir()
        (directory / f"token-{TOKEN}.lock").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        async with open_token_lock(directory, TOKEN, "me"):
            pass
    assert "token_lock.unavailable" in caplog.text
    assert not (tmp_path / "elsewhere").exists()


async def test_strange_words_are_kept_short_and_printable(tmp_path: Path) -> None:
    async with open_token_lock(tmp_path, TOKEN, "\x1b[2J\n" + "é" * 1000):
        with pytest.raises(PlatformConflict) as caught:
            async with open_token_lock(tmp_path, TOKEN, "me"):
                pass
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


async def test_it_ends_at_every_step(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_token_lock(tmp_path, TOKEN, "me"):
            await trio.lowlevel.checkpoint()

    await cancel_at_every_step(scenario, check=scenario)
    assert os.listdir(tmp_path) == []


@given(st.lists(st.text(max_size=5), max_size=3), st.lists(st.text(max_size=5), max_size=3))
def test_the_name_tells_accounts_apart_and_nothing_more(one: list[str], other: list[str]) -> None:
    first, second = token_hash("a", map(Secret, one)), token_hash("a", map(Secret, other))
    assert (first == second) == (one == other)
    assert first != token_hash("b", map(Secret, one))
    assert len(first) == 64

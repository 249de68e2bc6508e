"""Tool calls ended at each of their steps: no process, descriptor or half-written file is left."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from hermes.settings import TerminalConfig
from hermes.testing import cancel_at_every_step
from hermes.testing.tools import call_tool, processes_with, turn_context
from hermes.tools.files import FilesConfig, open_files
from hermes.tools.leftovers import mark_of
from hermes.tools.terminal import open_terminal
from hermes.toolset import ToolsetHost

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")


@pytest.fixture
def host(tmp_path: Path) -> ToolsetHost:
    (tmp_path / "ws").mkdir()
    (tmp_path / "home").mkdir()
    return ToolsetHost(home=tmp_path / "home", environment={"PATH": os.environ["PATH"]})


@pytest.mark.wall_clock_s(90)
async def test_a_command_ended_at_every_step_leaves_no_process(host: ToolsetHost) -> None:
    tag = f"4245.{secrets.randbelow(10**12):012}"
    command = f"( env -i setsid sh -c 'trap \"\" TERM; sleep {tag}; :' & ); head -c 200000 /dev/zero"
    ended: list[str] = []

    async def scenario() -> None:
        async with open_terminal(TerminalConfig(kill_grace_s=0.05, max_output_bytes=100), host) as tools:
            outcome = await call_tool(tools, turn_context(host.home.parent / "ws"), "terminal", command=command)
            ended.append(outcome.text)

    def nothing_left() -> None:
        assert processes_with(tag) + processes_with(mark_of(host.home)) == []

    report = await cancel_at_every_step(scenario, check=nothing_left, ways=("cancel", "deadline"))
    assert report.steps >= 10
    assert "exit code 0" in ended[0]


async def test_a_search_ended_at_every_step_leaves_no_process(host: ToolsetHost) -> None:
    workspace = host.home.parent / "ws"
    (workspace / "file").write_text("a line\n" * 100)

    async def scenario() -> None:
        async with open_files(FilesConfig(), host) as tools:
            outcome = await call_tool(tools, turn_context(workspace), "search_files", pattern="line")
            assert outcome.text.count("file:") == 100

    await cancel_at_every_step(scenario, ways=("cancel", "sibling"))


async def test_a_write_ended_at_every_step_is_done_or_not_begun(host: ToolsetHost) -> None:
    workspace = host.home.parent / "ws"
    written: list[str] = []

    async def scenario() -> None:
        (workspace / "file").write_text("old")
        async with open_files(FilesConfig(), host) as tools:
            await call_tool(tools, turn_context(workspace), "write_file", path="file", content="new")
            await call_tool(tools, turn_context(workspace), "patch", path="file", old="new", new="newer")

    def whole() -> None:
        written.append((workspace / "file").read_text())
        assert written[-1] in ("old", "new", "newer")
        assert os.listdir(workspace) == ["file"]

    await cancel_at_every_step(scenario, check=whole)
    assert {"new", "newer"} <= set(written)

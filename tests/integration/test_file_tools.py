"""The file tools on a real directory: hermes.tools.files, with what they read, write and search."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes.errors import ConfigError, ToolError
from hermes.settings import AgentConfig, Config
from hermes.testing import LeakCensus
from hermes.testing.tools import call_tool, processes_with, turn_context
from hermes.tools import open_builtin
from hermes.tools.files import FilesConfig, open_files
from hermes.tools.reading import read_page, write_whole
from hermes.tools.workspace import Workspace
from hermes.toolset import Tool, ToolOutcome, ToolsetHost, resolve

Call = Callable[..., Awaitable[ToolOutcome]]
Opened = Callable[..., AbstractAsyncContextManager[Call]]


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    (tmp_path / "ws").mkdir()
    (tmp_path / "home").mkdir()
    return tmp_path / "ws"


@pytest.fixture
def opened(ws: Path) -> Opened:
    @asynccontextmanager
    async def open_them(*, may_change: bool = True, **config: float) -> Any:
        host = ToolsetHost(home=ws.parent / "home", environment={})
        async with open_files(FilesConfig(**config), host) as tools:

            async def call(name: str, **arguments: Any) -> ToolOutcome:
                return await call_tool(tools, turn_context(ws, may_change=may_change), name, **arguments)

            yield call

    return open_them


async def test_a_file_is_written_read_patched_and_read_again(opened: Opened, ws: Path) -> None:
    async with opened() as call:
        assert (
            await call("write_file", path="a/b/c.txt", content="one\ntwo\n")
        ).text == "wrote 8 bytes to a/b/c.txt (new)"
        assert (await call("read_file", path="a/b/c.txt")).text == "one\ntwo"
        assert (await call("patch", path="a/b/c.txt", old="two", new="2")).text == "patched a/b/c.txt at line 2"
        assert (
            await call("write_file", path="a/b/c.txt", content="x")
        ).text == "wrote 1 bytes to a/b/c.txt (had 6 bytes)"
    assert (ws / "a/b/c.txt").read_text() == "x"
    assert os.listdir(ws / "a/b") == ["c.txt"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "1\n2\n3\n4\n5"),
        ({"limit": 2}, "1\n2\n[lines 1-2; continue with offset=3]"),
        ({"offset": 3, "limit": 2}, "3\n4\n[lines 3-4; continue with offset=5]"),
        ({"offset": 4, "limit": 2}, "4\n5\n[lines 4-5, the last]"),
        ({"offset": 6}, "error: five: has only 5 lines"),
        ({"offset": 0}, "error: invalid arguments: Expected `int` >= 1 - at `offset`; nothing was run"),
    ],
)
async def test_a_page_says_where_it_is(opened: Opened, ws: Path, arguments: dict[str, int], text: str) -> None:
    (ws / "five").write_text("1\n2\n3\n4\n5\n")
    async with opened() as call:
        assert (await call("read_file", path="five", **arguments)).text == text


async def test_odd_files_are_read_within_bounds(opened: Opened, ws: Path) -> None:
    (ws / "empty").touch()
    (ws / "binary").write_bytes(b"\x7fELF\0\0")
    (ws / "latin").write_bytes(b"caf\xe9\r\nend")
    (ws / "long").write_bytes(b"x" * 3_000_000 + b"\nshort\n")
    (ws / "many").write_text("".join(f"{number:0100}\n" for number in range(5000)))
    os.mkfifo(ws / "fifo")
    async with opened() as call:
        assert (await call("read_file", path="empty")).text == "[empty file]"
        assert (await call("read_file", path="binary")).text == "error: binary: binary file, 6 bytes"
        assert (await call("read_file", path="latin")).text == "caf\N{REPLACEMENT CHARACTER}\nend"
        long = (await call("read_file", path="long")).text
        assert long == "x" * 2000 + " [... 3000000 bytes in this line]\nshort"
        many = (await call("read_file", path="many", limit=2000)).text
        assert len(many) < 51_000
        assert many.endswith("continue with offset=497]")
        assert "not a regular file" in (await call("read_file", path="fifo")).text
        assert "not a regular file" in (await call("write_file", path="fifo", content="x")).text
        assert "is a directory" in (await call("write_file", path=".", content="x")).text


def test_a_file_too_large_to_be_paged_through_is_left(ws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes.tools.reading.SCANNED_BYTES", 100)
    (ws / "large").write_text("a line\n" * 100)
    with Workspace(ws, ws.parent / "home").place("large") as place:
        assert "[stopped after 100 bytes, in line 15; use the terminal]" in read_page(place, 10, 50)
        assert read_page(place, 1, 2).startswith("a line\na line\n[lines 1-2")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20), min_size=1, max_size=30),
    st.integers(1, 7),
)
def test_the_pages_together_are_the_file(ws: Path, lines: list[str], limit: int) -> None:
    with Workspace(ws, ws.parent / "home").place("file") as place:
        write_whole(place, "".join(f"{line}\n" for line in lines).encode())
        seen: list[str] = []
        while len(seen) < len(lines):
            page = read_page(place, len(seen) + 1, limit).split("\n")
            last = len(seen) + limit >= len(lines)
            seen += page[:-1] if len(seen) or not last else page
    assert seen == lines


async def test_the_mode_of_a_replaced_file_is_kept(opened: Opened, ws: Path) -> None:
    (ws / "script").write_text("#!/bin/sh\n")
    (ws / "script").chmod(0o750)
    async with opened() as call:
        await call("write_file", path="script", content="#!/bin/sh\ntrue\n")
        await call("patch", path="script", old="true", new="false")
    assert stat.S_IMODE((ws / "script").stat().st_mode) == 0o750


async def test_a_link_stays_a_link_and_its_target_is_written(opened: Opened, ws: Path) -> None:
    (ws / "link").symlink_to("target")
    async with opened() as call:
        await call("write_file", path="link", content="through")
    assert (ws / "link").is_symlink()
    assert (ws / "target").read_text() == "through"


async def test_nothing_is_written_outside_or_into_the_home(opened: Opened, ws: Path) -> None:
    (ws / "home").symlink_to(ws.parent / "home")
    async with opened() as call:
        for path in ("../x", "home/.env", str(ws.parent / "home/.env"), "/tmp/hermes-x"):
            outcome = await call("write_file", path=path, content="x")
            assert outcome.error == "denied", path
    assert os.listdir(ws.parent / "home") == []


async def test_who_may_not_change_anything_only_reads(opened: Opened, ws: Path) -> None:
    (ws / "file").write_text("x")
    async with opened(may_change=False) as call:
        assert (await call("read_file", path="file")).text == "x"
        assert (await call("write_file", path="file", content="y")).error == "denied"
        assert (await call("patch", path="file", old="x", new="y")).error == "denied"
    assert (ws / "file").read_text() == "x"


async def test_a_patch_keeps_the_bytes_that_are_no_text(opened: Opened, ws: Path) -> None:
    (ws / "file").write_bytes(b"caf\xe9 = 1\r\nb = 2\r\n")
    async with opened() as call:
        assert (await call("patch", path="file", old="b = 2\n", new="b = 3\n")).ok
    assert (ws / "file").read_bytes() == b"caf\xe9 = 1\r\nb = 3\r\n"


async def test_two_patches_at_once_lose_nothing(opened: Opened, ws: Path) -> None:
    (ws / "file").write_text("".join(f"<{number}>\n" for number in range(20)))
    async with opened() as call, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(lambda n: call("patch", path="file", old=f"<{n}>", new=f"[{n}]"), number)
    assert (ws / "file").read_text() == "".join(f"[{number}]\n" for number in range(20))


def test_a_file_that_was_changed_by_somebody_else_is_not_overwritten(ws: Path) -> None:
    with Workspace(ws, ws.parent / "home").place("file") as place:
        write_whole(place, b"one")
        about = (ws / "file").stat()
        (ws / "file").write_text("changed by an editor")
        with pytest.raises(ToolError, match="has changed since"):
            write_whole(place, b"two", expected=about)
    assert (ws / "file").read_text() == "changed by an editor"
    assert os.listdir(ws) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ws / "file").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with Workspace(ws, ws.parent / "home").place("file") as place, pytest.raises(ToolError, match="no space left"):
        write_whole(place, b"new")
    assert (ws / "file").read_text() == "old"
    assert os.listdir(ws) == ["file"]


@pytest.fixture
def tree(ws: Path) -> Path:
    for path, text in {
        "src/app.py": "import os\n\ndef main():\n    return os.name\n", "src/test_app.py": "def test_main(): ...\n",
        "README.md": "# App\nrun main()\n", ".git/config": "main\n", "src/node_modules/x.js": "main\n",
    }.items():  # fmt: skip
        (ws / path).parent.mkdir(parents=True, exist_ok=True)
        (ws / path).write_text(text)
    (ws / "binary").write_bytes(b"main\0main")
    (ws / "out").symlink_to("/etc")
    os.mkfifo(ws / "fifo")
    (ws.parent / "home/notes").write_text("main in the home")
    return ws


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pattern": r"def \w*main"}, "src/app.py:3: def main():\nsrc/test_app.py:1: def test_main(): ..."),
        ({"pattern": "main", "glob": "*.md"}, "README.md:2: run main()"),
        ({"pattern": "main", "path": "src", "glob": "app*"}, "src/app.py:3: def main():"),
        ({"pattern": "^import", "path": "src/app.py"}, "src/app.py:1: import os"),
        ({"pattern": "main", "path": "src/node_modules"}, "src/node_modules/x.js:1: main"),
        ({"pattern": "main", "limit": 1}, "README.md:2: run main()\n[more than 1: narrow the search, or raise limit]"),
        ({"pattern": "nowhere"}, "[nothing found in 6 files]"),
        ({"pattern": "*.py", "kind": "name"}, "src/app.py\nsrc/test_app.py"),
        ({"pattern": "src/*_*", "kind": "name"}, "src/test_app.py"),
        ({"pattern": "test", "kind": "name"}, "src/test_app.py"),
        ({"pattern": "(main"}, "error: not a regular expression: missing ), unterminated subpattern at position 0"),
        ({"pattern": "x", "path": ".."}, "error: ..: outside the workspace"),
        ({"pattern": "x", "path": "missing"}, "error: missing: no such file or directory"),
        ({"pattern": "x" * 1001}, "error: a pattern has at most 1000 characters"),
    ],
)
async def test_what_is_searched_for_is_found(opened: Opened, tree: Path, arguments: dict[str, Any], text: str) -> None:
    async with opened() as call:
        assert (await call("search_files", **arguments)).text == text


async def test_a_search_does_not_see_the_home(tree: Path) -> None:
    base, home = tree.parent, tree.parent / "home"
    os.link(home / "notes", tree / "innocent")
    async with open_files(FilesConfig(), ToolsetHost(home=home, environment={})) as tools:
        for arguments in ({"pattern": "in the home"}, {"pattern": "notes", "kind": "name"}):
            outcome = await call_tool(tools, turn_context(base), "search_files", **arguments)
            assert outcome.text.startswith("[nothing found"), outcome.text
        outcome = await call_tool(tools, turn_context(base), "search_files", pattern="x", path="ws/innocent")
        assert outcome.error == "denied"


async def test_an_expression_that_never_ends_is_ended_and_what_was_found_is_kept(opened: Opened, ws: Path) -> None:
    (ws / "a").write_text("found aa\n")
    (ws / "b").write_text("a" * 60 + "b\n")
    async with opened(search_s=1.0) as call:
        outcome = await call("search_files", pattern="(a|aa)+$")
    assert outcome.text.endswith(
        "[the search was ended after 1 s; the expression may be too costly, or narrow path or glob]"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
async def test_while_an_expression_runs_for_ever_everything_else_goes_on(opened: Opened, ws: Path) -> None:
    (ws / "b").write_text("a" * 60 + "b\n")
    pattern = f"(a|aa)+$|{secrets.token_hex(8)}"
    async with opened(search_s=1000.0) as call, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call("search_files", pattern=pattern))
        while not processes_with(pattern):  # noqa: ASYNC110  # nothing tells when another process has begun
            await trio.sleep(0.01)
        assert (await call("read_file", path="b")).ok
        nursery.cancel_scope.cancel()
    assert processes_with(pattern) == []


async def test_large_results_and_large_files_are_bounded(opened: Opened, ws: Path) -> None:
    (ws / "many").write_text(("x" * 500 + "\n") * 3000)
    (ws / "large").write_bytes(b"x\n" * 5_000_000)
    async with opened() as call:
        outcome = await call("search_files", pattern="x", glob="many", limit=1000)
        assert "more than 1000" in outcome.text[-200:] or "bytes of results" in outcome.text[-200:]
        assert len(outcome.text) <= 100_000
        outcome = await call("search_files", pattern="x", glob="large")
        assert outcome.text == "[nothing found in 2 files]\n[1 files were too large to be searched]"


async def test_the_built_in_tools_fit_a_small_prompt_and_leave_nothing(tmp_path: Path) -> None:
    config = Config(home=tmp_path / "home", workspace=tmp_path)
    census = LeakCensus.take()
    async with open_builtin(config, {"PATH": "/bin"}) as tools:
        assert [tool.name for tool in tools] == ["terminal", "read_file", "write_file", "patch", "search_files"]
        assert [tool.name for tool in resolve(tools, may_change=False)] == ["read_file", "search_files"]
        assert len(msgspec.json.encode([on_the_wire(tool) for tool in tools])) <= 3_500
    assert LeakCensus.take().growth_since(census) == []


def on_the_wire(tool: Tool) -> dict[str, Any]:
    """A definition as chat completions take it."""
    about = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": about}


async def test_a_toolset_that_does_not_exist_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    config = Config(home=tmp_path, workspace=tmp_path, agent=AgentConfig(tools=("files", "shell")))
    with pytest.raises(ConfigError, match=r"agent\.tools: no toolset is named shell; there are terminal, files"):
        async with open_builtin(config, {}):
            pass

"""Every command and every block of the README is run as it stands, in its order, against real processes.

Replaced are the port 8642, the address of the local model server, and, where nothing is installed, `python3 -m venv` and
`pip`, for which the environment that runs these tests stands in. With HERMES_FULL=1 or CI=true the first command is run
with a real virtual environment and a real installation; `.ci/run` does so with the second.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio

from hermes.cli import COMMANDS, OF_PLATFORMS
from hermes.config import load_config
from hermes.gateway_options import Overrides
from hermes.home import Home
from hermes.instance import is_held, wait_until_free
from hermes.testing.fake_model import FakeModel, open_fake_model
from hermes.testing.fake_telegram import open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import environment, until
from hermes.testing.pseudo_terminal import open_pseudo_terminal

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALLS = os.environ.get("HERMES_FULL") == "1" or os.environ.get("CI") == "true"
RUN = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/hermes serve"
TEST = "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest"
MODEL_URL = "http://127.0.0.1:11434/v1"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

# What stands for a virtual environment: its programs run the interpreter of these tests.
PYTHON3 = """#!/bin/sh
[ "$*" = "-m venv .venv" ] || exit 64
mkdir -p .venv/bin
cp {programs}/* .venv/bin/
"""
PROGRAMS = {
    "pip": '#!/bin/sh\n[ "$1" = install ] && [ -f pyproject.toml ] && echo "stands for: pip $*"\n',
    "hermes": '#!/bin/sh\nexec {python} -m hermes "$@"\n',
    "python": '#!/bin/sh\nexec {python} "$@"\n',
    "pytest": "#!/bin/sh\nexec {python} -m pytest --collect-only -q tests/unit/test_chat_editing.py\n",
}


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


class Sandbox:
    """A clone, a user's home, and an environment without anything of this machine's configuration."""

    def __init__(self, place: Path, upstream: FakeModel | None = None) -> None:
        self.clone = place / "clone"
        self.user = place / "user"
        self.port = free_port()
        self.upstream = upstream
        self.served: list[str] = []
        self.more: dict[str, str] = {}
        self.token = ""
        for name in ("hermes", "platforms", "tests"):
            self._copy(name)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, self.clone)
        self.user.mkdir()

    def _copy(self, name: str) -> None:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, self.clone / name, ignore=ignored)

    @property
    def home(self) -> Home:
        """Where the gateway of the README lives."""
        return Home(self.user / ".hermes-gateway")

    def stand_in(self) -> None:
        """Let the environment of these tests stand for a virtual environment."""
        programs, shims = self.user.parent / "programs", self.user.parent / "shims"
        for directory in (programs, shims):
            directory.mkdir()
        for name, text in PROGRAMS.items():
            (programs / name).write_text(text.format(python=sys.executable))
        (shims / "python3").write_text(PYTHON3.format(programs=programs))
        for path in (*programs.iterdir(), *shims.iterdir()):
            path.chmod(0o755)

    def env(self, *, installed: bool = False) -> dict[str, str]:
        """The environment of a block; an installation needs the machine's, for its package index."""
        shims = self.user.parent / "shims"
        found = environment({"HOME": str(self.user), "API_SERVER_PORT": str(self.port)})
        if installed:
            found = {**os.environ, "HOME": str(self.user), "API_SERVER_PORT": str(self.port)}
            for name in ("PYTHONPATH", "HERMES_HOME", "VIRTUAL_ENV", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
                found.pop(name, None)
        else:
            found["PATH"] = f"{shims}:{found['PATH']}"
        found.update(self.more)
        if self.upstream is not None:
            found["OPENAI_BASE_URL"] = self.upstream.base_url  # instead of the default, which is on the internet
        return found

    def text(self, block: str) -> str:
        """A block with the addresses of this run."""
        block = block.replace("127.0.0.1:8642", f"127.0.0.1:{self.port}").replace("123456:your-token", self.token)
        return block if self.upstream is None else block.replace(MODEL_URL, self.upstream.base_url)

    async def run(self, *words: str, given: str = "") -> str:
        """Run a program to its end, which must be good; its output."""
        done = await trio.run_process(
            words, stdin=given.encode(), capture_stdout=True, capture_stderr=True, check=False, env=self.env(),
            cwd=self.clone,
        )  # fmt: skip
        shown = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{shown}"
        return shown

    async def shell(self, block: str) -> str:
        """Run a block as a person would paste it."""
        return await self.run("bash", "-euc", self.text(block))

    @asynccontextmanager
    async def serving(
        self, block: str, *, installed: bool = False, within_s: float = 25.0
    ) -> AsyncIterator[trio.Process]:
        """Run a block that ends with `hermes serve`; enter = it serves; the exit asks it to stop, if it still runs."""
        said = self.user.parent / f"serve-{len(self.served)}"
        self.served.append(block)
        with said.open("wb") as output:
            process = await trio.lowlevel.open_process(
                ["bash", "-euc", self.text(block)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self.env(installed=installed), cwd=self.clone, start_new_session=True,
            )  # fmt: skip
        try:
            await until(
                lambda: "Talk to it" in said.read_text() or process.returncode is not None, block, within_s=within_s
            )
            assert process.returncode is None, said.read_text()
            yield process
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGTERM)
                assert await process.wait() in (0, -signal.SIGTERM), said.read_text()
                assert await wait_until_free(self.home, timeout_s=20), said.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the shell and what it started
            with trio.CancelScope(shield=True):
                await process.wait()


def block(kind: str, words: str) -> str:
    """The first block of the README of this kind that holds these words, taken as it is."""
    found = [body for lang, body in BLOCKS if lang == kind and words in body]
    assert found, f"the README has no {kind} block with {words!r}"
    return found[0]


# The blocks in the order in which the README has them: what each is, and by which words it is known.
ORDER = (
    ("sh", RUN), ("sh", TEST), ("sh", "bin/hermes chat\n"), ("sh", 'chat -q "list files"'), ("sh", "curl -s"),
    ("python", "OpenAI("), ("sh", "--replace"), ("sh", "cat > ~/.hermes-gateway/.env"), ("yaml", "model:"),
    ("sh", "config check"), ("sh", "hermes stop"), ("sh", "platform check telegram"), ("sh", "pairing approve"),
    ("yaml", "platforms:"),
)  # fmt: skip


def test_every_block_is_known_here_and_runs_below() -> None:
    assert len(BLOCKS) == len(ORDER) == README.count("\n```") // 2
    for (lang, body), (kind, words) in zip(BLOCKS, ORDER, strict=True):
        assert (lang, words in body) == (kind, True), body
    assert BLOCKS[0][1].strip() == RUN
    assert BLOCKS[1][1].strip() == TEST


@pytest.mark.wall_clock_s(120)
async def test_the_commands_before_a_real_model(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    sandbox.stand_in()
    async with sandbox.serving(block("sh", RUN)) as first:
        key = sandbox.home.api_key_file.read_text().strip()
        assert key in (tmp_path / "serve-0").read_text()
        chat = ["/bin/bash", "-euc", block("sh", "bin/hermes chat\n")]
        async with open_pseudo_terminal(chat, env=sandbox.env(), cwd=sandbox.clone) as terminal:
            await terminal.until("built-in demo model", "/help")
            terminal.type("hi\r")
            await terminal.until("Hello! It works", "config.yaml")
            terminal.type("\x04")
            assert await terminal.ended() == 0
        assert "The tool search_files answered" in await sandbox.shell(block("sh", 'chat -q "list files"'))
        answer = json.loads(await sandbox.shell(block("sh", "curl -s")))
        assert answer["choices"][0]["message"]["content"].startswith("Hello!")
        shown = await sandbox.run(".venv/bin/python", "-", given=sandbox.text(block("python", "OpenAI(")))
        assert shown.startswith("Hello!")
        assert "my-first-session" in await sandbox.run(".venv/bin/hermes", "sessions", "list")
        assert first.returncode is None
    assert not is_held(sandbox.home)


@pytest.mark.wall_clock_s(120)
async def test_five_minutes_to_a_real_model(tmp_path: Path) -> None:
    async with open_fake_model(default=Reply(text="I am real.")) as upstream:
        sandbox = Sandbox(tmp_path)
        sandbox.stand_in()
        async with sandbox.serving(block("sh", RUN)) as first:
            sandbox.upstream = upstream
            async with sandbox.serving(block("sh", "--replace")) as second:
                assert await first.wait() == 0
                assert (await sandbox.run(".venv/bin/hermes", "chat", "-q", "hi")) == "I am real.\n"
                assert upstream.requests[-1].headers["authorization"] == "Bearer your-key"
                assert upstream.requests[-1].body["model"] == "gpt-5-mini"
                status = await sandbox.shell(block("sh", "cat > ~/.hermes-gateway/.env"))
                assert "llama3.2 at http" in status
                assert sandbox.home.env_file.stat().st_mode & 0o777 == 0o600
                sandbox.home.config_file.write_text(sandbox.text(block("yaml", "model:")))
                shown = await sandbox.shell(block("sh", "config check"))
                assert "the configuration is in order" in shown
                assert shown.endswith("I am real.\n")
                assert upstream.requests[-1].body["model"] == "llama3.2"
                shown = await sandbox.shell(block("sh", "hermes stop"))
                assert "Which model are you?" in shown
                assert shown.endswith("stopped\n")
                assert await second.wait() == 0
        assert upstream.refused == []


@pytest.mark.wall_clock_s(120)
async def test_a_first_telegram_bot(tmp_path: Path) -> None:
    async with open_fake_telegram() as telegram:
        sandbox = Sandbox(tmp_path)
        sandbox.stand_in()
        sandbox.more = {"TELEGRAM_BASE_URL": telegram.base_url}
        sandbox.token = telegram.token
        async with sandbox.serving(block("sh", RUN)):
            pass
        async with sandbox.serving(block("sh", "platform check telegram")):
            assert "@hermes_test_bot (id 4242)" in (tmp_path / "serve-1").read_text()
            telegram.write(7, "hello")
            await until(lambda: telegram.texts(7), "a code")
            code = re.findall(r"[A-Z0-9]{8}", telegram.texts(7)[0])[-1]
            await sandbox.shell(block("sh", "pairing approve").replace("CODE", code))
            telegram.write(7, "hello again")
            await until(lambda: len(telegram.texts(7)) >= 2, "an answer")
            assert "You wrote: hello again" in "".join(telegram.texts(7)) or "Hello!" in telegram.texts(7)[1]
            await sandbox.run(".venv/bin/hermes", "stop")
        sandbox.home.config_file.write_text(block("yaml", "platforms:"))
        config = load_config(sandbox.home.path, None, Overrides(), {"TELEGRAM_BOT_TOKEN": "t"})
        assert set(config.platforms) == {"telegram"}  # copied as it is, it refuses nothing
        assert config.platforms["telegram"].access.allowed_users == {"12345678"}


async def test_the_command_that_tests_is_the_one_that_ci_runs(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    sandbox.stand_in()
    shown = await sandbox.shell(block("sh", TEST))
    assert "stands for: pip install .[test]" in shown
    assert "test_chat_editing.py::test_keys" in shown  # the stand-in finds tests, and runs none inside of this one
    taken = re.search(r"python3 -m venv \.venv && [^`]*pytest", README)  # as .ci/run takes it
    assert taken is not None
    assert taken[0] == TEST


@pytest.mark.skipif(not INSTALLS, reason="the README's first command is really installed with HERMES_FULL=1 or CI=true")
@pytest.mark.wall_clock_s(600)
async def test_the_first_command_on_a_fresh_machine(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    async with sandbox.serving(block("sh", RUN), installed=True, within_s=540):
        key = sandbox.home.api_key_file.read_text().strip()
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
            url = f"http://127.0.0.1:{sandbox.port}/v1/models"
            models = (await client.get(url, headers={"authorization": f"Bearer {key}"})).json()
        assert models["data"][0]["id"] == "hermes"
    assert (sandbox.clone / ".venv" / "bin" / "hermes").exists()


def test_the_configuration_it_shows_means_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(block("yaml", "model:"))
    config = load_config(tmp_path, None, Overrides(), {"OPENAI_API_KEY": "x"})
    assert config.warnings == ()
    assert config.model.primary.base_url == MODEL_URL
    assert config.sessions.turn_timeout_s == 600


def test_what_it_names_is_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} leads to {target}"
        for name, word in re.findall(r"`hermes ([a-z]+)(?: ([a-z]+))?", text):
            assert name in COMMANDS or word in OF_PLATFORMS, f"{page.name} names hermes {name}"
    for path in re.findall(r"^\| .*?`((?:hermes|\.ci)/[^`]*)`", README, re.MULTILINE):
        assert (ROOT / path).exists()

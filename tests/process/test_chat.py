"""`hermes chat` as a person and a script meet it: real processes, a real terminal, with a gateway and without."""

from __future__ import annotations

import json
import signal
import subprocess
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.home import Home
from hermes.instance import is_held
from hermes.testing.fake_model import FakeModel, Gate, Hang, Status, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import command, environment, hermes, open_gateway_process, until, write_config
from hermes.testing.pseudo_terminal import PseudoTerminal, open_pseudo_terminal

PROMPT = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"


@asynccontextmanager
async def with_model(home: Path, **sections: Any) -> AsyncIterator[FakeModel]:
    """A model server, and a configuration that names it."""
    async with open_fake_model() as upstream:
        model = {"default": "fake", "base_url": upstream.base_url, "retry_budget": 1}
        write_config(home, {"model": model, **sections})
        yield upstream


@asynccontextmanager
async def open_chat(home: Path, *words: str, cwd: Path | None = None) -> AsyncIterator[PseudoTerminal]:
    """`hermes chat` at a terminal; what it works in is beside the home."""
    place = cwd or home.parent / "work"
    place.mkdir(exist_ok=True)
    async with open_pseudo_terminal(
        command("chat", "--home", str(home), *words), env=environment(), cwd=place, columns=90, rows=40
    ) as terminal:
        yield terminal


async def sessions(home: Path, action: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`hermes sessions ACTION`."""
    done = await trio.run_process(
        command("sessions", action, "--home", str(home), *words), capture_stdout=True, capture_stderr=True, check=False,
        env=environment(),
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


async def leave(terminal: PseudoTerminal) -> int:
    """Press Control-D; the exit code."""
    terminal.type("\x04")
    return await terminal.ended()


# --- for scripts


async def test_a_question_prints_the_reply_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = await hermes(home, "chat", "-q", "hi")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Hello! It works")
    assert done.stdout.endswith("when they change.\n")
    assert "\x1b" not in done.stdout
    assert not is_held(Home(home))  # the embedded gateway has gone
    assert not Home(home).api_key_file.exists()  # it has no door that a key would open
    listed = await sessions(home, "list", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    (session,) = json.loads(listed.stdout)
    assert session["title"] == "hi"
    again = await hermes(home, "chat", "-q", "and now?", "--session", session["id"])
    assert again.stdout.startswith("You wrote: and now?")
    shown = await sessions(home, "show", session["id"])
    assert shown.stdout.index("hi") < shown.stdout.index("and now?")
    assert (await sessions(home, "delete", session["id"])).stdout == f"deleted {session['id']}\n"
    none = await sessions(home, "list")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "there are no conversations yet\n")


async def test_standard_input_is_a_question_too(tmp_path: Path) -> None:
    done = await trio.run_process(
        command("chat", "--home", str(tmp_path / "home"), "-q", "-"), stdin=b"two\nlines \xff\n", capture_stdout=True,
        capture_stderr=True, env=environment(),
    )  # fmt: skip
    assert done.stdout.decode().startswith("You wrote: two\nlines \N{REPLACEMENT CHARACTER}\n")
    assert done.stderr == b""


async def test_a_turn_that_fails_is_told_on_stderr_and_by_the_exit_code(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with with_model(home) as upstream, open_gateway_process(home) as gateway:
        upstream.script(Status(code=401, message="no such key"), Reply(text=("fine", " again")))
        done = await hermes(home, "chat", "-q", "hi")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("hermes: ")
        assert done.stderr.count("\n") == 1
        assert (await hermes(home, "chat", "-q", "hi")).stdout == "fine again\n"
        for words in (("--session", "absent"), ("--model", "absent")):
            refused = await hermes(home, "chat", "-q", "hi", *words)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert "absent" in refused.stderr
        assert (await hermes(home, "chat", "-q", " ")).returncode == 1
        assert (await hermes(home, "chat", "-q", "hi", "--session", "no/id")).returncode == 2
        upstream.script(Hang())
        process = await trio.lowlevel.open_process(
            command("chat", "--home", str(home), "-q", "wait"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment(),
        )  # fmt: skip
        await until(lambda: upstream.answering == 1, "the question reached the model")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        await until(lambda: upstream.open_connections == 0, "nobody asks the model any more")
        assert gateway.process.returncode is None


async def test_lines_that_are_piped_in_are_messages(tmp_path: Path) -> None:
    text = b'hi\n/help\n"""\na\nb\n"""\n/nonsense\nlast\\\nline'
    done = await trio.run_process(
        command("chat", "--home", str(tmp_path / "home")), stdin=text, capture_stdout=True, capture_stderr=True,
        env=environment(),
    )  # fmt: skip
    shown = done.stdout.decode()
    assert done.stderr == b""
    assert "\x1b" not in shown
    places = [
        shown.index(each)
        for each in ("Hello!", "/sessions", "You wrote: a\nb", "no command /nonsense", "You wrote: last\nline")
    ]
    assert places == sorted(places)


# --- at a terminal


async def test_a_conversation_with_a_tool(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_chat(home) as chat:
        seen = await chat.until("Hermes", "the built-in demo model", "/help", PROMPT)
        assert chat.modes()[3] & termios.ECHO == 0
        chat.type("list files\r")
        seen = await chat.until(
            "search_files  * kind=name", "ok", "The tool search_files answered:", PROMPT, after=seen
        )
        assert is_held(Home(home))
        chat.type("/nonsense\r")
        seen = await chat.until("there is no command /nonsense", PROMPT, after=seen)
        chat.type("/title my talk\r")
        seen = await chat.until("the title is now: my talk", PROMPT, after=seen)
        chat.type("/sessions\r")
        seen = await chat.until("my talk (this one)", PROMPT, after=seen)
        chat.type("/new\r")
        seen = await chat.until("a new conversation", PROMPT, after=seen)
        chat.type("\x1b[200~pasted\rlines\x1b[201~\r")
        seen = await chat.until("pasted\n", "lines\n", "You wrote: pasted\nlines", PROMPT, after=seen)
        chat.type("/resume 1\r")  # as listed above
        seen = await chat.until("my talk", "list files", PROMPT, after=seen)
        chat.type("/model absent\r")
        seen = await chat.until("'absent' is not configured", PROMPT, after=seen)
        chat.type("/model\r")
        seen = await chat.until("* hermes", PROMPT, after=seen)
        chat.type("/stop\r")
        seen = await chat.until("nothing runs", PROMPT, after=seen)
        chat.type("/quit\r")
        assert await chat.ended() == 0
        await chat.until("to go on: hermes chat --session ", after=seen)
        assert chat.modes()[3] & termios.ECHO
        assert chat.screen.unknown == []
    assert not is_held(Home(home))
    assert "list files" in Home(home).chat_history.read_text()


async def test_control_c_interrupts_the_turn_and_not_the_program(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_chat(home) as chat:
        seen = await chat.until("/help", PROMPT)
        mark = tmp_path / "work" / "began"
        chat.type("run: touch began; exec sleep 600\r")
        await until(mark.exists, "the command runs")
        chat.type("\x03")
        seen = await chat.until("not finished", "interrupted", PROMPT, after=seen)
        chat.type("and then?\r")
        seen = await chat.until("You wrote: and then?", PROMPT, after=seen)
        chat.type("half a line")
        seen = await chat.until("half a line", after=seen)
        chat.type("\x03")
        seen = await chat.until(PROMPT, after=seen)
        chat.type("\x03")
        seen = await chat.until("Control-C again leaves", PROMPT, after=seen)
        chat.type("go on\r")
        seen = await chat.until("You wrote: go on", PROMPT, after=seen)
        chat.type("\x03")
        await chat.until("Control-C again leaves", PROMPT, after=seen)
        chat.type("\x03")
        assert await chat.ended() == 0
    assert not is_held(Home(home))


@pytest.mark.parametrize("how", ["SIGTERM", "hang up"])
async def test_whatever_ends_it_ends_the_embedded_gateway(tmp_path: Path, how: str) -> None:
    home = tmp_path / "home"
    async with open_chat(home) as chat:
        await chat.until("/help", PROMPT)
        mark = tmp_path / "work" / "began"
        chat.type("run: touch began; exec sleep 600\r")
        await until(mark.exists, "the command runs")
        if how == "SIGTERM":
            chat.process.send_signal(signal.SIGTERM)
            assert await chat.ended() == 130
            assert chat.modes()[3] & termios.ECHO
        else:
            chat.hang_up()
            assert await chat.ended() == 130
    assert not is_held(Home(home))
    shown = await sessions(home, "list", "--json")
    (session,) = json.loads(shown.stdout)
    assert session["turning"] is False


# --- with gateways that come and go


async def test_a_running_gateway_is_used_and_its_sudden_end_survived(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with with_model(home) as upstream:
        async with open_gateway_process(home) as gateway, open_chat(home) as chat:
            seen = await chat.until("fake", "/help", PROMPT)
            upstream.script(Reply(text="first answer"), Hang(), Reply(text="third answer"))
            chat.type("first\r")
            seen = await chat.until("first answer", PROMPT, after=seen)
            assert (await gateway.status())["mode"] == "gateway"
            chat.type("second\r")
            await until(lambda: upstream.answering == 1, "the model is asked")
            await gateway.kill()
            seen = await chat.until("the gateway went away in the middle of the reply", PROMPT, after=seen)
            chat.type("third\r")
            seen = await chat.until("third answer", PROMPT, after=seen)
            assert (await gateway.status())["mode"] == "embedded"  # of the chat
            said = [each["content"] for each in upstream.requests[-1].body["messages"] if each["role"] == "user"]
            assert said == ["first", "second", "third"]
            assert await leave(chat) == 0
    assert not is_held(Home(home))


async def test_a_gateway_that_starts_takes_over_when_the_turn_is_done(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with with_model(home) as upstream, open_chat(home) as chat:
        seen = await chat.until("/help", PROMPT)
        answer = trio.Event()
        upstream.script(Gate(event=answer, reply=Reply(text="answered by the old one")), Reply(text="by the new one"))
        chat.type("first\r")
        await until(lambda: upstream.answering == 1, "the model is asked")
        async with open_gateway_process(home, wait=False) as gateway:

            async def drains() -> bool:
                return bool((await gateway.status())["status"] == "draining")

            await until(drains, "the embedded gateway was asked to hand over")
            answer.set()
            seen = await chat.until("answered by the old one", PROMPT, after=seen)
            await gateway.served()
            chat.type("second\r")
            seen = await chat.until("by the new one", PROMPT, after=seen)
            assert (
                "another gateway: tools work in" in chat.screen.text
            )  # its workspace, and no longer the directory of the chat
            status = await gateway.status()
            assert (status["mode"], status["pid"]) == ("gateway", gateway.pid)
            said = [each["content"] for each in upstream.requests[-1].body["messages"] if each["role"] == "user"]
            assert said == ["first", "second"]
            assert await leave(chat) == 0
            assert gateway.process.returncode is None


async def test_two_chats_share_a_gateway_and_the_one_that_stays_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_chat(home) as first:
        await first.until("/help", PROMPT)
        async with open_chat(home) as second:
            seen = await second.until("/help", PROMPT)
            assert await leave(first) == 0
            second.type("still here\r")
            seen = await second.until("You wrote: still here", PROMPT, after=seen)
            assert is_held(Home(home))
            assert await leave(second) == 0
    assert not is_held(Home(home))


async def test_many_questions_at_once_share_what_gateway_there_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    answers: dict[int, str] = {}

    async def ask(number: int) -> None:
        done = await hermes(home, "chat", "-q", f"question {number}")
        assert (done.returncode, done.stderr) == (0, "")
        answers[number] = done.stdout.splitlines()[0]

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(ask, number)
    assert answers == {number: f"You wrote: question {number}" for number in range(6)}
    assert not is_held(Home(home))
    assert len(json.loads((await sessions(home, "list", "--json")).stdout)) == 6


async def test_what_cannot_be_started_is_said_with_its_exit_code(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_config(home, {"http": {"prot": 1}})
    done = await hermes(home, "chat", "-q", "hi")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "hermes: http.prot: is not a known key; did you mean port?\n"
    async with open_chat(home) as chat:
        await chat.until("http.prot")
        assert await chat.ended() == 78
        assert chat.modes()[3] & termios.ECHO
        assert "starting" not in chat.screen.text


async def test_a_terminal_that_cannot_be_steered_gets_whole_lines(tmp_path: Path) -> None:
    async with open_pseudo_terminal(
        command("chat", "--home", str(tmp_path / "home")),
        env=environment({"TERM": "dumb"}),
        cwd=tmp_path,
        columns=60,
        rows=40,
    ) as chat:
        seen = await chat.until("Hermes · the built-in demo model\n", "/help", PROMPT)
        chat.type("hi\r")
        await chat.until("Hello!", PROMPT, after=seen)
        chat.type("\x04")
        await chat.until(f"{PROMPT}\nto go on: hermes chat --session ", after=seen)
        assert await chat.ended() == 0

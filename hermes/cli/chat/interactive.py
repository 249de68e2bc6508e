"""`hermes chat` in a terminal: read, send, show, until the person leaves."""

from __future__ import annotations

import argparse
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import trio

from hermes.cli.chat import commands
from hermes.cli.chat.conversation import Conversation
from hermes.cli.chat.editor import Editor
from hermes.cli.chat.history import History
from hermes.cli.chat.reply import Reply
from hermes.cli.chat.terminal import Terminal, open_terminal, set_keys
from hermes.cli.chat.text import from_home, joined, one_line
from hermes.cli.reach import Reach, open_reach
from hermes.cli.running import DONE, FAILED, INTERRUPTED
from hermes.errors import GatewayLeft, HermesError, leaves
from hermes.gateway_options import ServeOptions
from hermes.home import Home

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT, signal.SIGWINCH)


class Interrupts:
    """What Control-C ends now."""

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None

    @contextmanager
    def ending(self) -> Iterator[trio.CancelScope]:
        """While inside, Control-C cancels this scope."""
        with trio.CancelScope() as scope:
            self._scope = scope
            try:
                yield scope
            finally:
                self._scope = None

    def press(self) -> bool:
        """Control-C was pressed; False when there was nothing to end."""
        if self._scope is None:
            return False
        self._scope.cancel("Control-C")
        return True


async def talk(
    home: Home, options: Callable[[], ServeOptions], arguments: argparse.Namespace, environ: Mapping[str, str]
) -> int:
    """Talk until the person leaves; returns the exit code."""
    code = INTERRUPTED
    async with open_terminal(environ) as terminal:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                interrupts = Interrupts()
                nursery.start_soon(_hear, signals, interrupts, terminal, nursery.cancel_scope)
                async with open_reach(home, options) as reach:
                    chat = Chat(terminal, reach, interrupts, arguments, environ.get("HOME", ""))
                    code = await chat.run(History(home.chat_history))
                nursery.cancel_scope.cancel("over")
    return code


async def _hear(
    signals: AsyncIterator[int], interrupts: Interrupts, terminal: Terminal, everything: trio.CancelScope
) -> None:
    async for number in signals:
        match number:
            case signal.SIGINT if interrupts.press():
                pass
            case signal.SIGWINCH:
                terminal.redraw()
            case signal.SIGCONT:
                if terminal.steered:
                    set_keys()
                terminal.redraw()
            case _:  # Control-C too, while the end waits for what others have asked the embedded gateway
                everything.cancel("a signal")


class Chat:
    """A person at a terminal and a conversation.

    Args:
        terminal: where the person is.
        reach: the way to the gateway.
        interrupts: what Control-C ends.
        arguments: of the command line.
        user_home: the person's home directory, shown as `~`.
    """

    def __init__(
        self, terminal: Terminal, reach: Reach, interrupts: Interrupts, arguments: argparse.Namespace, user_home: str
    ) -> None:
        self.terminal = terminal
        self.conversation = Conversation(reach, arguments.session, arguments.model)
        self.listed: list[dict[str, Any]] = []  # what /sessions showed last, for /resume NUMBER
        self._reach = reach
        self._interrupts = interrupts
        self._user_home = user_home
        self._reasoning = bool(arguments.reasoning)
        self._failed = False
        self._workspace = ""  # where tools worked when that was last said

    async def run(self, history: History) -> int:
        """Talk until the person leaves; returns the exit code."""
        with self._interrupts.ending() as beginning:
            await self._begin(history)
        if beginning.cancelled_caught:
            return INTERRUPTED
        warned = False
        while True:
            with self._interrupts.ending() as reading:
                editor = Editor(history.entries, commands.complete)
                text = await self.terminal.read(editor)
                if text is None:
                    if self.terminal.asks and not self.terminal.steered:
                        self.terminal.put("\n")  # the prompt has no line end after it
                    break
                warned = False
                history.add(editor.text)
                if not text:
                    continue
            if reading.cancelled_caught:
                if warned or not self.terminal.steered:
                    break
                warned = not editor.text
                if warned:
                    self.note("Control-C again leaves, and so does Control-D")
            elif not await self._answer(text):
                break
        if self.terminal.asks and self.conversation.session is not None:
            self.note(f"to go on: hermes chat --session {self.conversation.session}")
        return FAILED if self._failed and not self.terminal.asks else DONE

    async def _begin(self, history: History) -> None:
        painter = self.terminal.painter
        self.terminal.put(painter.below(["starting …"]))
        history.load()
        found = None
        try:
            await self._reach.gateway()
            if self.conversation.session is not None:
                model = self.conversation.model
                found = await self.conversation.resume(self.conversation.session)
                self.conversation.model = model
        finally:
            self.terminal.put(painter.below([]))  # an error is not said behind it
        if not self.terminal.asks:
            return
        first, *more = joined(self._about(), " · ", painter.columns)
        name = painter.style("Hermes", "bold")
        self.terminal.put(painter.line(name + painter.style(first.removeprefix("Hermes"), "dim")))
        for line in more:
            self.terminal.put(painter.line(painter.style(line, "dim")))
        if found is not None:
            await commands.show_last(self, found)
        self.terminal.put(painter.line())

    def _about(self) -> list[str]:
        """In a few words whom one talks to, and where tools work."""
        model = self._reach.status.get("model") or {}
        name = "the built-in demo model" if model.get("api") == "demo" else one_line(str(model.get("name", "?")))
        self._workspace = self._works_in()
        where = [f"tools work in {self._workspace}"] if self._workspace else []
        return ["Hermes", name, *where, "/help"]

    def _works_in(self) -> str:
        """Where the tools of the gateway that was reached last work."""
        return one_line(from_home(str(self._reach.status.get("workspace") or ""), self._user_home))

    def _say_if_moved(self) -> None:
        """Another gateway may have answered than before, and its tools may work elsewhere."""
        place = self._works_in()
        if self.terminal.asks and place not in ("", self._workspace):
            self._workspace = place
            self.note(f"(another gateway: tools work in {place} now)")

    async def _answer(self, text: str) -> bool:
        """A command or a message; False when the person leaves."""
        found = commands.parse(text)
        stay = True
        with self._interrupts.ending() as answering:
            try:
                if found is None:
                    await self._say(text)
                else:
                    stay = await commands.run(self, *found)
            except HermesError as error:
                self.fail(str(error))
        if answering.cancelled_caught:
            self._failed = True
            self.fail("interrupted")
        self.terminal.put(self.terminal.painter.line() if self.terminal.asks else "")
        return stay

    async def _say(self, text: str) -> None:
        reply = Reply(self.terminal, reasoning=self._reasoning)
        self._failed = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reply.animate)
                async with self.conversation.say(text) as turn:
                    self._say_if_moved()
                    async for told in turn:
                        self._failed = not reply.show(told)
                        await self.terminal.room()
                nursery.cancel_scope.cancel("over")
        except* HermesError as group:
            error = next(each for each in leaves(group) if isinstance(each, HermesError))
            reply.end()
            left = "the gateway went away in the middle of the reply; your next message goes on"
            self.fail(left if isinstance(error, GatewayLeft) else str(error))
        finally:
            reply.end()

    def note(self, text: str) -> None:
        """Say something beside the conversation."""
        self.terminal.put(self.terminal.painter.paragraph(text, "dim"))

    def fail(self, text: str) -> None:
        """Say that something did not work."""
        self.terminal.put(self.terminal.painter.paragraph(f"✗ {one_line(text)}", "bad"))

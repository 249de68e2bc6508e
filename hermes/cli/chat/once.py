"""`hermes chat -q`: one question, the reply as plain text on stdout, anything else on stderr."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable

import trio

from hermes.cli.chat.conversation import Completed, Conversation, Failed, Step, Words
from hermes.cli.chat.text import clean
from hermes.cli.reach import open_reach
from hermes.cli.running import DONE, FAILED, INTERRUPTED, printable
from hermes.errors import ControlFailed
from hermes.gateway_options import ServeOptions
from hermes.home import Home


async def ask_once(
    home: Home, options: Callable[[], ServeOptions], text: str, session: str | None, model: str | None
) -> int:
    """Ask, and print what is answered as it comes.

    Returns: 0; 1 when the turn did not end well; 130 when it was interrupted by a signal.
    """
    if not text.strip():
        print("hermes: there is nothing to ask", file=sys.stderr)
        return FAILED
    code = INTERRUPTED
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, signals, nursery.cancel_scope)
            async with open_reach(home, options) as reach:
                code = await _print_reply(Conversation(reach, session, model), text)
            nursery.cancel_scope.cancel("over")
    if code == INTERRUPTED:
        print("hermes: interrupted", file=sys.stderr)
    return code


async def _until_signal(signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
    async for _ in signals:
        everything.cancel("a signal")


async def _print_reply(conversation: Conversation, text: str) -> int:
    output = _Output()
    failed: ControlFailed | None = None
    reason: str | None = None
    try:
        try:
            async with conversation.say(text) as turn:
                async for told in turn:
                    match told:
                        case Words(words):
                            await output.write(words)
                        case Step():
                            await output.end_line()
                        case Failed():
                            reason = told.reason
                        case Completed("length"):
                            print("hermes: the reply was cut at the model's length limit", file=sys.stderr)
        except ControlFailed as error:
            failed = error
        await output.end_line()
    except ReaderLeft:
        return DONE  # who read has what it wanted; leaving has ended the turn
    if failed is not None:
        raise failed
    if reason is not None:
        print(f"hermes: {printable(reason)}", file=sys.stderr)
    return DONE if reason is None else FAILED


class ReaderLeft(Exception):
    """Nobody reads standard output any more."""


class _Output:
    """Standard output, written in a thread: a reader that does not read must not stop an embedded gateway."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._whole_line = True

    async def write(self, text: str) -> None:
        """Write a piece of the reply; what steers a terminal is taken out where it would."""
        text = clean(text) if self._terminal else text
        if text:
            self._whole_line = text.endswith("\n")
            await trio.to_thread.run_sync(_write_all, text.encode("utf-8", "replace"), abandon_on_cancel=True)

    async def end_line(self) -> None:
        """Begin a new line, unless one has just begun."""
        if not self._whole_line:
            await self.write("\n")


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(sys.stdout.fileno(), view) :]
        except BrokenPipeError:
            raise ReaderLeft from None

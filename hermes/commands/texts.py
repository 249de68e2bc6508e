"""What people read in answer to a command. Pure; markdown, in which what people wrote themselves is words and no markup."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from hermes.account_words import describe_account
from hermes.accounts import AccountStatus
from hermes.commands import MAX_TITLE, usage
from hermes.events import Button
from hermes.inbound import flat
from hermes.store.backlog import NOTHING, Backlog
from hermes.store.conversations import MAX_EXCHANGES, Outcome
from hermes.store.rows import SessionRow

SHOWN_WORDS: Final = 80
MAX_BUTTONS: Final = 8
MAX_LABEL: Final = 24  # characters; of more a telephone shows no more
MAX_DATA: Final = 64  # bytes that a button carries
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~&$:/@=])")

BUSY: Final = "I am still answering here, or a message waits. Let me finish, or say /stop first."
NOTHING_SAID: Final = "Nothing was said here yet."
NOT_YOURS: Final = "You have no conversation like that. /sessions lists them."

START: Final = "Hello. Write to me in plain words. /help says what else there is to type, /stop ends what I am doing."


def plain(text: str, most: int = MAX_TITLE) -> str:
    """Words of a person on one line, with every sign that could be markup taken as itself."""
    return _MARKUP.sub(r"\\\1", flat(text, most))


def code(text: str) -> str:
    """An id as code."""
    return f"`{flat(text, 600).replace('`', chr(39))}`"


def title_of(arguments: str) -> str | None:
    """A title as it is kept; None where nothing is left of it."""
    return flat(arguments, MAX_TITLE).strip() or None


def restricted(name: str, why: str) -> str:
    """A command that this person may not use."""
    if why == "disabled":
        return f"`/{name}` is switched off on this account."
    return (
        f"`/{name}` is for admins of this account. (Its owner names them in the configuration, under `admins`; /whoami says"
        " your id.)"
    )


def anew(done: Outcome) -> str:
    """The answer to /new."""
    named = f" It is called {plain(done.title)}." if done.title else ""
    if done.what == "nothing":
        return "This is a new conversation." + named
    return "A new conversation." + named + " The one before is kept; /sessions lists it."


def titled(done: Outcome, *, asked: bool) -> str:
    """The answer to /title; `asked` = for its name."""
    if done.what == "nothing":
        return NOTHING_SAID
    if asked:
        return f"This conversation is called {plain(done.title)}." if done.title else "It has no name yet."
    return f"It is called {plain(done.title or '')} now."


def resumed(done: Outcome) -> str:
    """The answer to /resume."""
    name = plain(done.title) if done.title else "that conversation"
    match done.what:
        case "done":
            return f"Going on with {name}. What was said here before is kept."
        case "same":
            return "That is the conversation we are in."
        case "elsewhere":
            return "That one goes on at another place. Say /new there first, or /branch."
        case _:
            return NOT_YOURS


def branched(done: Outcome) -> str:
    """The answer to /branch."""
    if done.what == "done":
        name = f", called {plain(done.title)}" if done.title else ""
        return f"Going on in a copy{name}. The one before stays as it is; /sessions lists it."
    return BUSY if done.what == "busy" else NOTHING_SAID


def undone(done: Outcome) -> str:
    """The answer to /undo."""
    if done.what == "done":
        what = "The last exchange is" if done.number == 1 else f"The last {done.number} exchanges are"
        return f"{what} forgotten, back to: {plain(done.text, SHOWN_WORDS)}\n\nWhat tools did is not undone."
    return BUSY if done.what == "busy" else NOTHING_SAID


def retried(done: Outcome) -> str:
    """The answer to /retry."""
    if done.what == "done":
        return f"Again: {plain(done.text, SHOWN_WORDS)}"
    return BUSY if done.what == "busy" else NOTHING_SAID


def undo_usage() -> str:
    """How /undo is typed."""
    return f"How many? {usage('undo')}, from 1 to {MAX_EXCHANGES}."


def session_list(rows: Sequence[SessionRow], key: str) -> str:
    """The answer to /sessions: numbered, as /resume takes them."""
    if not rows:
        return "There are no conversations of yours yet."
    lines = []
    for number, row in enumerate(rows, 1):
        here = " *(this one)*" if row.key == key and row.ended_at is None else ""
        name = plain(row.title) if row.title else "without a name"
        lines.append(f"{number}. {name}{here}, {when(row.updated_at)}, {_turns(row)}")
    return "\n".join(lines) + "\n\n/resume and a number goes on with one."


def _turns(session: SessionRow) -> str:
    return f"{session.turns} turn{'' if session.turns == 1 else 's'}"


def session_buttons(rows: Sequence[SessionRow]) -> tuple[tuple[Button, ...], ...]:
    """For each of the first conversations of that list a button, numbered like it, two in a row.

    It names the conversation by its id: what it means stays the same however the list has changed when somebody presses it.
    """
    found = [
        Button(text=flat(f"{number}. {row.title or 'without a name'}", MAX_LABEL), data=f"/resume {row.id}")
        for number, row in enumerate(rows[:MAX_BUTTONS], 1)
    ]
    fitting = [each for each in found if len(each.data.encode()) <= MAX_DATA]
    return tuple(tuple(fitting[start : start + 2]) for start in range(0, len(fitting), 2))


def when(at: float) -> str:
    """A time, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def described(session: SessionRow | None) -> str:
    """A conversation, for /status."""
    if session is None:
        return NOTHING_SAID
    name = f"{plain(session.title)}, " if session.title else ""
    tokens = session.input_tokens + session.output_tokens
    return (
        f"Conversation: {name}{_turns(session)}, {session.messages} messages, {tokens:,} tokens, since"
        f" {when(session.created_at)}."
    )


def accounts_text(accounts: Sequence[AccountStatus], backlogs: Mapping[str, Backlog], *, details: bool) -> str:
    """The answer to /platforms.

    Args:
        backlogs: what waits at them.
        details: with what is wrong, in the words of the services, when they showed life, and what waits; for admins.
    """
    if not accounts:
        return "There are no accounts."
    lines = []
    for each in accounts:
        told = {**asdict(each), **asdict(backlogs.get(each.account, NOTHING))}
        first, *more = describe_account(told) if details else [str(each.state)]
        lines.append(f"- {code(each.account)}: {plain(first, 400)}")
        lines += [f"  - {plain(line, 400)}" for line in more]
    return "\n".join(lines)

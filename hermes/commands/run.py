"""Running one command: its row to a value that says what is answered and what is to be done. Nothing here knows the gateway.

Each command may be run again after a death of the process; what changes rows does so once (`hermes.store.conversations`), and
the rest may be done twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from hermes import commands
from hermes.commands import texts
from hermes.commands.services import Asked, Reply, Restart, Resubmit, Result, Services
from hermes.session_keys import kind_of_chat
from hermes.store.conversations import MAX_EXCHANGES, MOST_OWN
from hermes.store.rows import SessionRow

LISTED: Final = 20
LEAST_OF_AN_ID: Final = 6  # characters from the end of an id that name a conversation


async def run_command(asked: Asked, services: Services) -> Result:
    """Run one command, if who asks may use it.

    Args:
        asked: whose, where, what.
        services: what it works with.

    Returns: the answer, or what the caller is to do.

    Raises:
        StoreUnavailable: nothing was changed; it is to be run again.
        RequestError: in words for a person.
    """
    name = asked.command.name
    if not asked.command.known:
        return Reply(commands.unknown_text(asked.command))
    may = asked.policy.may_use(asked.person, name)
    if may != "yes":
        return Reply(texts.restricted(name, may))
    return await _RUN[name](asked, services)


async def _start(_asked: Asked, _services: Services) -> Result:
    return Reply(texts.START)


async def _help(asked: Asked, services: Services) -> Result:
    if asked.arguments:
        return _help_for(asked)
    usable = asked.policy.usable(asked.person)
    brief = services.gateway.is_brief(asked.address.account)
    return Reply(commands.names_text(usable) if brief else commands.help_text(usable))


def _help_for(asked: Asked) -> Reply:
    """What is said of one command."""
    about = commands.named(asked.arguments)
    if about is None:
        return Reply(commands.usage("help"))
    if not about.known:
        return Reply(f"There is no command `/{about.name}`. /help lists them.")
    may = asked.policy.may_use(asked.person, about.name)
    return Reply(commands.one_text(about.name) if may == "yes" else texts.restricted(about.name, may))


async def _commands(asked: Asked, services: Services) -> Result:
    usable = asked.policy.usable(asked.person)
    brief = services.gateway.is_brief(asked.address.account)
    return Reply(commands.names_text(usable) if brief else commands.list_text(usable))


async def _new(asked: Asked, services: Services) -> Result:
    done = await services.conversations.begin_anew(asked.row, asked.key, texts.title_of(asked.arguments))
    await _leave_behind(asked, services)
    return Reply(texts.anew(done))


async def _leave_behind(asked: Asked, services: Services) -> None:
    """What runs and waits was said to the conversation before: it is ended, and nothing of it stays in memory."""
    await services.turns.stop(asked.key, asked.row.event_id, asked.row.id)
    services.turns.forget(asked.key)


async def _stop(asked: Asked, services: Services) -> Result:
    ended = await services.turns.stop(asked.key, asked.row.event_id, asked.row.id)
    return Reply("Stopped." if ended else "Nothing was going on.")


async def _status(asked: Asked, services: Services) -> Result:
    session, waiting = await services.gateway.standing(asked.key)
    now = "I am answering." if services.turns.is_turning(asked.key) else "I am idle."
    queue = f" {waiting} message{' waits' if waiting == 1 else 's wait'}." if waiting else ""
    described = texts.described(session)
    return Reply(f"{now}{queue}\n\n{described}\n\nModel: {texts.code(_model(session, services))}")


def _model(session: SessionRow | None, services: Services) -> str:
    return session.model if session is not None and session.model else services.gateway.model()


async def _whoami(asked: Asked, _services: Services) -> Result:
    closed = sorted(commands.NAMES - asked.policy.usable(asked.person))
    place = f"{texts.code(str(asked.address))} ({kind_of_chat(asked.key) or 'a chat'})"
    lines = [
        f"You are {texts.code(asked.person)} at {texts.code(asked.address.account)}"
        + (", an admin." if asked.admin else "."),
        f"This place is {place}, its conversation {texts.code(asked.key)}.",
        "You may use every command." if not closed else "Not for you: " + ", ".join(f"`/{each}`" for each in closed),
    ]
    return Reply("\n\n".join(lines))


async def _say(asked: Asked, _services: Services) -> Result:
    name = asked.command.name
    if not asked.arguments:
        return Reply(f"Say what: {commands.usage(name)}")
    return Resubmit(asked.arguments, "queue" if name == "queue" else "steer")


async def _retry(asked: Asked, services: Services) -> Result:
    may_change = asked.policy.may_change_id(asked.person)
    done = await services.conversations.retry(asked.row, asked.key, may_change=may_change)
    services.turns.forget(asked.key)
    return Reply(texts.retried(done), again=done.what == "done")


async def _undo(asked: Asked, services: Services) -> Result:
    number = count(asked.arguments)
    if number is None:
        return Reply(texts.undo_usage())
    done = await services.conversations.undo(asked.row, asked.key, number)
    services.turns.forget(asked.key)
    return Reply(texts.undone(done))


def count(arguments: str) -> int | None:
    """How many exchanges are meant: 1 where nothing is said, None where it is no number that can be. Pure."""
    if not arguments:
        return 1
    if not (arguments.isascii() and arguments.isdigit() and len(arguments) <= 3):
        return None
    return int(arguments) if 1 <= int(arguments) <= MAX_EXCHANGES else None


async def _title(asked: Asked, services: Services) -> Result:
    title = texts.title_of(asked.arguments)
    done = await services.conversations.set_title(asked.row, asked.key, title)
    return Reply(texts.titled(done, asked=title is None))


async def _sessions(asked: Asked, services: Services) -> Result:
    rows = await services.conversations.own(asked.key, asked.row.principal, LISTED)
    return _listed(asked, rows)


def _listed(asked: Asked, rows: Sequence[SessionRow]) -> Reply:
    """The list, with buttons for who may press them; a press is a command of whoever presses."""
    may = asked.policy.may_use(asked.person, "resume") == "yes"
    return Reply(texts.session_list(rows, asked.key), buttons=texts.session_buttons(rows) if may else ())


async def _resume(asked: Asked, services: Services) -> Result:
    rows = await services.conversations.own(asked.key, asked.row.principal, MOST_OWN)
    if not asked.arguments:
        return _listed(asked, rows[:LISTED])
    chosen = choose(rows, asked.arguments)
    if len(chosen) != 1:
        return Reply(texts.NOT_YOURS if not chosen else "Several are called so. Take its number in /sessions.")
    done = await services.conversations.resume(asked.row, asked.key, chosen[0].id)
    if done.what == "done":
        await _leave_behind(asked, services)
    return Reply(texts.resumed(done))


def choose(rows: Sequence[SessionRow], wanted: str) -> list[SessionRow]:
    """Which conversations are meant: by id, by the place in the list, by title in any case, by the end of an id. Pure.

    Args:
        rows: of whoever asks, in the order of the list.
        wanted: as it was typed.
    """
    wanted = wanted.strip()
    by_id = [each for each in rows if each.id == wanted]
    if by_id:
        return by_id
    if wanted.isascii() and wanted.isdigit() and len(wanted) <= 4 and 1 <= int(wanted) <= len(rows):
        return [rows[int(wanted) - 1]]
    by_title = [each for each in rows if each.title is not None and each.title.casefold() == wanted.casefold()]
    if by_title or len(wanted) < LEAST_OF_AN_ID:
        return by_title
    return [each for each in rows if each.id.endswith(wanted)]


async def _branch(asked: Asked, services: Services) -> Result:
    done = await services.conversations.branch(asked.row, asked.key, texts.title_of(asked.arguments))
    services.turns.forget(asked.key)
    return Reply(texts.branched(done))


async def _sethome(asked: Asked, services: Services) -> Result:
    await services.gateway.set_home(asked.row)
    return Reply("What nobody asked for at a place of its own is sent here from now on.")


async def _platforms(asked: Asked, services: Services) -> Result:
    backlogs = await services.gateway.backlogs() if asked.admin else {}
    return Reply(texts.accounts_text(services.gateway.accounts(), backlogs, details=asked.admin))


async def _platform(asked: Asked, services: Services) -> Result:
    words = asked.arguments.split()
    if words in ([], ["list"]):
        return await _platforms(asked, services)
    if len(words) != 2 or words[0] not in ("retry", "--retry"):
        return Reply(f"{commands.usage('platform')} connects it again now.")
    known = [each.account for each in services.gateway.accounts()]
    if words[1] not in known:
        return Reply(f"There is no such account. There are: {', '.join(map(texts.code, known)) or 'none'}.")
    tried = services.gateway.retry_account(words[1])
    return Reply(
        "Trying it now; /platforms says what came of it."
        if tried
        else "There is nothing to try: it is as it should be."
    )


async def _restart(_asked: Asked, _services: Services) -> Result:
    return Restart("Restarting: what runs is finished first.")


_RUN: Final[Mapping[str, Callable[[Asked, Services], Awaitable[Result]]]] = MappingProxyType(
    {
        "start": _start,
        "help": _help,
        "commands": _commands,
        "new": _new,
        "stop": _stop,
        "status": _status,
        "whoami": _whoami,
        "queue": _say,
        "steer": _say,
        "retry": _retry,
        "undo": _undo,
        "title": _title,
        "sessions": _sessions,
        "resume": _resume,
        "branch": _branch,
        "sethome": _sethome,
        "platforms": _platforms,
        "platform": _platform,
        "restart": _restart,
    }
)

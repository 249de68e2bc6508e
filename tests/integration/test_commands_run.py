"""Commands over a real store and real sessions: what each does, once, in its order, and for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from hermes.access import AccessPolicy, CommandPolicy
from hermes.accounts import AccountRecord, AccountStatus
from hermes.commanding import BACK, Commanding, GatewayView, open_commanding
from hermes.commands import as_typed
from hermes.events import Address, Button, InboundEvent, Person, StoredContent, decode_content
from hermes.ids import new_id
from hermes.platform_config import AccountConfig
from hermes.replies import Buttons
from hermes.store import open_store
from hermes.store.reception import Place
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.spine import Spine, config_for, intake, open_spine
from platforms.irc.config import MAX_TEXT as IRC_TEXT
from platforms.slack import platform as slack
from platforms.telegram import platform as telegram

ANNA, BEN, OWNER = Person("7", "Anna"), Person("8", "Ben"), Person("1", "Owner")
POLICY = AccessPolicy(allowed_users=frozenset({"7", "8"}), admins=frozenset({"1"}), admin_tools=True)
SHARED = AccessPolicy(
    allowed_users=frozenset({"7", "8"}), admins=frozenset({"1"}), admin_tools=True, group_sessions_per_user=False
)
ROOM: dict[str, Any] = {"chat": "-5", "chat_kind": "group"}


class Written:
    """`Replies` that keep text as it is and say when something was committed."""

    def __init__(self) -> None:
        self.woken = trio.Event()

    def parts(self, _address: Address, markdown: str, buttons: Buttons = ()) -> Sequence[StoredContent]:
        return (StoredContent(text=markdown, buttons=buttons),)

    def typed(self, _address: Address, text: str) -> str:
        return text

    def wake(self, _address: Address) -> None:
        self.woken.set()
        self.woken = trio.Event()

    def showing(self, _claim: object) -> AbstractAsyncContextManager[None]:
        return nullcontext()


@dataclass(slots=True, kw_only=True)
class World:
    spine: Spine
    written: Written
    policy: AccessPolicy
    accounts: tuple[AccountStatus, ...]
    commanding: Commanding | None = None
    restarts: int = 0
    brief: bool = False
    retried: list[str] = field(default_factory=list)
    seen: int = 0
    events: int = 0

    async def bring(self, text: str, who: Person = ANNA, *, hint: bool = True, **more: Any) -> None:
        """Have the service bring one message; `hint` = somebody is woken for it."""
        self.events += 1
        chat, thread = more.pop("chat", who.id), more.pop("thread", None)
        event = InboundEvent(
            id=f"{self.spine.store.boot_id}.{self.events}", address=Address("tg", chat, thread),
            chat_kind=more.pop("chat_kind", "dm"), sender=who, text=text, to_us=True, **more,
        )  # fmt: skip
        place = Place(account="tg", platform="fake", access=self.policy, busy="queue", pairing_text=str)
        done = await self.spine.store.inbox.deliver(place, [event], {})
        if hint:
            self.spine.sessions.delivered(done.rows)
            if done.commands and self.commanding is not None:
                self.commanding.wake()

    async def next(self) -> str:
        """The next text that is to be sent."""
        while True:
            woken = self.written.woken
            rows = await self.spine.rows("SELECT id, content FROM outbox WHERE id > ? ORDER BY id LIMIT 1", self.seen)
            if rows:
                self.seen = rows[0][0]
                return decode_content(rows[0][1]).text
            await woken.wait()

    async def say(self, text: str, who: Person = ANNA, **more: Any) -> str:
        """Bring a message and wait for what is said to it."""
        await self.bring(text, who, **more)
        return await self.next()

    async def conversation(self, key: str = "tg:dm:7") -> list[str]:
        """What the open conversation of a key holds."""
        session, _ = await self.spine.store.sessions.opened(key)
        assert session is not None
        return [message.text for message in await self.spine.store.sessions.history(session.id)]

    async def states(self) -> list[tuple[str, str]]:
        return [(kind, state) for kind, state in await self.spine.rows("SELECT kind, state FROM inbox ORDER BY id")]


@asynccontextmanager
async def opened(
    home: Path, door: ScriptedDoor | None = None, *, policy: AccessPolicy = POLICY, commands: bool = True
) -> AsyncIterator[World]:
    account = AccountConfig(account="tg", spec=telegram, config=None, access=policy)
    record = AccountRecord("tg", "fake", required=True, now=0.0)
    written = Written()
    async with open_spine(home, door, replies=written, platforms={"tg": account}) as spine:
        world = World(spine=spine, written=written, policy=policy, accounts=(record.status(5.0),))
        world.seen = (await spine.rows("SELECT coalesce(max(id), 0) FROM outbox"))[0][0]

        async def sessions() -> Any:
            return spine.sessions

        def restart() -> None:
            world.restarts += 1

        def retry(name: str) -> bool:
            world.retried.append(name)
            return True

        view = GatewayView(
            store=spine.store, model=lambda: "small", accounts=lambda: world.accounts, retry_account=retry,
            policy=lambda name: policy if name == "tg" else None, restart=restart, is_brief=lambda _name: world.brief,
        )  # fmt: skip
        if not commands:
            yield world
            return
        async with open_commanding(spine.store, sessions, written, view) as world.commanding:
            yield world


async def test_words_are_answered_and_commands_are_no_words(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with opened(tmp_path, door) as world:
        assert await world.say("hello") == "echo: hello"
        assert "/help" in await world.say("/start payload")
        shown = await world.say("/help")
        assert "`/new [title]`" in shown
        assert "/restart" not in shown
        assert "/restart" in await world.say("/commands", OWNER)
        assert await world.say("/dance") == "There is no command `/dance`. /help lists them. (It was not passed on.)"
        assert len(door.requests) == 1
        assert await world.states() == [("message", "answered"), *[("command", "command")] * 4]


async def test_help_is_one_line_where_a_list_takes_long_and_tells_of_one_command(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        assert (
            await world.say("/help new")
            == "`/new [title]` Begin a new conversation; the old one is kept. Also: `/reset`."
        )
        assert (await world.say("/help !FORK x")).startswith("`/branch [title]` Go on in a copy")
        assert "for admins" in await world.say("/help restart")
        assert (await world.say("/help restart", OWNER)).startswith("`/restart` Finish")
        assert await world.say("/help dance") == "There is no command `/dance`. /help lists them."
        assert await world.say("/help ???") == "`/help [command]`"
        assert "`/restart`" not in await world.say("/commands")
        assert "`/restart`" in await world.say("/commands", OWNER)
        world.brief = True
        for command in ("/help", "/commands"):
            said = await world.say(command)
            assert said.startswith("Write to me in plain words, or: /start /help ")
            assert "\n" not in said
            assert "/restart" not in said
            assert len(as_typed(said, "!").encode()) <= IRC_TEXT
            assert "/restart" in await world.say(command, OWNER)


async def test_a_new_conversation_forgets_and_the_old_one_is_gone_on_with(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with opened(tmp_path, door) as world:
        await world.say("one")
        assert await world.say("/title  Trip *to* Rome ") == r"It is called Trip \*to\* Rome now."
        assert await world.say("/title") == r"This conversation is called Trip \*to\* Rome."
        assert (await world.say("/new Work")).startswith("A new conversation. It is called Work.")
        await world.say("two")
        assert [message.text for message in door.histories[-1]] == ["two"]
        assert await world.conversation() == ["two", "echo: two"]
        listed = await world.say("/sessions")
        assert listed.startswith("1. Work *(this one)*")
        assert "2. Trip" in listed
        assert (await world.say("/resume trip *TO* rome")).startswith("Going on with Trip")
        assert await world.say("three") == "echo: three"
        assert [message.text for message in door.histories[-1]] == ["one", "echo: one", "three"]
        assert await world.conversation() == ["one", "echo: one", "three", "echo: three"]
        assert await world.say("/resume 1") == "That is the conversation we are in."
        assert (await world.say("/resume 2")).startswith("Going on with Work")
        assert await world.conversation() == ["two", "echo: two"]
        assert await world.say("/resume nonsense") == "You have no conversation like that. /sessions lists them."
        places = [seq for (seq,) in await world.spine.rows("SELECT seq FROM inbox WHERE kind = 'message' ORDER BY id")]
        assert places == sorted(set(places))


@pytest.mark.parametrize(
    ("command", "says", "left"),
    [
        ("/reset", "A new conversation.", ["after", "echo: after"]),
        ("/stop", "Stopped.", None),
    ],
)
async def test_what_runs_and_waits_ends_and_nothing_that_came_after(
    tmp_path: Path, command: str, says: str, left: list[str] | None
) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="old", hold=hold)])
    async with opened(tmp_path, door) as world:
        await world.bring("one")
        await door.asking.wait()
        await world.bring("waits")
        await world.bring(command, hint=False)
        await world.bring("after")
        assert world.commanding is not None
        world.commanding.wake()
        assert (await world.next()).startswith(says)
        assert await world.next() == "echo: after"
        found = await world.spine.rows("SELECT state FROM inbox WHERE kind = 'message' ORDER BY id")
        assert [state for (state,) in found] == ["stopped", "stopped", "answered"]
        assert left is None or await world.conversation() == left


async def test_what_goes_on_at_another_place_is_not_taken_from_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.say("one")
        await world.say("/title Rome")
        assert "goes on at another place" in await world.say("/resume Rome", **ROOM)
        assert await world.conversation() == ["one", "echo: one"]


async def test_rows_of_a_mailbox_wait_for_its_command_and_others_do_not(tmp_path: Path) -> None:
    async with opened(tmp_path, commands=False) as world:
        await world.say("one")
        await world.bring("/new")
        await world.bring("two")
        assert await world.say("mine", BEN) == "echo: mine"
        found = await world.spine.store.turns.take_up("tg:dm:7", "turn_x", frozenset(), remembers=False)
        assert found.claim is None
    async with opened(tmp_path) as world:
        assert (await world.next()).startswith("A new conversation.")
        assert await world.next() == "echo: two"
        assert await world.conversation() == ["two", "echo: two"]


async def test_undo_takes_whole_exchanges_out_of_the_history(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with opened(tmp_path, door) as world:
        assert await world.say("/undo") == "Nothing was said here yet."
        for text in ("one", "two", "three"):
            await world.say(text)
        assert "back to: three" in await world.say("/undo")
        assert await world.conversation() == ["one", "echo: one", "two", "echo: two"]
        assert await world.say("four") == "echo: four"
        assert [message.text for message in door.histories[-1]][-3:] == ["two", "echo: two", "four"]
        assert "The last 3 exchanges are forgotten, back to: one" in await world.say("/undo 9")
        assert await world.conversation() == []
        for wrong in ("/undo 0", "/undo -1", "/undo 21", "/undo \u0661", "/undo all"):
            assert (await world.say(wrong)).startswith("How many?")


async def test_retry_asks_again_what_was_asked_last(tmp_path: Path) -> None:
    door = ScriptedDoor([Say(text="bad"), Say(text="good")])
    async with opened(tmp_path, door) as world:
        assert await world.say("/retry") == "Nothing was said here yet."
        assert await world.say("one") == "bad"
        assert await world.say("/retry") == "Again: one"
        assert await world.next() == "good"
        assert await world.conversation() == ["one", "good"]
        assert [message.text for message in door.histories[-1]] == ["one"]


async def test_what_is_done_to_the_last_exchange_waits_for_its_end(tmp_path: Path) -> None:
    hold = trio.Event()
    door = ScriptedDoor([Say(text="slow", hold=hold)])
    async with opened(tmp_path, door) as world:
        await world.bring("one")
        await door.asking.wait()
        for command in ("/undo", "/retry", "/branch"):
            assert "still answering" in await world.say(command)
        assert (await world.say("/status")).startswith("I am answering.")
        assert await world.say("/stop") == "Stopped."
        assert await world.say("/stop") == "Nothing was going on."
        while (await world.conversation())[-1:] == ["one"]:
            await trio.lowlevel.checkpoint()
        assert await world.say("/retry") == "Again: one"
        assert await world.next() == "echo: one"


async def test_a_branch_is_a_copy_and_what_it_was_made_of_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        assert await world.say("/branch") == "Nothing was said here yet."
        await world.say("one")
        assert (await world.say("/fork Other way")).startswith("Going on in a copy, called Other way.")
        await world.say("two")
        assert await world.conversation() == ["one", "echo: one", "two", "echo: two"]
        places = [seq for (seq,) in await world.spine.rows("SELECT seq FROM inbox WHERE kind = 'message' ORDER BY id")]
        assert places == [1, 2]
        await world.say("/resume 2")
        assert await world.conversation() == ["one", "echo: one"]


async def test_copies_have_names_of_their_own(tmp_path: Path) -> None:
    """Two of one name could not be gone on with by it."""
    async with opened(tmp_path) as world:
        await world.say("one")
        assert "called" not in await world.say("/branch")  # what has no name gets none
        await world.say("/title Rome")
        assert r"called Rome \(2\)." in await world.say("/branch")
        assert r"called Rome \(3\)." in await world.say("/branch")
        assert "Going on with Rome" in await world.say("/resume rome")
        assert r"called Rome \(4\)." in await world.say("/branch")
        assert r"Going on with Rome \(3\)" in await world.say("/resume Rome (3)")
        await world.say("/title Games (2024)")
        assert r"called Games \(2024\) \(2\)." in await world.say("/branch")  # a year is no number of a copy


async def test_notices_name_commands_as_people_type_them(tmp_path: Path) -> None:
    """What is said of a row that is set aside is written by the store itself."""
    account = AccountConfig(account="sl", spec=slack, config=None, access=POLICY)
    config = config_for(tmp_path, platforms={"sl": account})
    deadly = intake("hi", "sl:dm:7", mode="detached", principal="sl:7", account="sl", chat="7")
    for _ in range(2):  # each process dies with its turn
        async with open_store(tmp_path / "hermes.db", config, new_id("boot")) as store:
            await store.inbox.accept(deadly)
            assert (await store.turns.take_up("sl:dm:7", new_id("turn"), frozenset(), remembers=False)).claim
    async with open_store(tmp_path / "hermes.db", config, new_id("boot")) as store:
        await store.inbox.accept(intake("x", "sl:dm:7", mode="detached", principal="sl:7", account="sl", chat="7"))
        spoil = "UPDATE inbox SET payload = x'00' WHERE state = 'pending' AND attempts = 0"
        assert await store.database.write(lambda con: con.execute(spoil).rowcount) == 1
        assert not (await store.turns.take_up("sl:dm:7", new_id("turn"), frozenset(), remembers=False)).claim
        rows = await store.database.read(lambda con: con.execute("SELECT content FROM outbox ORDER BY id").fetchall())
    assert [decode_content(content).text for (content,) in rows] == [
        "Your message was interrupted three times, set aside. !retry tries once more.",
        "A message of yours could not be read back, and was set aside. Send it again.",
    ]


async def test_nobody_sees_or_takes_the_conversations_of_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.say("secret")
        await world.say("/title Mine")
        await world.say("/new")
        (ended,) = await world.spine.rows("SELECT id FROM sessions WHERE ended_at IS NOT NULL")
        assert await world.say("/sessions", BEN) == "There are no conversations of yours yet."
        for wanted in ("Mine", ended[0], ended[0][-8:], "1"):
            assert "no conversation like that" in await world.say(f"/resume {wanted}", BEN)
            assert "no conversation like that" in await world.say(f"/resume {wanted}", OWNER)
        # In a group each person is alone with us, too, and goes on there with what is theirs.
        assert "Mine" in await world.say("/sessions", **ROOM)
        assert await world.say("/sessions", BEN, **ROOM) == "There are no conversations of yours yet."


async def pressing(world: World) -> list[Button]:
    """The buttons of what was sent last."""
    ((content,),) = await world.spine.rows("SELECT content FROM outbox ORDER BY id DESC LIMIT 1")
    return [each for row in decode_content(content).buttons for each in row]


async def test_a_press_goes_on_with_the_conversation_that_its_button_names(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.say("one")
        await world.say("/title Trip *to* Rome")
        await world.say("/new")
        assert not await pressing(world)
        await world.say("two")
        for command in ("/sessions", "/resume"):
            await world.say(command)
            assert [each.text for each in await pressing(world)] == ["1. without a name", "2. Trip *to* Rome"]
        _, rome = await pressing(world)
        await world.say("/new another")  # the numbers are others now
        await world.say("three")
        assert (await world.say(rome.data, kind="button")).startswith("Going on with Trip")
        assert await world.say(rome.data, kind="button") == "That is the conversation we are in."
        assert await world.conversation() == ["one", "echo: one"]
        pressed = await world.spine.rows("SELECT count(*) FROM inbox WHERE kind = 'command' AND state = 'command'")
        assert pressed == [(7,)]


async def test_who_presses_the_button_of_somebody_else_presses_it_as_themselves(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.say("secret", **ROOM)
        await world.say("/title Mine", **ROOM)
        await world.say("/new", **ROOM)
        await world.say("/sessions", **ROOM)
        (mine,) = [each for each in await pressing(world) if "Mine" in each.text]
        for other in (BEN, OWNER):
            said = await world.say(mine.data, other, kind="button", **ROOM)
            assert said == "You have no conversation like that. /sessions lists them."
        before = await world.spine.rows("SELECT count(*) FROM inbox")
        await world.bring(mine.data, Person("9", "Mallory"), kind="button", **ROOM)  # may not speak
        await world.bring("approve:1", kind="button", **ROOM)  # what is no command has lapsed
        assert await world.spine.rows("SELECT count(*) FROM inbox") == before
        said = await world.say(mine.data, kind="button", **ROOM)
        assert said.startswith("Going on with Mine"), said


async def test_who_may_not_resume_is_shown_no_buttons_and_a_press_of_an_old_one_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.say("one")
        await world.say("/sessions")
        (one,) = await pressing(world)
    policy = replace(POLICY, commands=CommandPolicy(disabled=frozenset({"resume"})))
    async with opened(tmp_path, policy=policy) as world:
        assert "1. without a name" in await world.say("/sessions")
        assert not await pressing(world)
        assert "switched off" in await world.say(one.data, kind="button")


async def test_a_shared_conversation_belongs_to_its_place(tmp_path: Path) -> None:
    async with opened(tmp_path, policy=SHARED) as world:
        await world.say("ours", **ROOM)
        await world.say("/title Ours", BEN, **ROOM)
        await world.say("/new", BEN, **ROOM)
        assert "Ours" in await world.say("/sessions", BEN, **ROOM)
        assert await world.say("/sessions") == "There are no conversations of yours yet."
        await world.say("mine alone")
        assert "mine alone" not in await world.say("/sessions", **ROOM)
        assert (await world.say("/resume Ours", BEN, **ROOM)).startswith("Going on with Ours")


async def test_nobody_lends_rights_to_the_words_of_somebody_else(tmp_path: Path) -> None:
    async with opened(tmp_path, policy=SHARED) as world:
        query = "SELECT may_change FROM inbox WHERE kind = 'message' ORDER BY id DESC LIMIT 1"
        await world.say("delete everything", **ROOM)
        await world.say("/retry", OWNER, **ROOM)
        await world.next()
        assert await world.spine.rows(query) == [(0,)]
        await world.say("mine", OWNER)
        assert await world.spine.rows(query) == [(1,)]
        await world.say("/retry", OWNER)
        await world.next()
        assert await world.spine.rows(query) == [(1,)]


async def test_commands_for_admins_are_refused_to_others_and_say_so(tmp_path: Path) -> None:
    policy = AccessPolicy(
        allowed_users=frozenset({"7"}), admins=frozenset({"1"}),
        commands=CommandPolicy(admin_only=frozenset({"undo"}), disabled=frozenset({"branch"})),
    )  # fmt: skip
    async with opened(tmp_path, policy=policy) as world:
        for command in ("/restart", "/platform retry tg", "/sethome", "/undo"):
            assert "for admins" in await world.say(command)
        assert "switched off" in await world.say("/branch", OWNER)
        assert (world.restarts, world.retried) == (0, [])
        said = await world.say("/whoami")
        assert "You are `7` at `tg`." in said
        assert "its conversation `tg:dm:7`" in said
        assert "`/restart`" in said
        assert "an admin" in await world.say("/whoami", OWNER)


async def test_accounts_are_shown_and_tried_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        assert await world.say("/platforms") == "- `tg`: connecting"
        told = await world.say("/platforms", OWNER)
        assert told.startswith("- `tg`: connecting, for 5 s\n  - 1 part is to be sent, the oldest for ")
        for command in ("/platform", "/platform list"):
            assert (await world.say(command, OWNER)).startswith("- `tg`: connecting, for 5 s")
        assert "no such account" in await world.say("/platform retry other", OWNER)
        assert "says what came of it" in await world.say("/platform \u2014retry tg", OWNER)
        assert world.retried == ["tg"]
        assert "retry account" in await world.say("/platform dance", OWNER)


async def test_home_is_remembered(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        assert "from now on" in await world.say("/sethome", OWNER, thread="3")
        assert await world.spine.store.conversations.home("tg") == Address("tg", "1", "3")
        assert await world.spine.store.conversations.home("other") is None


async def test_a_restart_happens_once_and_says_when_it_is_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        assert (await world.say("/restart", OWNER)).startswith("Restarting")
        assert world.restarts == 1
    async with opened(tmp_path) as world:
        assert await world.next() == BACK
        assert world.restarts == 0
    async with opened(tmp_path) as world:
        assert await world.say("one") == "echo: one"


async def test_what_a_command_did_is_not_done_again_after_a_death(tmp_path: Path) -> None:
    async with opened(tmp_path, commands=False) as world:
        for text in ("one", "two", "three"):
            await world.say(text)
        await world.bring("/undo")
        (row,) = await world.spine.store.inbox.next_commands(5)
        conversations = world.spine.store.conversations
        first = await conversations.undo(row, "tg:dm:7", 1)  # and then the process dies
        assert await conversations.undo(row, "tg:dm:7", 1) == first
    async with opened(tmp_path) as world:
        assert "back to: three" in await world.next()
        assert await world.conversation() == ["one", "echo: one", "two", "echo: two"]
        assert (await world.states())[-1] == ("command", "command")


async def test_who_was_let_in_no_more_is_not_answered_though_it_wrote_before(tmp_path: Path) -> None:
    async with opened(tmp_path, policy=AccessPolicy(), commands=False) as world:
        store = world.spine.store
        await store.database.write(
            lambda con: con.execute("INSERT INTO allowed (account, person, since) VALUES ('tg', '7', 0)").rowcount
        )
        assert await world.say("one") == "echo: one"
        await world.bring("two", hint=False)
        assert await store.accounts.revoke("tg", "7")
        world.spine.sessions.wake("tg:dm:7")
        assert await world.next() == "You may not talk to me any more."
        assert (await world.states())[-1] == ("message", "refused")


async def test_a_command_of_who_was_shut_out_meanwhile_is_not_run(tmp_path: Path) -> None:
    async with opened(tmp_path, policy=AccessPolicy(allowed_users=frozenset({"8"}))) as world:
        world.policy = POLICY  # what held when they came
        assert await world.say("/title Mine") == "You may not talk to me any more."
        assert await world.spine.rows("SELECT count(*) FROM sessions") == [(0,)]
        assert await world.say("/title Mine", BEN) == "It is called Mine now."


async def test_whose_a_conversation_is_is_asked_where_it_is_taken(tmp_path: Path) -> None:
    async with opened(tmp_path, commands=False) as world:
        await world.say("secret")
        store = world.spine.store
        (mine,) = await store.conversations.own("tg:dm:7", "tg:7", 5)
        await store.sessions.update(mine.id, ended_at=1.0, end_reason="new")
        await world.bring("/resume", BEN)
        (row,) = await store.inbox.next_commands(5)
        assert (await store.conversations.resume(row, "tg:dm:8", mine.id)).what == "unknown"
        assert await store.sessions.opened("tg:dm:8") == (None, frozenset())


async def test_rights_that_were_taken_back_hold_for_what_waits(tmp_path: Path) -> None:
    now = AccessPolicy(admins=frozenset({"1"}))
    account = AccountConfig(account="tg", spec=telegram, config=None, access=now)
    place = Place(
        account="tg", platform="fake", access=POLICY, busy="queue", pairing_text=str
    )  # what held when it came
    event = InboundEvent(
        id="1", address=Address("tg", "1"), chat_kind="dm", sender=OWNER, text="delete everything", to_us=True
    )
    async with open_store(tmp_path / "hermes.db", config_for(tmp_path, platforms={"tg": account}), "boot") as store:
        await store.inbox.deliver(place, [event], {})
        asked = store.database.read(lambda con: con.execute("SELECT may_change FROM inbox").fetchall())
        assert await asked == [(1,)]
        found = await store.turns.take_up("tg:dm:1", "turn_x", frozenset(), remembers=False)
        assert found.claim is not None
        assert found.claim.rows[0].may_change is False

"""The parts of IRC that are pure: lines, words, names, formatting, the pace, and what is an event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import AddressGone, PlatformRefused, PlatformUnavailable, RateLimited, SendRejected
from hermes.events import InboundEvent
from hermes.platform import Capabilities
from hermes.rendering import plain_text, render
from platforms.irc.faults import meaning, of_closing
from platforms.irc.flood import Bucket
from platforms.irc.lines import MAX_LINE, BadLine, Line, build, parse
from platforms.irc.names import Server, who
from platforms.irc.rooms import Rooms
from platforms.irc.translate import Facts, event_of, moment, stamp
from platforms.irc.wording import TOGGLES, bare, wire_lines

WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=300)
CODED = st.text(
    st.one_of(st.characters(blacklist_categories=("Cs", "Cc")), st.sampled_from(TOGGLES + " \n")), max_size=900
)
MIDDLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).filter(
    lambda text: not text.startswith(":")
)


def facts(**more: object) -> Facts:
    return Facts(**{"account": "irc", "nick": "Hermes", "server": Server(), "nonce": "n", "tagged": True, **more})  # type: ignore[arg-type]


def event(raw: str, **more: object) -> InboundEvent | None:
    return event_of(parse(raw.encode()), facts(commands=("new", "stop"), **more), 7)


@given(
    st.lists(MIDDLE, max_size=5),
    WORDS,
    st.dictionaries(MIDDLE.map(lambda t: "t" + "".join(filter(str.isalnum, t))), WORDS),
)
def test_what_is_built_is_read_again(middle: list[str], last: str, tags: dict[str, str]) -> None:
    try:
        raw = build("PRIVMSG", *middle, last, tags=tags)
    except BadLine:
        assert len(f"PRIVMSG {' '.join(middle)} :{last}".encode()) + 2 > MAX_LINE - 2
        return
    line = parse(raw.removesuffix(b"\r\n"))
    assert (line.command, line.params) == ("PRIVMSG", (*middle, last))
    assert dict(line.tags) == tags


@given(st.binary(max_size=600))
def test_bytes_are_a_line_or_none(raw: bytes) -> None:
    try:
        line = parse(raw.replace(b"\n", b""))
    except BadLine:
        return
    assert line.command == line.command.upper()
    event_of(line, facts(), 1)
    meaning(line, "x")


@pytest.mark.parametrize("bad", ["two\r\nlines", "with blank", "", ":colon", "nul\0"])
def test_a_name_cannot_begin_another_command(bad: str) -> None:
    with pytest.raises(BadLine):
        build("PRIVMSG", bad, "text")


def test_words_in_another_encoding_are_read() -> None:
    assert parse(b":a!b@c PRIVMSG #x :caf\xe9").words == "café"


@given(CODED, st.integers(40, 480))
def test_lines_fit_and_lose_no_word(text: str, room: int) -> None:
    lines = wire_lines(text, room)
    assert all(len(line.encode()) <= room for line in lines)
    assert all("\n" not in line and bare(line).strip() for line in lines)
    shown = "".join("".join(bare(line).split()) for line in lines)
    assert shown == "".join(bare(text.replace("\n", " ")).split())


@given(CODED, st.integers(40, 100))
def test_each_line_is_marked_as_the_text_was(text: str, room: int) -> None:
    def styles(lines: list[str], carried: bool) -> list[tuple[str, frozenset[str]]]:
        found, on = list[tuple[str, frozenset[str]]](), set[str]()
        for line in lines:
            if not carried:
                on.clear()
            for letter in line:
                if letter in TOGGLES:
                    on ^= {letter}
                elif not letter.isspace():
                    found.append((letter, frozenset(on)))
        return found

    whole = styles(text.split("\n"), carried=True)
    assert styles(list(wire_lines(text, room)), carried=False) == whole


def test_lines_are_cut_between_words_and_not_inside_a_character() -> None:
    assert wire_lines("one two three " * 4, 44) == ("one two three one two three one two three", "one two three ")
    family = "👩‍👩‍👧" * 10
    assert all(not line.startswith("\u200d") and not line.endswith("\u200d") for line in wire_lines(family, 48))


@given(st.text(st.sampled_from("ab *_`\n#>-~1."), max_size=400))
def test_the_dialect_says_the_same_words(text: str) -> None:
    parts = render(text, Capabilities(dialect="irc", max_text=350, unit="byte"), suffix_room=32)
    assert all(len(part.encode()) <= 318 for part in parts)
    assert "".join(bare("".join(parts)).split()) == "".join(plain_text(text).split())


def test_the_dialect_marks_with_codes() -> None:
    (part,) = render("# T\n**b** *i* `c` ~~s~~\n```\nx\ny\n```", Capabilities(dialect="irc", max_text=350, unit="byte"))
    assert part == "\x02T\x02\n\x02b\x02 \x1di\x1d \x11c\x11 \x1es\x1e\n\x11x\ny\x11"
    (bare_part,) = render("evil \x03,04 code *x*", Capabilities(dialect="irc", max_text=350, unit="byte"))
    assert bare_part == "evil ,04 code \x1dx\x1d"


def test_a_burst_then_one_line_each_interval() -> None:
    bucket = Bucket(3, 2.0, now=0.0)
    for _ in range(3):
        assert bucket.wait_s(1, 0.0) == 0.0
        bucket.take(0.0)
    assert bucket.wait_s(1, 0.0) == 2.0
    assert bucket.wait_s(2, 1.0) == 3.0
    assert bucket.wait_s(50, 1.0) == 5.0  # no more than a burst is ever asked for
    assert bucket.wait_s(1, 2.0) == 0.0


@given(st.lists(st.floats(0.0, 5.0), max_size=60), st.integers(2, 10))
def test_no_window_holds_more_than_the_pace(pauses: list[float], burst: int) -> None:
    bucket, now, taken = Bucket(burst, 1.0, 0.0), 0.0, list[float]()
    for pause in pauses:
        now += pause
        while not bucket.wait_s(1, now):
            bucket.take(now)
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - start) + 0.01


def test_people_are_known_by_what_is_proven() -> None:
    line = parse(b"@account=Alice :al!~u@Host.example PRIVMSG hermes :hi")
    server = Server()
    assert who(line, "account", "n1", server, tagged=True).id == "Alice"
    untagged = who(line, "account", "n1", server, tagged=False)
    assert not untagged.verified
    assert untagged.id != who(line, "account", "n2", server, tagged=False).id  # nothing is granted beyond a connection
    assert who(line, "hostmask", "n1", server, tagged=True).id == "*!~u@host.example"
    for odd in ("*", "0", "", "a!b@c", "x*"):
        forged = parse(f"@account={odd} :al!~u@h PRIVMSG hermes :hi".encode())
        assert not who(forged, "account", "n1", server, tagged=True).verified


def test_what_is_an_event() -> None:
    head = "@msgid=i;account=alice;time=2026-11-21T08:00:00.250Z :Al!u@h PRIVMSG"
    told = event(f"{head} hermes :!new now")
    assert told is not None
    assert (told.id, told.chat_kind, told.address.chat, told.sender.id, told.text, told.to_us) == (
        "i", "dm", "al!alice", "alice", "/new now", True,
    )  # fmt: skip
    assert told.at == moment("2026-11-21T08:00:00.250Z")
    assert stamp(told.at or 0) == "2026-11-21T08:00:00.250Z"
    named = event(f"{head} #Den :hermes, !stop")
    assert named is not None
    assert (named.address.chat, named.text, named.to_us, named.chat_kind) == ("#den", "/stop", True, "group")
    assert [found.to_us for found in map(event, (f"{head} #d :{text}" for text in ("!stop", "hermesx: a", "a hermes b"))) if found] == [
        False, False, True,
    ]  # fmt: skip
    keyword = event(f"{head} #d :bot: help", mentions=("bot",))
    assert keyword is not None
    assert (keyword.text, keyword.to_us) == ("help", True)
    answer = event("@+draft/reply=mine " + ":Al!u@h PRIVMSG #d :yes", ours={"mine": None})
    assert answer is not None
    assert answer.to_us
    action = event(f"{head} hermes :\x01ACTION waves \x02high\x02\x01")
    assert action is not None
    assert action.text == "* Al waves high"
    robot = event("@bot :Al!u@h PRIVMSG #d :beep")
    assert robot is not None
    assert robot.sender.bot


@pytest.mark.parametrize(
    "raw",
    [
        ":al!u@h NOTICE hermes :hi",
        ":al!u@h PRIVMSG hermes :\x01VERSION\x01",
        ":al!u@h PRIVMSG hermes :\x02\x02",
        ":al!u@h PRIVMSG somebody :hi",
        ":Hermes!u@h PRIVMSG #d :our own",
        ":irc.example PRIVMSG $* :to everybody",
        "PRIVMSG #d :from nobody",
    ],
)
def test_what_is_none(raw: str) -> None:
    assert event(raw) is None


def test_our_own_words_of_before_are_none_whatever_we_were_called() -> None:
    line = parse(b"@account=bot :hermes_!u@h PRIVMSG #d :said under another nick")
    assert event_of(line, facts(login="bot"), 1) is None
    old = parse(b":al!u@h PRIVMSG Hermes :to the nick that we are to have")
    assert event_of(old, facts(nick="hermes_", wanted="hermes"), 1) is None
    assert event_of(old, facts(nick="hermes_", wanted="hermes"), 1, past=True) is not None


@pytest.mark.parametrize(
    ("raw", "raises"),
    [
        (":s 401 me x :No such nick", AddressGone),
        (":s 404 me #x :Cannot send to channel", SendRejected),
        (":s 263 me PRIVMSG :Please wait 9 seconds", RateLimited),
        (":s 439 me x :Target change too fast", RateLimited),
        (":s 437 me #x :unavailable", PlatformUnavailable),
        (":s 465 me :banned", PlatformRefused),
        (":s 301 me x :away", type(None)),
        ("FAIL PRIVMSG TOO_MUCH x :no", SendRejected),
    ],
)
def test_what_answers_mean(raw: str, raises: type) -> None:
    assert type(meaning(parse(raw.encode()), "x")) is raises


@pytest.mark.parametrize(
    ("words", "raises", "wait_s"),
    [
        ("Closing Link: (K-Lined)", PlatformRefused, None),
        ("Closing Link: (Z-lined: spam)", PlatformRefused, None),
        ("Trying to reconnect too fast, wait 60 seconds", PlatformUnavailable, 60.0),
        ("Closing Link: (Excess Flood)", PlatformUnavailable, 30.0),
        ("Closing Link: (Ping timeout)", PlatformUnavailable, None),
    ],
)
def test_why_a_link_is_closed(words: str, raises: type, wait_s: float | None) -> None:
    found = of_closing(words, "s")
    assert type(found) is raises
    assert getattr(found, "retry_after_s", None) == wait_s


def test_channels_are_come_back_to() -> None:
    rooms = Rooms(("#a", "#b key"), Server(), 30.0, open_door=False)
    assert rooms.due(0.0) == [b"JOIN #b,#a key\r\n"]
    assert rooms.due(1.0) == []
    for name in ("#A", "#b"):
        rooms.take(Line("JOIN", (name,), "me!u@h"), 1.0, "me")
    assert rooms.outside() == []
    rooms.take(Line("KICK", ("#a", "me", "out"), "op!u@h"), 10.0, "me")
    assert rooms.due(39.0) == []
    assert rooms.due(40.0) == [b"JOIN #a\r\n"]
    rooms.take(Line("474", ("me", "#a", "Cannot join (+b)")), 40.0, "me")
    assert rooms.due(69.0) == []
    assert rooms.due(70.0) == [b"JOIN #a\r\n"]
    assert rooms.due(129.0) == []  # each try waits twice as long as the one before
    assert rooms.due(130.0) == [b"JOIN #a\r\n"]
    assert rooms.take(Line("INVITE", ("me", "#other"), "op!u@h"), 131.0, "me") == []
    assert rooms.take(Line("INVITE", ("me", "#a"), "op!u@h"), 131.0, "me") == [b"JOIN #a\r\n"]
    assert (room := rooms.get("#A")) is not None
    assert room.why == "Cannot join (+b)"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("привет, мир".encode()[:-1], "привет, ми"),  # the server cut it after so many bytes
        ("日本語".encode()[:-2], "日本"),
        ("a cup of café".encode("latin-1"), "a cup of café"),
        ("café, café".encode("latin-1"), "café, café"),
    ],
)
def test_a_line_that_was_cut_inside_a_character_keeps_the_others(raw: bytes, words: str) -> None:
    assert parse(b":a!b@c PRIVMSG #den :" + raw).words == words


@pytest.mark.parametrize(
    "wanted",
    [
        tuple(f"#天気の話をする場所-{number}" for number in range(30)),
        tuple(f"#c{number} k" for number in range(100)),
        tuple(f"#{number}" for number in range(100)),
    ],
)
def test_many_channels_are_asked_for_in_lines_that_can_be_written(wanted: tuple[str, ...]) -> None:
    lines = Rooms(wanted, Server(), 30.0, open_door=False).due(0.0)
    names = [name for raw in lines for name in parse(raw.removesuffix(b"\r\n")).param(0).split(",")]
    assert all(len(raw) <= MAX_LINE for raw in lines)
    assert sorted(names) == sorted(each.partition(" ")[0] for each in wanted)

"""The Slack platform against the fake one: signing in, showing, reading back, fetching, by the service's rules."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio

from hermes.errors import (
    AddressGone,
    HermesError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
)
from hermes.events import Activity, Address, AttachmentRef, Button, Content, OutboundFile, Receipt, ReplyRef
from hermes.platform import Platform, ReadsBack, Secret
from hermes.rendering import render
from hermes.testing import LeakCensus, no_leaks
from hermes.testing.census import settle
from hermes.testing.fake_http import Answered, answer_json
from hermes.testing.fake_slack import ALICE, CHANNEL, DM, OTHER_TEAM, FakeSlack, Fault, open_fake_slack, text_of
from hermes.testing.host import RecordingInbox, TestMemory, open_test_host
from platforms.slack import SlackConfig
from platforms.slack import platform as spec

TO = Address("slack", DM)
ELSEWHERE = answer_json({"ok": True, "upload_url": "https://e.example/", "file_id": "F1"})


def no(error: str, **more: Any) -> Answered:
    return answer_json({"ok": False, "error": error, **more})


@asynccontextmanager
async def opened(
    slack: FakeSlack,
    *,
    memory: TestMemory | None = None,
    bot: str | None = None,
    app: str | None = None,
    **settings: Any,
) -> AsyncIterator[Platform]:
    config = SlackConfig(
        bot_token=Secret(bot or slack.bot_token),
        app_token=Secret(app or slack.app_token),
        base_url=slack.base_url,
        **settings,
    )
    async with open_test_host("slack", memory=memory, clock=slack.clock) as host, spec.open(config, host) as platform:
        yield platform


@asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[tuple[FakeSlack, Platform]]:
    async with no_leaks(), open_fake_slack() as slack, opened(slack, **settings) as platform:
        yield slack, platform


def mrkdwn(text: str, **more: Any) -> Content:
    return Content(text=text, dialect="slack", **more)


# --- opening ---------------------------------------------------------------------------------------------------------


async def test_a_bad_token_is_refused_with_words_and_one_attempt() -> None:
    async with no_leaks(), open_fake_slack() as slack:
        with pytest.raises(PlatformRefused, match="`bot_token` is of no use"):
            async with opened(slack, bot="xoxb-wrong"):
                pass
        assert len(slack.requests) == 1
        with pytest.raises(PlatformRefused, match="`app_token` is of no use"):
            async with opened(slack, app="xapp-wrong"):
                pass
        assert len(slack.asked("apps.connections.open")) == 1
        with pytest.raises(PlatformRefused, match="mixed up"):
            async with opened(slack, bot=slack.app_token, app=slack.bot_token):
                pass
        assert len(slack.requests) == 3


DOOR: tuple[tuple[Fault, type[HermesError], str], ...] = (
    (Fault(path="auth.test", answer=no("account_inactive")), PlatformRefused, "removed"),
    (Fault(path="auth.test", answer=no("unknown_method")), PlatformRefused, "no Slack API"),
    (Fault(path="auth.test", answer=answer_json({"ok": True})), PlatformProtocolError, "who we are"),
    (Fault(path="auth.test", answer=answer_json({"ok": True, "team_id": "T1", "user_id": "U1"})), PlatformRefused, "person"),
    (Fault(path="connections", answer=no("missing_scope", needed="connections:write")), PlatformRefused, "connections:write"),
    (Fault(path="connections", answer=no("not_allowed_token_type")), PlatformRefused, "App-Level Token"),
    (Fault(path="connections", answer=answer_json({"ok": True, "url": "http://x"})), PlatformRefused, "not encrypted"),
    (Fault(answer=Answered(status=404, body=b"hi")), PlatformProtocolError, "base_url"),
    (Fault(answer=Answered(body=b"[]")), PlatformProtocolError, "base_url"),
    (Fault(answer=Answered(status=503)), PlatformUnavailable, "503"),
    (Fault(answer=no("service_unavailable")), PlatformUnavailable, "service_unavailable"),
    (Fault(answer=Answered(hang=True)), PlatformUnavailable, "."),
    (Fault(answer=Answered(cut=10)), PlatformUnavailable, "."),
    (Fault(answer=answer_json({"ok": False}, 429, {"retry-after": "30"})), PlatformUnavailable, "30"),
    (Fault(path="connections", answer=answer_json({"ok": False}, 429)), PlatformUnavailable, "wait"),
)  # fmt: skip


async def test_what_goes_wrong_at_the_door_has_its_name() -> None:
    async with open_fake_slack() as slack:
        for fault, error, words in DOOR:
            slack.fail(fault)
            async with no_leaks():
                with pytest.raises(error, match=words):
                    async with opened(slack, timeout_s=0.3):
                        pass
            assert not slack.faults, fault
        async with opened(slack):
            pass


async def test_check_says_who_we_are_and_what_is_missing_and_sends_nothing() -> None:
    async with no_leaks(), open_fake_slack(tokens={"xoxb-two": OTHER_TEAM}) as slack:
        config = SlackConfig(
            bot_token=Secret(f"{slack.bot_token},xoxb-two"), app_token=Secret(slack.app_token), base_url=slack.base_url
        )
        async with open_test_host("slack") as host:
            assert spec.check is not None
            report = await spec.check(config, host)
            assert report.identity == "U0HERMES in T0Hermes (T0HERMES)"
            assert report.missing == ()
            assert any(OTHER_TEAM in fact for fact in report.facts)
            slack.scopes = "chat:write"
            report = await spec.check(replace(config, bot_token=Secret(slack.bot_token)), host)
            assert "files:read" in report.missing[0]
            assert "chat:write" not in report.missing[0]
            with pytest.raises(PlatformRefused):
                await spec.check(replace(config, bot_token=Secret("xoxb-wrong")), host)
            slack.fail(Fault(answer=answer_json({"ok": False}, 429)))
            with pytest.raises(PlatformUnavailable):
                await spec.check(config, host)
        assert {each.path for each in slack.requests} == {"/api/auth.test", "/api/apps.connections.open"}


async def test_five_hundred_failed_attempts_leave_nothing() -> None:
    faults = (
        Fault(answer=Answered(status=503)), Fault(answer=Answered(cut=10)), Fault(answer=Answered(body=b"<")),
        Fault(path="connections", answer=no("internal_error")), Fault(answer=no("invalid_auth")),
        Fault(path="connections", answer=answer_json({"ok": False}, 429)),
    )  # fmt: skip
    rounds = 500
    async with open_fake_slack() as slack, open_test_host("slack", clock=slack.clock) as host:
        config = SlackConfig(
            bot_token=Secret("xoxb-fake-token"), app_token=Secret("xapp-fake-token"), base_url=slack.base_url
        )
        before: LeakCensus | None = None
        received = refused = 0
        for number, fault in zip(range(rounds), itertools.cycle((*faults, None, "socket")), strict=False):
            if number == 50:
                before = LeakCensus.take()
            slack.socket_status = 503 if fault == "socket" else 0
            if isinstance(fault, Fault):
                slack.fail(fault)
            try:
                async with spec.open(config, host) as platform, trio.open_nursery() as nursery:
                    nursery.start_soon(_hang_up, slack)
                    with pytest.raises(PlatformUnavailable):
                        await platform.receive(RecordingInbox(), {})
                    nursery.cancel_scope.cancel()
                received += 1
            except HermesError:
                refused += 1
        assert min(received, refused) >= rounds // 4 - 1
        assert before is not None
        await settle(lambda: LeakCensus.take().growth_since(before), 2.0)
        assert not LeakCensus.take().growth_since(before)


async def _hang_up(slack: FakeSlack) -> None:
    """The other side leaves as soon as it has said hello."""
    await slack.until(lambda: slack.sockets.connections)
    await slack.sockets.drop()


# --- showing ---------------------------------------------------------------------------------------------------------


async def test_messages_go_to_chats_threads_and_people() -> None:
    async with bench() as (slack, platform):
        first = await platform.send(TO, mrkdwn("*hi* &amp; `x`"), key="k1", reply=None)
        assert first == Receipt(message_id=slack.ours()[0]["ts"], address=TO, extra="k1")
        assert slack.shown() == ["hi & x"]
        root = slack.say("a question", CHANNEL)
        inside = Address("slack", CHANNEL, root["ts"])
        await platform.send(inside, mrkdwn("an answer"), key="k2", reply=ReplyRef(message_id=root["ts"]))
        assert slack.ours(CHANNEL)[0]["thread_ts"] == root["ts"]
        sent = await platform.send(Address("slack", ALICE), mrkdwn("to you"), key="k3", reply=None)
        assert sent.address == TO
        assert slack.shown() == ["hi & x", "to you"]
        assert all(each.get("unfurl_links") is None for each in slack.ours())


async def test_an_edit_may_be_repeated_and_takes_buttons_away() -> None:
    async with bench() as (slack, platform):
        asked = mrkdwn("really?", buttons=((Button("Yes", "yes"), Button("No", "no")),), final=True)
        receipt = await platform.send(TO, asked, key="k", reply=None)
        (message,) = slack.ours()
        assert [each["value"] for each in message["blocks"][1]["elements"]] == ["yes", "no"]
        for _ in range(2):
            assert await platform.edit(receipt, mrkdwn("done")) == receipt
        assert (message["text"], message.get("blocks")) == ("done", None)
        assert message["metadata"]["event_payload"] == {"key": "k"}
        with pytest.raises(SendRejected):
            await platform.edit(msgspec.structs.replace(receipt, message_id="x"), mrkdwn("done"))
        with pytest.raises(SendRejected):
            await platform.edit(msgspec.structs.replace(receipt, message_id="1.000000"), mrkdwn("done"))


async def test_rendered_markdown_is_read_as_it_was_meant() -> None:
    async with bench() as (slack, platform):
        text = "# A & B\n\n**bold** <script> [link](https://e.org?a=1&b=2)\n\n> quote\n\n```py\nif a < b: pass\n```\n\n\\*no\\*"
        for part in render(text, platform.capabilities):
            await platform.send(TO, mrkdwn(part), key="k", reply=None)
        shown = slack.shown()[0]
        for words in ("A & B", "bold <script> link", "quote", "if a < b: pass", "*no*"):
            assert words in shown


FAILS: tuple[tuple[Answered, type[HermesError]], ...] = (
    (no("not_in_channel"), AddressGone),
    (no("channel_not_found"), AddressGone),
    (no("is_archived"), AddressGone),
    (no("msg_too_long"), SendRejected),
    (no("missing_scope", needed="chat:write"), SendRejected),
    (no("fatal_error"), SendUncertain),
    (no("service_unavailable"), PlatformUnavailable),
    (no("token_revoked"), PlatformRefused),
    (Answered(status=503), PlatformUnavailable),
    (Answered(status=504), SendUncertain),
    (Answered(body=b"<html>"), SendUncertain),
    (Answered(body=b'{"ok": true}'), SendUncertain),
    (Answered(body=b'{"ok": true, "ts": "x"}'), SendUncertain),
    (Answered(cut=30), SendUncertain),
    (Answered(hang=True), SendUncertain),
)


async def test_a_send_that_fails_says_how() -> None:
    async with bench(timeout_s=0.3) as (slack, platform):
        for number, (answer, error) in enumerate(FAILS):
            slack.fail(Fault(path="chat.postMessage", answer=answer))
            with pytest.raises(error):
                await platform.send(TO, mrkdwn("x"), key="k", reply=None)
            await platform.send(TO, mrkdwn(f"y{number}"), key="k2", reply=None)
        assert slack.shown() == [f"y{number}" for number in range(len(FAILS))]


async def test_a_limit_holds_for_its_method_and_for_its_channel_and_costs_no_request() -> None:
    async with no_leaks(), open_fake_slack() as slack:
        now = 1_700_000_000.0
        slack.clock = lambda: now
        async with opened(slack) as platform:
            receipt = await platform.send(TO, mrkdwn("x"), key="k", reply=None)
            limit = answer_json({"ok": False, "error": "ratelimited"}, 429, {"retry-after": "30"})
            slack.fail(Fault(path="chat.postMessage", answer=limit), Fault(path="chat.update", answer=limit))
            for _ in range(2):
                with pytest.raises(RateLimited) as caught:
                    await platform.send(TO, mrkdwn("y"), key="k2", reply=None)
                assert (caught.value.scope, caught.value.retry_after_s) == ("address", 30.0)
            await platform.send(Address("slack", CHANNEL), mrkdwn("elsewhere"), key="k3", reply=None)
            for _ in range(2):
                with pytest.raises(RateLimited) as caught:
                    await platform.edit(receipt, mrkdwn("z"))
                assert caught.value.scope == "method"
            assert (len(slack.asked("chat.postMessage")), len(slack.asked("chat.update"))) == (3, 1)
            now += 30.1
            await platform.send(TO, mrkdwn("y"), key="k2", reply=None)
            await platform.edit(receipt, mrkdwn("z"))
            assert slack.shown() == ["z", "y"]


async def test_what_is_no_place_is_rejected_without_a_request() -> None:
    async with bench() as (slack, platform):
        asked = len(slack.requests)
        for to in (Address("slack", "../x"), Address("slack", "T1/C1"), Address("slack", DM, "x")):
            with pytest.raises(SendRejected):
                await platform.send(to, mrkdwn("x"), key="k", reply=None)
            with pytest.raises(SendRejected):
                await platform.signal(to, Activity(kind="typing"))
        assert len(slack.requests) == asked


async def test_a_command_where_the_app_is_not_is_answered_by_its_url() -> None:
    async with bench() as (slack, platform):
        slack.channels[CHANNEL]["member"] = False
        to = Address("slack", CHANNEL)
        url = f"http://127.0.0.1:{slack.port}/commands/1"
        reply = ReplyRef(token=url, until=slack.clock() + 100)
        receipt = await platform.send(to, mrkdwn("only you"), key="k", reply=reply)
        assert [(each["response_type"], each["text"]) for each in slack.responses] == [("ephemeral", "only you")]
        with pytest.raises(SendRejected):
            await platform.edit(receipt, mrkdwn("x"))
        for bad in (
            ReplyRef(token=url, until=slack.clock() - 1),
            ReplyRef(token="https://evil.example/x"),
            ReplyRef(message_id="1.000000"),
            None,
        ):
            with pytest.raises(AddressGone):
                await platform.send(to, mrkdwn("x"), key="k", reply=bad)
        for answer, error in ((Answered(status=404), AddressGone), (Answered(status=500), PlatformUnavailable)):
            slack.fail(Fault(path="/commands/", answer=answer))
            with pytest.raises(error):
                await platform.send(to, mrkdwn("x"), key="k", reply=reply)
        slack.fail(Fault(path="/commands/", serve=True))
        with pytest.raises(SendUncertain):
            await platform.send(to, mrkdwn("x"), key="k", reply=reply)


async def test_signs_in_threads_and_reactions() -> None:
    async with bench() as (slack, platform):
        message = slack.say("hi")
        await platform.signal(TO, Activity(kind="typing"))
        assert slack.statuses == []
        await platform.signal(Address("slack", DM, message["ts"]), Activity(kind="typing"))
        assert slack.statuses == [(DM, message["ts"], "is writing…")]
        at = ReplyRef(message_id=message["ts"])
        for _ in range(2):
            await platform.signal(TO, Activity(kind="reaction", emoji="👀", reply=at))
        assert [each["name"] for each in message["reactions"]] == ["eyes"]
        message["reactions"].append({"name": "tada", "users": [ALICE], "count": 1})
        await platform.signal(TO, Activity(kind="reaction", reply=at))
        assert [each["name"] for each in message["reactions"]] == ["tada"]
        with pytest.raises(SendRejected):
            await platform.signal(TO, Activity(kind="reaction", emoji="🜁", reply=at))
        with pytest.raises(SendRejected):
            await platform.signal(TO, Activity(kind="reaction", emoji="👀", reply=ReplyRef(message_id="1.000000")))
    async with bench(thread_status=False) as (slack, platform):
        await platform.signal(Address("slack", DM, slack.say("hi")["ts"]), Activity(kind="typing"))
        assert slack.statuses == []


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path: Path) -> OutboundFile:
    path = tmp_path / "blob"
    path.write_bytes(b"abc" * 1000)
    return OutboundFile(path=path, name="report.txt", media_type="text/plain", size_bytes=3000)


async def test_a_file_is_shown_with_its_caption_and_can_be_changed(report: OutboundFile) -> None:
    async with bench() as (slack, platform):
        root = slack.say("send it", CHANNEL)
        to = Address("slack", CHANNEL, root["ts"])
        receipt = await platform.send(to, mrkdwn("*here*", file=report), key="k", reply=None)
        (message,) = slack.ours(CHANNEL)
        assert (message["thread_ts"], text_of(message)) == (root["ts"], "here")
        assert slack.contents[message["files"][0]["id"]] == b"abc" * 1000
        assert (message["files"][0]["title"], receipt.extra) == ("report.txt", "file")
        await platform.edit(receipt, mrkdwn("there", file=report))
        assert text_of(message) == "there"
        asked = mrkdwn("take it?", file=report, buttons=((Button("Yes", "y"),),))
        await platform.send(Address("slack", ALICE), asked, key="k2", reply=None)
        assert slack.ours()[0]["blocks"][1]["elements"][0]["value"] == "y"
        await platform.send(TO, Content(file=report), key="k3", reply=None)
        assert slack.ours()[1]["text"] == ""
        slack.files[message["files"][0]["id"]]["shares"] = {}
        with pytest.raises(PlatformUnavailable):
            await platform.edit(receipt, mrkdwn("x", file=report))


UPLOADS: tuple[tuple[Fault, type[HermesError]], ...] = (
    (Fault(path="/upload/", answer=Answered(status=500)), PlatformUnavailable),
    (Fault(path="/upload/", answer=Answered(status=413)), SendRejected),
    (Fault(path="/upload/", answer=Answered(cut=5)), PlatformUnavailable),
    (Fault(path="getUploadURL", answer=ELSEWHERE), PlatformUnavailable),
    (Fault(path="getUploadURL", answer=no("storage_limit_reached")), SendRejected),
    (Fault(path="completeUpload", answer=no("not_in_channel")), AddressGone),
    (Fault(path="completeUpload", answer=Answered(cut=5)), SendUncertain),
)  # fmt: skip


async def test_an_upload_that_fails_shows_nothing(report: OutboundFile) -> None:
    async with bench() as (slack, platform):
        for fault, error in UPLOADS:
            slack.fail(fault)
            with pytest.raises(error):
                await platform.send(TO, mrkdwn("x", file=report), key="k", reply=None)
        assert slack.shown() == []


async def test_files_are_fetched_with_our_token_from_slack_alone() -> None:
    async with bench() as (slack, platform):
        file = slack.add_file("a.txt", b"x" * 100)

        async def read(ref: str, most: int = 100) -> bytes:
            async with platform.fetch(AttachmentRef(kind="document", ref=ref), max_bytes=most) as pieces:
                return b"".join([piece async for piece in pieces])

        assert await read(file["id"]) == b"x" * 100
        for ref in ("F0NOWHERE", "../x", "T0NOBODY/F1"):
            with pytest.raises(SendRejected):
                await read(ref)
        with pytest.raises(SendRejected, match="more than 99"):
            await read(file["id"], 99)
        file["size"] = 5  # it lies
        with pytest.raises(SendRejected, match="more than 99"):
            await read(file["id"], 99)
        for answer, error in (
            (Answered(body=b"<html>sign in", media_type="text/html; charset=utf-8"), SendRejected),
            (Answered(status=302, headers={"location": "https://e.example"}), SendRejected),
            (Answered(status=404), SendRejected),
            (Answered(status=500), PlatformUnavailable),
            (Answered(status=429, headers={"retry-after": "3"}), RateLimited),
        ):
            slack.fail(Fault(path="/files-pri/", answer=answer))
            with pytest.raises(error):
                await read(file["id"])
        file["url_private_download"] = "https://evil.example/a"
        asked = len(slack.requests)
        with pytest.raises(SendRejected, match="own hosts"):
            await read(file["id"])
        assert len(slack.requests) == asked + 1


# --- reading back ----------------------------------------------------------------------------------------------------


async def test_a_send_of_unclear_end_is_found_by_its_metadata_also_after_a_restart(report: OutboundFile) -> None:
    memory = TestMemory()
    async with no_leaks(), open_fake_slack(page=3) as slack:
        since = slack.clock()
        root = slack.say("a question", CHANNEL)
        places = (TO, Address("slack", CHANNEL), Address("slack", CHANNEL, root["ts"]))
        async with opened(slack, memory=memory) as platform:
            slack.fail(Fault(path="chat.postMessage|completeUpload", times=6))
            for number, to in enumerate(places):
                for content in (mrkdwn("text"), mrkdwn("file", file=report)):
                    with pytest.raises(SendUncertain):
                        await platform.send(to, content, key=f"{content.text}{number}", reply=None)
            slack.fail(Fault(path="completeUpload", answer=Answered(cut=4)))
            with pytest.raises(SendUncertain):
                await platform.send(TO, mrkdwn("x", file=report), key="lost", reply=None)
        for _ in range(5):
            slack.say("and more", CHANNEL)
        async with opened(slack, memory=memory) as platform:
            finder = cast("ReadsBack", platform)
            for number, to in enumerate(places):
                found = await finder.find(to, key=f"text{number}", since=since)
                assert found is not None
                assert (found.address, found.extra) == (to, f"text{number}")
                assert slack.messages[to.chat][found.message_id]["text"] == "text"
                await platform.edit(found, mrkdwn("found"))
                assert slack.messages[to.chat][found.message_id]["text"] == "found"
                found = await finder.find(to, key=f"file{number}", since=since)
                assert found is not None
                assert (found.address, found.extra) == (to, "file")
                assert await finder.find(to, key=f"never{number}", since=since) is None
            assert await finder.find(TO, key="lost", since=since) is None
            assert await finder.find(Address("slack", ALICE), key="text0", since=since) is not None
            assert (
                await finder.find(TO, key="text0", since=since + 1000) is None
            )  # what was sent before is not looked at
            for answer, error in (
                (no("missing_scope", needed="im:history"), SendUncertain),
                (no("not_in_channel"), SendUncertain),
                (Answered(status=500), PlatformUnavailable),
                (answer_json({"ok": False}, 429), RateLimited),
            ):
                slack.fail(Fault(path="conversations.history", answer=answer))
                with pytest.raises(error):
                    await finder.find(TO, key="text0", since=since)


async def test_who_writes_more_than_is_read_leaves_it_unclear() -> None:
    async with no_leaks(), open_fake_slack(page=2) as slack, opened(slack) as platform:
        since = slack.clock()
        for _ in range(12):
            slack.say("more")
        with pytest.raises(SendUncertain):
            await cast("ReadsBack", platform).find(TO, key="k", since=since)


async def test_the_memory_of_uploads_is_bounded(report: OutboundFile) -> None:
    memory = TestMemory()
    async with no_leaks(), open_fake_slack() as slack, opened(slack, memory=memory) as platform:
        for number in range(120):
            await platform.send(TO, Content(file=report), key=f"key{number:020d}", reply=None)
        assert 3500 < len(memory.values["uploads"]) <= 4096
        found = await cast("ReadsBack", platform).find(TO, key=f"key{119:020d}", since=slack.clock() - 10)
        assert found is not None

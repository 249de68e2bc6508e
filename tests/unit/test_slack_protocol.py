"""What is sent to Slack and what its answers mean: bodies, errors, trust, the manifest."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hermes.cli import main
from hermes.commands import COMMANDS
from hermes.errors import (
    AddressGone,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    SendRejected,
    SendUncertain,
)
from hermes.platform import Button, CommandSpec, Content, Secret
from hermes.testing.fake_slack_api import check_blocks
from platforms.slack import SlackConfig, payload, platform
from platforms.slack.api import form
from platforms.slack.connection import tokens_of
from platforms.slack.emoji import NAMES, name_of
from platforms.slack.faults import failure
from platforms.slack.files import trusted
from platforms.slack.manifest import EVENTS, MAX_COMMANDS, SCOPES, manifest

ROWS = tuple((Button(f"b{number}", f"data:{number}"), Button("", "x")) for number in range(3))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.text()))
def test_a_form_is_what_the_standard_library_writes(fields: dict[str, str]) -> None:
    assert form(fields) == urlencode(fields).encode()


def test_a_message_is_text_and_with_buttons_blocks() -> None:
    bare = payload.message("C1", None, Content(text="*hi*", dialect="slack"), "k1")
    assert bare == {
        "channel": "C1", "text": "*hi*", "unfurl_links": False, "unfurl_media": False,
        "metadata": {"event_type": "hermes_part", "event_payload": {"key": "k1"}},
    }  # fmt: skip
    full = payload.message("C1", "1.000000", Content(text="*hi*", dialect="slack", buttons=ROWS), "k1")
    assert full["thread_ts"] == "1.000000"
    check_blocks(full["blocks"])
    assert full["blocks"][0] == {"type": "section", "text": {"type": "mrkdwn", "text": "*hi*"}}
    assert [len(each["elements"]) for each in full["blocks"][1:]] == [2, 2, 2]
    assert full["blocks"][1]["elements"][0]["value"] == "data:0"


def test_plain_text_is_shown_as_it_is() -> None:
    found = payload.message("C1", None, Content(text="*a* <b> & :smile:"), "k")
    assert found["text"] == "*a* &lt;b&gt; &amp; :smile:"
    text = {"type": "plain_text", "text": "*a* <b> & :smile:", "emoji": False}
    assert found["blocks"] == [{"type": "section", "text": text}]


def test_an_edit_takes_away_what_is_not_there_any_more_and_mentions_nobody() -> None:
    found = payload.update("C1", "1.000000", Content(text="x", dialect="slack"), "k")
    assert (found["blocks"], found["parse"], found["link_names"]) == ([], "none", False)
    assert found["metadata"]["event_payload"] == {"key": "k"}
    assert "metadata" not in payload.update("C1", "1.000000", Content(text="x", dialect="slack"), "")


def test_many_buttons_go_into_more_rows_and_too_many_are_refused() -> None:
    wide = Content(text="x", dialect="slack", buttons=(tuple(Button("b", "d") for _ in range(60)),))
    blocks = payload.blocks(wide)
    assert blocks is not None
    check_blocks(blocks)
    assert [len(each["elements"]) for each in blocks[1:]] == [25, 25, 10]
    with pytest.raises(SendRejected):
        payload.blocks(Content(text="x", buttons=((Button("b", "d"),),) * 50))


@pytest.mark.parametrize("content", [Content(text=""), Content(text=" \n"), Content(text="x" * 3001, dialect="slack")])
def test_what_slack_would_refuse_is_not_sent(content: Content) -> None:
    for make in (
        lambda: payload.message("C1", None, content, "k"),
        lambda: payload.update("C1", "1.000000", content, "k"),
        lambda: payload.response(content),
    ):
        with pytest.raises(SendRejected):
            make()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("invalid_auth", PlatformRefused),
        ("token_revoked", PlatformRefused),
        ("account_inactive", PlatformRefused),
        ("channel_not_found", AddressGone),
        ("not_in_channel", AddressGone),
        ("is_archived", AddressGone),
        ("service_unavailable", PlatformUnavailable),
        ("internal_error", PlatformUnavailable),
        ("msg_too_long", SendRejected),
        ("something_new", SendRejected),
        ("", SendRejected),
    ],
)
def test_what_an_error_means(error: str, kind: type[PlatformError]) -> None:
    found = failure("chat.postMessage", {"ok": False, "error": error}, "bot_token")
    assert type(found) is kind
    assert error in str(found)


def test_an_error_after_which_half_of_it_may_have_happened_is_uncertain_where_something_is_shown() -> None:
    for error in ("fatal_error", "internal_error", "request_timeout"):
        assert type(failure("chat.postMessage", {"error": error}, "bot_token", shows=True)) is SendUncertain


def test_a_missing_scope_is_named() -> None:
    found = failure("users.info", {"error": "missing_scope", "needed": "users:read"}, "bot_token")
    assert "users:read" in str(found)
    assert "install the app again" in str(found)


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("https://files.slack.com/a", True),
        ("https://slack.com/a", True),
        ("https://hooks.slack.com/commands/1", True),
        ("http://files.slack.com/a", False),
        ("https://slack.com.evil.example/a", False),
        ("https://evilslack.com/a", False),
        ("https://files.slack.com:444/a", False),
        ("https://me@files.slack.com/a", False),
        ("http://127.0.0.1:1/x", True),
        ("http://127.0.0.1:2/x", False),
        ("http://127.0.0.1:99999/x", False),
        ("", False),
    ],
)
def test_a_token_goes_to_slack_alone(url: str, ours: bool) -> None:
    assert trusted(url, "http://127.0.0.1:1/api") is ours


def test_emoji_have_names() -> None:
    assert name_of("👀") == "eyes"
    assert name_of("❤\ufe0f") == "heart"
    assert name_of(":party_parrot:") == "party_parrot"
    assert name_of("🜁") is None
    assert len(set(NAMES.values())) == len(NAMES)


def config(bot: str, app: str = "xapp-1") -> SlackConfig:
    return SlackConfig(bot_token=Secret(bot), app_token=Secret(app))


def test_tokens() -> None:
    assert [each.secret.reveal() for each in tokens_of(config(" xoxb-1, xoxb-2,"))] == ["xoxb-1", "xoxb-2"]
    for bad in (config("xapp-1"), config("xoxb-1", "xoxb-2"), config(","), config(",".join(["xoxb-1"] * 21))):
        with pytest.raises(PlatformRefused):
            tokens_of(bad)


def test_the_manifest_has_what_the_platform_needs() -> None:
    found = manifest("A name that is far too long for an app of Slack's", COMMANDS)
    assert len(found["display_information"]["name"]) <= 35
    commands = found["features"]["slash_commands"]
    assert [each["command"] for each in commands[:3]] == ["/hermes", "/hermes-start", "/hermes-help"]
    assert len(commands) == len(COMMANDS) + 1
    assert all(each["should_escape"] and len(each["command"]) <= 32 for each in commands)
    assert found["settings"]["socket_mode_enabled"] is True
    assert found["settings"]["interactivity"] == {"is_enabled": True}
    assert set(found["settings"]["event_subscriptions"]["bot_events"]) == set(EVENTS)
    assert found["oauth_config"]["scopes"]["bot"] == sorted(SCOPES)
    many = tuple(CommandSpec(name=f"c{number}", help="x") for number in range(80))
    assert len(manifest("x", many)["features"]["slash_commands"]) == MAX_COMMANDS


def test_the_command_line_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slack", "manifest", "--name", "Pan"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found == dict(manifest("Pan", COMMANDS))
    assert main(["platform", "manifest", "slack", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["display_information"]["name"] == "Hermes"
    assert main(["telegram", "manifest"]) == 1
    assert "has no manifest" in capsys.readouterr().err
    assert main(["nobody", "manifest"]) == 1
    assert "is not installed" in capsys.readouterr().err


def test_the_platform_says_what_it_is() -> None:
    assert platform.capabilities.finds
    assert platform.capabilities.max_text <= payload.MAX_TEXT
    assert set(platform.environment) == {"SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "SLACK_ALLOWED_USERS"}

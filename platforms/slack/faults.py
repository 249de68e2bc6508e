"""What an error of Slack's means. Pure.

Source: the errors that the pages of the methods list, https://docs.slack.dev/reference/methods
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes.errors import (
    AddressGone,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    SendRejected,
    SendUncertain,
)

APPS = "https://api.slack.com/apps"

# The token is no good, whatever is asked.
REFUSED = {
    "invalid_auth": "Slack does not accept it",
    "not_authed": "Slack does not accept it",
    "account_inactive": "it belongs to a workspace or a bot that was removed",
    "token_revoked": "it was revoked",
    "token_expired": "it has expired",
    "not_allowed_token_type": "it is a token of another kind",
    "app_uninstalled": "the app was removed from the workspace",
    "org_login_required": "the workspace is being moved to an organization",
    "team_access_not_granted": "the app was not granted this workspace",
    "enterprise_is_restricted": "the organization does not allow this app",
    "two_factor_setup_required": "two-factor authentication must be set up first",
    "forbidden_team": "this workspace may not be used",
}
GONE = {
    "channel_not_found": "the channel is gone, or the app cannot see it",
    "not_in_channel": "the app is not in that channel: /invite it there",
    "is_archived": "the channel is archived",
    "user_not_found": "there is no such person",
    "users_not_found": "there is no such person",
    "user_disabled": "the person's account was deactivated",
    "cannot_dm_bot": "the app cannot write to another app",
    "messages_tab_disabled": "the app's Messages tab is off: switch it on under App Home",
    "team_not_found": "the workspace is gone",
}
UNAVAILABLE = frozenset(
    ("internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org", "ratelimited")
)
HALF_DONE = frozenset(("internal_error", "fatal_error", "request_timeout"))  # some of it may have happened
NOT_THERE = frozenset(("channel_not_found", "not_in_channel"))


def failure(method: str, body: Mapping[str, Any], token: str, *, shows: bool = False) -> PlatformError:
    """What to raise for an answer with `ok: false`.

    Args:
        method: that was called.
        body: of the answer.
        token: the setting that the token came from.
        shows: it would have shown something.
    """
    error = str(body.get("error", ""))[:100]
    said = f"Slack answered {error or 'no'} to {method}"
    if error in REFUSED:
        return PlatformRefused(f"`{token}` is of no use: {REFUSED[error]} ({error}). Copy it again from {APPS}")
    if error == "missing_scope":
        lacks = str(body.get("needed", "a scope"))[:200]
        words = f"the app lacks the scope {lacks}: add it under OAuth & Permissions at {APPS} and install the app again"
        return SendRejected(f"{words} ({method})")
    if error in HALF_DONE and shows:
        return SendUncertain(said)
    if error in UNAVAILABLE:
        return PlatformUnavailable(said)
    if error in GONE:
        return AddressGone(f"{GONE[error]} ({error})")
    return SendRejected(said)

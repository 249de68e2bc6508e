"""The description from which Slack makes the app: what it may do, what it is told, what people may type. Pure.

Source: https://docs.slack.dev/reference/app-manifest
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes.platform import CommandSpec

COMMAND = "/hermes"
MAX_COMMANDS = 50
MAX_NAME, MAX_COMMAND, MAX_HELP, MAX_HINT = 35, 32, 2000, 1000
SCOPES: Mapping[str, str] = {
    "app_mentions:read": "hear mentions",
    "assistant:write": "show in a thread that an answer is being written",
    "channels:history": "read public channels that it is in",
    "chat:write": "write",
    "commands": "take slash commands",
    "files:read": "fetch files that people send",
    "files:write": "send files",
    "groups:history": "read private channels that it is in",
    "im:history": "read direct messages",
    "im:write": "begin direct messages",
    "mpim:history": "read direct messages of several people",
    "reactions:read": "take its reactions back",
    "reactions:write": "react",
    "users:read": "know what people are called",
}
EVENTS = (
    "app_mention", "app_uninstalled", "assistant_thread_started", "channel_id_changed", "message.channels",
    "message.groups", "message.im", "message.mpim",
)  # fmt: skip


def manifest(name: str, commands: tuple[CommandSpec, ...]) -> Mapping[str, Any]:
    """The app's description.

    Args:
        name: what people see.
        commands: each becomes `/hermes-NAME`, beside `/hermes` itself, behind which they can be typed as well.
    """
    shown = name[:MAX_NAME]
    first = {
        "command": COMMAND,
        "description": f"Talk to {shown}, or use a command",
        "usage_hint": "[command] [words]",
        "should_escape": True,
    }
    return {
        "display_information": {"name": shown, "description": "An AI agent, by the Hermes gateway"},
        "features": {
            "app_home": {
                "home_tab_enabled": False,
                "messages_tab_enabled": True,
                "messages_tab_read_only_enabled": False,
            },
            "bot_user": {"display_name": shown, "always_online": True},
            "assistant_view": {"assistant_description": "Ask anything, or give it work to do"},
            "slash_commands": [first, *map(_command, commands[: MAX_COMMANDS - 1])],
        },
        "oauth_config": {"scopes": {"bot": sorted(SCOPES)}},
        "settings": {
            "event_subscriptions": {"bot_events": list(EVENTS)},
            "interactivity": {"is_enabled": True},
            "org_deploy_enabled": False,
            "socket_mode_enabled": True,
            "token_rotation_enabled": False,
        },
    }


def _command(command: CommandSpec) -> dict[str, Any]:
    found: dict[str, Any] = {
        "command": f"{COMMAND}-{command.name}"[:MAX_COMMAND],
        "description": command.help[:MAX_HELP],
        "should_escape": True,
    }
    if command.arguments:
        found["usage_hint"] = command.arguments[:MAX_HINT]
    return found

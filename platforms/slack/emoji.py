"""Slack's names of the emoji that are used as reactions. Source: the short names of https://github.com/iamcal/emoji-data"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "👀": "eyes",
        "✅": "white_check_mark",
        "❌": "x",
        "👍": "+1",
        "👎": "-1",
        "⏳": "hourglass_flowing_sand",
        "⌛": "hourglass",
        "🤔": "thinking_face",
        "🎉": "tada",
        "❤": "heart",
        "🔥": "fire",
        "👏": "clap",
        "🙏": "pray",
        "😂": "joy",
        "😀": "grinning",
        "🙂": "slightly_smiling_face",
        "⚠": "warning",
        "🚫": "no_entry_sign",
        "🛑": "octagonal_sign",
        "🔄": "arrows_counterclockwise",
        "💬": "speech_balloon",
        "📝": "memo",
        "🚀": "rocket",
        "💯": "100",
        "👋": "wave",
        "👌": "ok_hand",
        "⚙": "gear",
        "🔧": "wrench",
        "🔍": "mag",
        "⭐": "star",
        "❓": "question",
        "❗": "exclamation",
        "⚡": "zap",
        "🤖": "robot_face",
        "💤": "zzz",
        "⏸": "double_vertical_bar",
    }
)


def name_of(emoji: str) -> str | None:
    """The short name of an emoji, also of a workspace's own, written `:name:`; None if it has none that we know."""
    if len(emoji) > 2 and emoji[0] == emoji[-1] == ":":
        return emoji[1:-1]
    return NAMES.get(emoji.removesuffix("\ufe0f"))

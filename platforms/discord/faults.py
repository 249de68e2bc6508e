"""What an answer of Discord's that is no success means. Pure.

Source: Discord's reference, "JSON Error Codes".
"""

from __future__ import annotations

import msgspec

from hermes.errors import AddressGone, PlatformError, PlatformRefused, PlatformUnavailable, SendRejected
from hermes.platform import HttpAnswer
from platforms.discord.closing import CODES
from platforms.discord.wire import Fault

UNKNOWN_CHANNEL, UNKNOWN_MESSAGE, UNKNOWN_WEBHOOK = 10003, 10008, 10015
THREAD_EXISTS, INVALID_WEBHOOK_TOKEN = 160004, 50027
MISSING_PERMISSIONS = 50013

# Nobody can be reached there any more, whatever is sent.
GONE = {
    UNKNOWN_CHANNEL: "the channel is gone",
    10004: "the server is gone",
    10013: "the person is gone",
    50001: "the bot has no access to that channel: let it see the channel (View Channel)",
    50007: "this person takes no direct messages from the bot",
    50278: "this person takes no direct messages from the bot: they share no server",
}
# What a person can do about a message that is not taken.
HELP = {
    MISSING_PERMISSIONS: "the bot lacks a permission there (Send Messages, Attach Files, Create Public Threads, ...)",
    40005: "the file is larger than Discord takes",
    50083: "the thread is archived",
    160005: "the thread is locked",
    200000: "the server's AutoMod blocked it",
}

_fault = msgspec.json.Decoder(Fault).decode


def read_fault(answer: HttpAnswer) -> Fault:
    """The body of an error; empty if it is none of Discord's."""
    try:
        return _fault(answer.body)
    except msgspec.DecodeError:
        return Fault()


def failure(answer: HttpAnswer, fault: Fault) -> PlatformError:
    """What to raise for a status from 400 on, but for 429."""
    said = f"Discord answered {answer.status}" + (f", {fault.code}" if fault.code else "")
    if fault.message:
        said += f": {fault.message[:200]}"
    if answer.status == 401:
        return PlatformRefused(CODES[4004].words)
    if answer.status >= 500 or answer.status < 400:
        return PlatformUnavailable(said)
    if fault.code in GONE:
        return AddressGone(f"{GONE[fault.code]} ({said})")
    help_ = HELP.get(fault.code)
    return SendRejected(f"{help_} ({said})" if help_ else said)

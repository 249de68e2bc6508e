"""The registration of an IRC connection, line by line: what is a reason to go on, to try later, or to ask a person."""

from __future__ import annotations

import pytest

from hermes.errors import PlatformRefused, PlatformUnavailable
from hermes.platform import Secret
from platforms.irc.config import IrcConfig
from platforms.irc.lines import parse
from platforms.irc.registering import Registering


def registering(**more: object) -> Registering:
    return Registering(IrcConfig(server="irc.test", nick="assistant", **more), "irc.test")  # type: ignore[arg-type]


def said(of: Registering, *lines: str) -> list[str]:
    """What is said to these lines."""
    return [raw.decode().removesuffix("\r\n") for line in lines for raw in of.take(parse(line.encode()))]


def test_a_made_up_nick_that_cannot_be_is_no_fault_of_the_one_that_is_wanted() -> None:
    one = registering()
    found = said(one, ":irc.test 433 * assistant :Nickname is already in use")
    while one.failed is None and len(found[-1].partition(" ")[2]) > 9:
        found += said(one, f":irc.test 432 * {found[-1].partition(' ')[2]} :Nickname too long, max. 9 characters")
    assert one.failed is None
    assert found[-1] == "NICK assistan4"
    said(one, ":irc.test 001 assistan4 :Welcome", ":irc.test 422 assistan4 :There is no message of the day")
    assert one.done
    assert one.nick == "assistan4"


def test_a_wanted_nick_that_cannot_be_is_for_a_person_to_change() -> None:
    one = registering()
    assert not said(one, ":irc.test 432 * assistant :Erroneous nickname")
    assert isinstance(one.failed, PlatformRefused)


def test_made_up_nicks_end() -> None:
    one = registering()
    for _ in range(10):
        said(one, ":irc.test 433 * x :in use", ":irc.test 432 * x :Erroneous nickname")
    assert isinstance(one.failed, PlatformUnavailable)


@pytest.mark.parametrize(
    ("number", "raises"),
    [("902", PlatformRefused), ("904", PlatformRefused), ("905", PlatformRefused), ("906", PlatformUnavailable),
     ("908", PlatformRefused)],
)  # fmt: skip
def test_services_that_are_away_are_no_wrong_password(number: str, raises: type) -> None:
    one = registering(sasl_password=Secret("secret"))
    said(one, "CAP * LS :sasl", "CAP * ACK :sasl", f":irc.test {number} * :SASL authentication aborted")
    assert isinstance(one.failed, raises)


def test_a_nick_that_is_taken_from_us_beside_the_welcome_is_noticed() -> None:
    one = registering()
    said(
        one,
        ":irc.test 001 assistant :Welcome",
        ":friend!f@h NICK other",
        ":assistant!~h@host NICK :Guest7",
        ":irc.test 376 Guest7 :End of the message of the day",
    )
    assert one.done
    assert one.nick == "Guest7"

"""Registration: from a connected stream to a welcome, with capabilities and SASL. Plain: lines in, lines out.

Sources: RFC 2812, section 3.1; IRCv3, "Capability Negotiation", "SASL 3.1" and "SASL 3.2".
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from hermes.errors import PlatformError, PlatformRefused, PlatformUnavailable
from platforms.irc.config import IrcConfig
from platforms.irc.lines import Line, build
from platforms.irc.names import Server, read_capabilities

WANTED = (
    "message-tags", "server-time", "batch", "labeled-response", "echo-message", "account-tag", "chghost", "cap-notify",
    "draft/chathistory", "sasl",
)  # fmt: skip
MAX_NICKS = 6  # names that are tried
MAX_SAID = 500
CHUNK = 400  # characters of an AUTHENTICATE
_SASL_FAILED = ("902", "904", "905", "908")


class Registering:
    """One registration.

    Args:
        config: of the account.
        where: the server's name, for people.

    Attributes:
        server: what the server says of itself.
        capabilities: what was acknowledged.
        nick: ours, from the welcome on.
        account: the services account that we are logged in to.
        done: we are welcome.
        failed: why we are not.
        said: what people said to us since the welcome, before somebody listens; not more than `MAX_SAID` lines.
    """

    def __init__(self, config: IrcConfig, where: str) -> None:
        self.server = Server()
        self.capabilities: set[str] = set()
        self.nick = config.nick
        self.account = ""
        self.done = False
        self.failed: PlatformError | None = None
        self.said: list[Line] = []
        self._config = config
        self._where = where
        self._offered: dict[str, str] = {}
        self._tries = 0
        self._welcomed = False
        self._asked = 0  # requests for capabilities that were not answered yet

    def begin(self) -> Sequence[bytes]:
        """The first lines."""
        config = self._config
        lines = [build("CAP", "LS", "302")]
        if config.password is not None:
            lines.append(build("PASS", config.password.reveal()))
        return [*lines, build("NICK", self.nick), build("USER", config.username, "0", "*", config.realname)]

    def take(self, line: Line) -> Sequence[bytes]:
        """What to say to a line."""
        match line.command:
            case "CAP":
                return self._capability(line)
            case "AUTHENTICATE" if line.param(0) == "+":
                return self._credentials()
            case "900":
                self.account = line.param(2)
            case "903" | "907":
                return [build("CAP", "END")]
            case command if command in _SASL_FAILED:
                self._fail_sasl(line)
            case "906":  # not of our doing: the network's services are away, or went
                gone = PlatformUnavailable(f"{self._where} broke the login off: {line.words}")
                self.failed = self.failed or gone
            case "433" | "436" | "437" if not self._welcomed:
                return self._another_nick(line)
            case "432" if self._tries and not self._welcomed:  # one that we made up, such as one that is too long there
                return self._another_nick(line)
            case "432":
                self._refuse(f"{self._where} takes no nick such as {self.nick!r}: {line.words}. Change `nick`")
            case "464":
                self._refuse(f"{self._where} wants another password: {line.words}. Change `password`")
            case "451":
                pass  # a server without capabilities says so to the first line; it goes on
            case "001":
                self._welcomed = True
                self.nick = line.param(0)
                self._check_login()
            case "NICK" if self._welcomed and self.server.fold(line.nick) == self.server.fold(self.nick):
                self.nick = line.param(0)
            case "005":
                self.server.note(line)
            case "376" | "422" if self._welcomed:
                self.done = True
            case "PRIVMSG" | "NOTICE" if self._welcomed and len(self.said) < MAX_SAID:
                self.said.append(line)
        return ()

    def _capability(self, line: Line) -> Sequence[bytes]:
        match line.param(1).upper():
            case "LS" if not self._welcomed:
                self._offered.update(read_capabilities(line.words))
                if line.param(2) == "*":
                    return ()  # more of them follow
                wanted = [name for name in WANTED if name in self._offered and (name != "sasl" or self._logs_in())]
                if "batch" not in wanted or "message-tags" not in wanted:
                    wanted = [name for name in wanted if name not in ("labeled-response", "draft/chathistory")]
                if self._logs_in() and "sasl" not in wanted:
                    self.failed = PlatformUnavailable(
                        f"{self._where} offers no SASL now, and nobody is to be served without"
                    )
                return self._request([" ".join(wanted)]) if wanted else [build("CAP", "END")]
            case "ACK" | "NAK" as answer:
                names = line.words.split()
                self._asked -= 1
                if answer == "ACK":
                    self.capabilities.update(name for name in names if not name.startswith("-"))
                elif len(names) > 1:  # of several none is given if one is not
                    return self._request(names)
                if self._asked:
                    return ()
                if self._logs_in():
                    if "sasl" in self.capabilities:
                        return [build("AUTHENTICATE", "PLAIN")]
                    self.failed = PlatformUnavailable(f"{self._where} takes back its offer of SASL")
                return [] if self._welcomed else [build("CAP", "END")]
            case "DEL":
                self.capabilities.difference_update(line.words.split())
        return ()

    def _request(self, groups: Sequence[str]) -> Sequence[bytes]:
        self._asked += len(groups)
        return [build("CAP", "REQ", group) for group in groups]

    def _logs_in(self) -> bool:
        return self._config.sasl_password is not None

    def _credentials(self) -> Sequence[bytes]:
        config = self._config
        assert config.sasl_password is not None
        name = config.sasl_account or config.nick
        said = base64.b64encode("\0".join((name, name, config.sasl_password.reveal())).encode()).decode()
        chunks = [said[at : at + CHUNK] for at in range(0, len(said), CHUNK)]
        if len(chunks[-1]) == CHUNK:
            chunks.append("+")
        return [build("AUTHENTICATE", chunk) for chunk in chunks]

    def _fail_sasl(self, line: Line) -> None:
        name = self._config.sasl_account or self._config.nick
        self._refuse(
            f"{self._where} does not let us log in as {name!r}: {line.words}. Change `sasl_account` or `sasl_password`"
        )

    def _check_login(self) -> None:
        """A server that never heard of capabilities welcomes everybody."""
        if self._logs_in() and not self.account and "sasl" not in self.capabilities:
            self.failed = PlatformUnavailable(f"{self._where} offers no SASL, and nobody is to be served without")

    def _another_nick(self, line: Line) -> Sequence[bytes]:
        self._tries += 1
        if self._tries >= MAX_NICKS:
            self.failed = PlatformUnavailable(
                f"{self._where} has given away {self._config.nick!r} and names like it: {line.words}"
            )
            return ()
        longest = int(self.server.tokens.get("NICKLEN", "0") or 0) or 9 if self._tries > 3 else 30
        ending = "_" * self._tries if self._tries <= 3 else str(self._tries)
        self.nick = self._config.nick[: longest - len(ending)] + ending
        return [build("NICK", self.nick)]

    def _refuse(self, words: str) -> None:
        self.failed = PlatformRefused(words)

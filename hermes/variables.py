"""Variables: the environment above `.env`, `${NAME}` in configured text, and which proxy an address goes through. Pure.

Nothing here reads the process's environment: the mappings are arguments, and `hermes.config` is the one that has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from hermes.decode import Expanded, Findings, Wrong, is_address, join, segment
from hermes.schema import PROXY_URL

_REFERENCE: Final = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
_MISSING: Final = object()

TERMINAL_NAMES: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TERM", "TZ", "TMPDIR")
"""What every command may see, beside `LC_*` and what `terminal.env_passthrough` names."""
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Variables:
    """The environment above `.env`; an empty value counts as unset, but still hides the one in `.env`."""

    __slots__ = ("_dotenv", "_environ")

    def __init__(self, environ: Mapping[str, str], dotenv: Mapping[str, str]) -> None:
        self._environ = environ
        self._dotenv = dotenv

    def get(self, name: str) -> str | None:
        """The value, or None where it is unset or empty."""
        return self.raw(name) or None

    def raw(self, name: str) -> str | None:
        """The value, empty too, or None where it is unset."""
        return self._environ.get(name, self._dotenv.get(name))

    def locale_names(self) -> tuple[str, ...]:
        """The `LC_…` names of the environment."""
        return tuple(sorted(name for name in self._environ if name.startswith("LC_")))

    def any_starts_with(self, beginning: str) -> bool:
        """Whether a name that has a value begins so."""
        return any(name.startswith(beginning) and self.get(name) for name in {**self._dotenv, **self._environ})

    def any_ends_with(self, endings: tuple[str, ...]) -> bool:
        """Whether a name that has a value ends in one of these."""
        return any(name.endswith(endings) and self.get(name) for name in {**self._dotenv, **self._environ})

    def origin(self, name: str) -> str:
        """Where the value is from, for people."""
        return f"environment {name}" if name in self._environ else f".env {name}"


def expand(tree: Any, variables: Variables, findings: Findings, path: str = "") -> Any:
    """Replace `${NAME}` by its value and `$$` by `$` in every text of a tree.

    A value whose variable is missing is noted as a mistake and left out, so that it is not reported a second time.

    Returns:
        A new tree; text that had a variable in it is Expanded.
    """
    found = _expand(tree, variables, findings, path)
    return None if found is _MISSING else found


def _expand(tree: Any, variables: Variables, findings: Findings, path: str) -> Any:
    if isinstance(tree, dict):
        pairs = {
            name: _expand(value, variables, findings, join(path, segment(name, position)))
            for position, (name, value) in enumerate(tree.items())
        }
        return {name: value for name, value in pairs.items() if value is not _MISSING}
    if isinstance(tree, list):
        entries = [_expand(value, variables, findings, f"{path}[{position}]") for position, value in enumerate(tree)]
        return [entry for entry in entries if entry is not _MISSING]
    return _expand_text(tree, variables, findings, path) if isinstance(tree, str) and "$" in tree else tree


def _expand_text(text: str, variables: Variables, findings: Findings, path: str) -> Any:
    pieces: list[str] = []
    end = 0
    expanded = missing = False
    for reference in _REFERENCE.finditer(text):
        pieces.append(text[end : reference.start()])
        end = reference.end()
        name = reference[1]
        if name is None:
            pieces.append("$")
        elif not reference[2] or not _NAME.match(name):
            findings.wrong(
                path, "has ${ without a variable's name and } after it; write $${ for the characters themselves"
            )
            missing = True
        elif (value := variables.raw(name)) is None:
            shown = segment(name).replace("(key 1)", "the variable it names")
            findings.wrong(path, f"{shown} is set neither in the environment nor in .env")
            missing = True
        else:
            pieces.append(value)
            expanded = True
    if missing:
        return _MISSING
    pieces.append(text[end:])
    whole = "".join(pieces)
    return Expanded(whole) if expanded else whole


def proxy_for(base_url: str, variables: Variables, findings: Findings) -> str | None:
    """The proxy that the environment asks for, as curl reads it: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.

    The lower-case names count first. A proxy is never used for a loopback address.

    Returns:
        A proxy URL, or None for a direct connection.
    """
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port
    own = "https_proxy" if parts.scheme == "https" else "http_proxy"
    for lower in (own, "all_proxy"):
        name = lower if variables.get(lower) else lower.upper()
        value = variables.get(name)
        if value is None:
            continue
        bypass = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
        if is_loopback(host) or _bypassed(host, port, bypass):
            return None
        try:
            found: str = PROXY_URL.read(value if "://" in value else f"http://{value}")
        except Wrong as wrong:
            if not any(problem.path == name for problem in findings.problems):
                findings.wrong(name, str(wrong))
            return None
        return found
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost" or (host.startswith("127.0.0.") and is_address(host)):
        return True
    if not host or (host[-1].isalpha() and ":" not in host):
        return False
    import ipaddress  # the usual start never needs it

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bypassed(host: str, port: int | None, bypass: str) -> bool:
    for raw in bypass.lower().split(","):
        entry = raw.strip()
        if entry == "*":
            return True
        if not entry:
            continue
        if "/" in entry:
            if _in_network(host, entry):
                return True
            continue
        if entry.startswith("["):
            name, _, rest = entry[1:].partition("]")
            wanted = rest.removeprefix(":")
        elif entry.count(":") == 1:
            name, _, wanted = entry.partition(":")
        else:
            name, wanted = entry, ""
        if wanted and wanted != str(port):
            continue
        name = name.removeprefix("*").removeprefix(".")
        if name and (host == name or host.endswith("." + name)):
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    import ipaddress  # the usual start never needs it

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def terminal_environment(variables: Variables, passthrough: tuple[str, ...]) -> dict[str, str]:
    """The environment of commands that tools run: an allow-list, never the process's own.

    Args:
        variables: where values come from.
        passthrough: `terminal.env_passthrough`, more names.

    Returns:
        A new mapping, with `PATH` always in it.
    """
    names = (*TERMINAL_NAMES, *variables.locale_names(), *passthrough)
    values = {name: value for name in names if (value := variables.raw(name)) is not None}
    values.setdefault("PATH", DEFAULT_PATH)
    return values

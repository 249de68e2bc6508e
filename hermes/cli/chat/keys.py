"""Keys: the bytes of a terminal in raw mode to what was pressed, however they are cut. Pure.

Sources: ECMA-48, 5.4 (control sequences); xterm's "Bracketed Paste Mode" and its function keys.
"""

from __future__ import annotations

import codecs
import re
from types import MappingProxyType
from typing import Final, NamedTuple

MAX_SEQUENCE: Final = 64
MAX_PASTE: Final = 262_144
"""Characters of one paste that are kept."""

_SEQUENCE: Final = re.compile(r"\x1b(?:\[([0-9;:<=>?]*)[ -/]*([@-~])|O([A-Za-z])|([^\[O]))")
_OPEN: Final = re.compile(r"\x1b(?:\[[0-9;:<=>?]*[ -/]*|O)?\Z")
_PASTE_END: Final = "\x1b[201~"
_PLAIN: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_CONTROL: Final = MappingProxyType(
    {
        "\r": "enter", "\n": "newline", "\x7f": "backspace", "\x08": "backspace", "\x01": "home", "\x05": "end",
        "\x02": "left", "\x06": "right", "\x10": "up", "\x0e": "down", "\x04": "eof", "\x0b": "kill-end",
        "\x15": "kill-start", "\x17": "kill-word", "\x19": "yank", "\x0c": "clear", "\t": "tab",
    }
)  # fmt: skip
_LETTERS: Final = MappingProxyType(
    {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
)  # with CSI and with SS3
_NUMBERS: Final = MappingProxyType({"1": "home", "3": "delete", "4": "end", "7": "home", "8": "end"})
_ALT: Final = MappingProxyType(
    {"\r": "newline", "\n": "newline", "b": "word-left", "f": "word-right", "d": "kill-word-right", "\x7f": "kill-word"}
)


class Key(NamedTuple):
    """What was pressed: `text` and `paste` carry words, every other name stands for itself."""

    name: str
    text: str = ""


class KeyReader:
    """Reads keys from bytes; what is not whole waits for the rest."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._paste: list[str] | None = None

    def feed(self, data: bytes) -> list[Key]:
        """The keys that these bytes complete."""
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        keys: list[Key] = []
        while text:
            if self._paste is not None:
                text = self._pasted(text, keys)
            elif text[0] == "\x1b":
                text = self._sequence(text, keys)
            elif plain := _PLAIN.match(text):
                keys.append(Key("text", plain[0]))
                text = text[plain.end() :]
            else:
                if text[0] in _CONTROL:
                    keys.append(Key(_CONTROL[text[0]]))
                text = text[1:]
        return keys

    def _sequence(self, text: str, keys: list[Key]) -> str:
        """Take an escape sequence from the beginning of a text; returns what follows it."""
        found = _SEQUENCE.match(text)
        if found is None:
            if _OPEN.match(text) and len(text) <= MAX_SEQUENCE:
                self._rest = text
                return ""
            return text[1:]
        parameters, final, single, alt = found.groups()
        name = None
        if final == "~":
            if parameters == "200":
                self._paste = []
            name = _NUMBERS.get(parameters.partition(";")[0])
        elif final is not None:
            name = _LETTERS.get(final)
            if name in ("left", "right") and parameters.endswith((";5", ";3")):  # with Control or Alt
                name = f"word-{name}"
        elif single is not None:
            name = _LETTERS.get(single)
        else:
            name = _ALT.get(alt)
        if name is not None:
            keys.append(Key(name))
        return text[found.end() :]

    def _pasted(self, text: str, keys: list[Key]) -> str:
        """Take pasted text up to its end; returns what follows that."""
        assert self._paste is not None
        body, end, rest = text.partition(_PASTE_END)
        if not end:  # the end may be cut in two
            kept = next((size for size in range(len(_PASTE_END) - 1, 0, -1) if text.endswith(_PASTE_END[:size])), 0)
            body, self._rest = text[: len(text) - kept], text[len(text) - kept :]
        self._paste.append(body[: max(0, MAX_PASTE - sum(map(len, self._paste)))])
        if end:
            keys.append(Key("paste", "".join(self._paste).replace("\r\n", "\n").replace("\r", "\n")))
            self._paste = None
        return rest

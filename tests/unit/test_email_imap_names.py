"""Names that IMAP servers write without quotes, as RFC 3501 lets them: one odd folder must not hide all others."""

from __future__ import annotations

from typing import Any

import pytest

from platforms.email.imap_syntax import values


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'LIST () "/" Foo[', ["LIST", [], b"/", "Foo["]),
        (b'LIST () "/" Foo[1]', ["LIST", [], b"/", "Foo[1]"]),
        (b'LIST () "/" ]x[y[', ["LIST", [], b"/", "]x[y["]),
        (b"2 FETCH (FLAGS ($x[ \\Seen) UID 2)", ["2", "FETCH", ["FLAGS", ["$x[", "\\Seen"], "UID", "2"]]),
        (b"2 FETCH (BODY[HEADER.FIELDS (A B)] NIL)", ["2", "FETCH", ["BODY[HEADER.FIELDS (A B)]", None]]),
    ],
)
def test_an_atom_may_hold_a_bracket(line: bytes, found: list[Any]) -> None:
    assert values([line]) == found

"""What a person wrote in a mail: the text, without quotes and signatures, of whatever program; and the files."""

from __future__ import annotations

import base64
from email import message_from_bytes, message_from_string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.email.body import files_of, leaves_of, text_of
from platforms.email.html_text import words_of_html
from platforms.email.quotes import own_words

GMAIL = "On Tue, Nov 14, 2023 at 10:13 PM Hermes <agent@hermes.test>\nwrote:\n\n> Hello\n> there\n"
OUTLOOK = (
    "________________________________\nFrom: Hermes <agent@hermes.test>\nSent: Tuesday, November 14, 2023\n"
    "To: Anna <anna@people.test>\nSubject: Re: x\n\nHello there\n"
)


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("just words", "just words"),
        ("Yes.\n\n" + GMAIL, "Yes."),
        ("Yes.\n\n" + OUTLOOK, "Yes."),
        ("Ja.\n\nAm 14.11.23 um 22:13 schrieb Hermes:\n> Hallo\n>\n> da\n", "Ja."),
        ("Oui.\n\nLe mar. 14 nov. 2023 à 22:13, Hermes <agent@hermes.test> a écrit :\n\n> Bonjour\n", "Oui."),
        ("Sí.\n\nEl mar, 14 nov 2023 a las 22:13, Hermes (<agent@hermes.test>) escribió:\n> Hola\n", "Sí."),
        ("Ok\n\n-----Original Message-----\nFrom: x\nblah", "Ok"),
        ("Gut\n\n-----Ursprüngliche Nachricht-----\nVon: x\nblah", "Gut"),
        ("Fine\n-- \nAnna\nCEO of everything", "Fine"),
        ("On it", "On it"),
        ("I wrote:\nthis is it", "I wrote:\nthis is it"),
        ("> Hello\n\nHello to you", "Hello to you"),
        ("Hermes wrote:\n> Hello\n\nHello to you", "Hello to you"),
        ("> one?\nyes\n> two?\nno\n", "> one?\nyes\n> two?\nno"),
        (
            "See below\n\n---------- Forwarded message ---------\nFrom: x\n> y",
            "See below\n\n---------- Forwarded message ---------\nFrom: x\n> y",
        ),
        (GMAIL, GMAIL.strip()),
        ("> only a quote", "> only a quote"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("", ""),
        ("To: do\nFrom: now on\n", "To: do\nFrom: now on"),
    ],
)
def test_the_own_words_are_left(text: str, own: str) -> None:
    assert own_words(text) == own


@given(st.text(alphabet="ab> \n:-@wrote", max_size=200))
def test_nothing_is_made_up_and_something_is_left(text: str) -> None:
    own = own_words(text)
    assert bool(own.strip()) == bool(text.strip())
    assert set(own.split()) <= set(text.split())


def test_html_becomes_words() -> None:
    page = (
        "<html><head><title>no</title><style>p{}</style></head><body><p>Hello&nbsp;<b>you</b>,</p><p>see <a href='https://x.test/a'>"
        "this</a> and <a href='https://y.test'>https://y.test/</a></p><ul><li>one<li>two</ul><pre>a\n  b</pre><script>x()</script>"
        "<div>On Tuesday, Hermes wrote:<br></div><blockquote>old<blockquote>older</blockquote></blockquote></body></html>"
    )
    words = words_of_html(page)
    assert words.split("\n") == [
        "Hello you,", "", "see this (https://x.test/a) and https://y.test/", "", "- one", "- two", "", "a", "  b", "",
        "On Tuesday, Hermes wrote:", "", "> old", ">", ">> older",
    ]  # fmt: skip
    assert own_words(words).endswith("b")


@given(st.text(alphabet="<>/!-[]abp qi&;=\"'\n", max_size=200))
def test_no_html_is_too_strange(page: str) -> None:
    assert isinstance(words_of_html(page), str)


def test_plain_text_is_preferred_and_wrapped_lines_are_joined() -> None:
    both = message_from_string(
        'Content-Type: multipart/alternative; boundary="b"\n\n--b\nContent-Type: text/plain; format=flowed; charset=utf-8\n\n'
        "one \ntwo\n>quoted \n>line\n-- \nme\n--b\nContent-Type: text/html\n\n<p>html</p>\n--b--\n"
    )
    assert text_of(leaves_of(both)) == "one two\n> quoted line\n-- \nme"
    only = message_from_string("Content-Type: text/html; charset=nonsense\n\n<p>h&eacute;</p>")
    assert text_of(leaves_of(only)) == "hé"


NESTED = b"""\
Content-Type: multipart/mixed; boundary="o"

--o
Content-Type: multipart/alternative; boundary="i"

--i
Content-Type: text/plain

words
--i
Content-Type: text/html

<p>words</p>
--i--
--o
Content-Type: image/png; name="../../p/icture.png"
Content-Transfer-Encoding: base64

aGVsbG8=
--o
Content-Type: message/rfc822

Subject: inner

inner words
--o
Content-Type: text/plain; charset=utf-8
Content-Disposition: attachment; filename*=utf-8''n%C3%B6tes.txt
Content-Transfer-Encoding: quoted-printable

n=C3=B6
--o
Content-Type: application/pgp-signature

sig
--o
Content-Type: application/x; name=odd
Content-Transfer-Encoding: x-nobody-knows

?
--o--
"""


def test_files_have_the_numbers_that_imap_gives_them() -> None:
    leaves = leaves_of(message_from_bytes(NESTED))
    assert text_of(leaves) == "words"
    found = [(each.kind, each.ref, each.name, each.media_type, each.size_bytes) for each in files_of(leaves, "7/9")]
    assert found == [
        ("image", "7/9/2/b/5", ".._.._p_icture.png", "image/png", 5),
        ("document", "7/9/3/n/", "", "message/rfc822", None),
        ("document", "7/9/4/q/3", "nötes.txt", "text/plain", 3),
    ]


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "utf-8"])
def test_text_is_read_in_its_charset(charset: str) -> None:
    coded = base64.b64encode("Grüße".encode(charset)).decode()
    found = message_from_string(
        f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: base64\n\n{coded}\n"
    )
    assert text_of(leaves_of(found)) == "Grüße"


def test_a_text_without_end_is_cut() -> None:
    found = message_from_string("Content-Type: text/plain\n\n" + "x" * 300_000)
    assert len(text_of(leaves_of(found))) < 100_100

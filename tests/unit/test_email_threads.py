"""Which conversation a mail belongs to, how ours are tied to it, and what a mail of ours looks like."""

from __future__ import annotations

import contextlib
import dataclasses
import email
import email.policy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import PlatformProtocolError, SendRejected
from hermes.events import Content, OutboundFile
from hermes.inbound import check_event
from hermes.platform import Secret
from hermes.platform_config import setting_rules
from hermes.testing.fake_mail import ANNA, TRUSTED, USER, letter, text_of
from platforms.email import platform
from platforms.email.compose import Letter, compose, message_id
from platforms.email.config import EmailConfig, copies
from platforms.email.threads import (
    Head,
    Known,
    Tie,
    bucket,
    digest,
    is_ours,
    our_id,
    read_known,
    read_token,
    remembered,
    thread_of,
    tie_in,
    tie_of,
    token,
    write_known,
)
from platforms.email.translate import Passed, open_mail, translate

CONFIG = EmailConfig(
    address=USER, password=Secret("x"), imap_host="h", smtp_host="h", authserv_id=TRUSTED, name="The agent"
)


def head(number: str, subject: str = "Hello", references: tuple[str, ...] = (), answers: tuple[str, ...] = ()) -> Head:
    return Head(id=number, sender=ANNA, subject=subject, references=references, answers=answers)


def test_references_lead_to_the_mail_that_it_began_with() -> None:
    first = thread_of(head("a@x"), [])
    assert thread_of(head("b@x", references=("a@x", "k@y")), []) == first
    assert thread_of(head("c@x", answers=("a@x",)), []) == first
    assert thread_of(head("d@x"), []) != first


def test_our_own_ids_lead_back_whatever_else_is_missing() -> None:
    thread = thread_of(head("a@x"), [])
    ours = our_id("key1", thread, "hermes.test")
    assert is_ours(ours)
    assert thread_of(head("b@x", answers=(ours,)), []) == thread
    assert thread_of(head("b@x", references=("cut@x", ours)), []) == thread
    begun = our_id("key2", None, "hermes.test")
    assert thread_of(head("c@x", answers=(begun,)), []) == digest(begun)
    assert thread_of(head("d@x", references=(begun, "c@x")), []) == digest(begun)


def test_what_a_program_leaves_out_is_remembered() -> None:
    known = remembered([], "t", head("a@x", "The plan"))
    known = remembered(known, "t", head("b@x", "Re: The plan", references=("a@x",)))
    assert thread_of(head("c@x", answers=("b@x",)), known) == "t"
    assert thread_of(head("c@x", "AW: the PLAN"), known) == "t"
    assert thread_of(head("c@x", "The plan"), known) != "t"  # begins another of the same name
    assert thread_of(head("c@x", "Re: Another plan"), known) != "t"
    stranger = Head(id="c@x", sender="eve@evil.test", subject="Re: The plan", answers=("b@x",))
    assert thread_of(stranger, known) != "t"
    assert tie_in(known, ANNA, "t") == Tie("The plan", ("a@x", "b@x"))
    assert tie_in(known, "eve@evil.test", "t") is None
    assert read_known(write_known(known)) == known
    assert read_known(b"{") == read_known(None) == []


@given(st.lists(st.tuples(st.integers(0, 30), st.text(max_size=300)), max_size=60))
def test_the_memory_is_bounded_and_keeps_the_latest(mails: list[tuple[int, str]]) -> None:
    known: list[Known] = []
    for number, subject in mails:
        known = remembered(known, f"t{number}", head(f"{number}@x", subject))
        kept = write_known(known)
        assert len(kept) <= 4096
        known = read_known(kept)
        assert known[-1].thread == f"t{number}"
        assert len({each.thread for each in known}) == len(known)


def test_a_tie_has_the_first_and_the_last() -> None:
    many = tuple(f"{number}@x" for number in range(20))
    tie = tie_of(head("new@x", references=many))
    assert tie.ids == ("0@x", "18@x", "19@x", "new@x")
    assert read_token(token(tie)) == tie
    assert read_token("nonsense") is read_token(None) is None
    assert bucket(ANNA) == bucket(ANNA)


def composed(
    content: Content, *, tie: Tie | None = None, thread: str | None = None, reply_to: str | None = None
) -> email.message.EmailMessage:
    made = Letter(to=ANNA, content=content, key="k1", thread=thread, tie=tie, reply_to=reply_to, at=1_700_000_000.0)
    raw = compose(made, CONFIG)
    assert raw == compose(made, CONFIG)
    assert raw.isascii()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    assert b"\n" not in raw.replace(b"\r\n", b"")
    found = email.message_from_bytes(raw, policy=email.policy.default)
    assert not found.defects
    assert str(found["Message-ID"]) == f"<{message_id(made, CONFIG)}>"
    assert isinstance(found, email.message.EmailMessage)
    return found


def test_an_answer_stands_in_its_thread_and_says_what_it_is() -> None:
    long = tuple(f"{'x' * 200}{number}@people.test" for number in range(4))
    found = composed(Content(text="yes\n.\nFrom x"), tie=Tie("Größe 🙂", long), thread="0" * 16, reply_to=long[-1])
    assert str(found["References"]).split() == [f"<{each}>" for each in long]
    assert str(found["In-Reply-To"]) == f"<{long[-1]}>"
    assert str(found["Subject"]) == "Re: Größe 🙂"
    assert str(found["Auto-Submitted"]) == "auto-replied"
    assert str(found["X-Auto-Response-Suppress"]) == "All"
    assert str(found["From"]) == f'"The agent" <{USER}>' or str(found["From"]) == f"The agent <{USER}>"
    assert text_of(found) == "yes\n.\nFrom x"
    assert str(composed(Content(text="x"), tie=Tie("AW: plan", ("a@x",)))["Subject"]) == "AW: plan"


def test_what_answers_nothing_has_its_first_line_as_subject() -> None:
    found = composed(Content(text="Good morning\r\nBcc: eve@evil.test\n\nMore"))
    assert str(found["Subject"]) == "Good morning"
    assert found["Bcc"] is None
    assert str(found["Auto-Submitted"]) == "auto-generated"
    assert found["In-Reply-To"] is None
    assert str(composed(Content(text="\n"))["Subject"]) == "A message"


@given(st.text(max_size=300), st.text(max_size=120))
def test_every_text_arrives_as_it_was(text: str, subject: str) -> None:
    found = composed(Content(text=text), tie=Tie(subject, ("a@x",)))
    said = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    assert text_of(found) == (said.removesuffix("\n") if said.endswith("\n") else said)


def test_a_file_is_attached_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"\x00\xff" * 999)
    file = OutboundFile(path=path, name='na"me\r\nX: y.bin', media_type="message/rfc822", size_bytes=1998)
    found = composed(Content(text="here", file=file))
    (part,) = found.iter_attachments()
    assert part.get_filename() == "na_me__X: y.bin" or "X: y.bin" in str(part.get_filename())
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_content() == b"\x00\xff" * 999
    assert len(composed(Content(file=file)).get_payload()) == 1
    for size, where in ((1997, path), (1998, tmp_path / "gone")):
        with pytest.raises(SendRejected):
            composed(Content(file=OutboundFile(path=where, name="f", media_type="a/b", size_bytes=size)))


def event_of(raw: str | bytes, known: list[Known] | None = None):  # type: ignore[no-untyped-def]
    opened = open_mail(raw.encode() if isinstance(raw, str) else raw, CONFIG, where="1/2", at=5.0)
    assert not isinstance(opened, Passed), opened
    return translate(*opened, known or [], account="email")[0]


def test_a_command_is_one_and_a_new_subject_is_said() -> None:
    assert event_of(letter("/stop\n-- \nAnna", number="1")).text == "/stop"
    assert event_of(letter("hi", number="1", subject="a [b] c")).text == "[subject: a (b) c]\nhi"
    assert event_of(letter("hi", number="2", heads="In-Reply-To: <1@people.test>\n")).text == "hi"
    assert event_of(letter("", number="3", subject="only this")).text == "only this"


def test_a_mail_without_an_id_is_called_by_its_content() -> None:
    one = letter("hi", number="1").replace("Message-ID: <1@people.test>\n", "")
    assert event_of(one).id == event_of(one).id
    assert event_of(one).id != event_of(one.replace("hi", "ho")).id


def test_what_is_too_large_is_said() -> None:
    raw = letter("", number="1").encode()
    opened = open_mail(raw, CONFIG, where="1/2", too_large=99_000_000)
    assert not isinstance(opened, Passed)
    assert "99,000,000 bytes" in translate(*opened, [], account="email")[0].text


@pytest.mark.parametrize("inner", ["multipart/mixed; boundary=b{}", "message/rfc822"])
def test_a_mail_in_which_everything_is_in_something_else_is_not_taken_apart(inner: str) -> None:
    def nested(depth: int) -> bytes:
        body = "".join(f"--b{number}\nContent-Type: {inner.format(number + 1)}\n\n" for number in range(depth))
        return letter(body, number="1", heads="Content-Type: multipart/mixed; boundary=b0\n").encode()

    for depth, is_read in ((50, True), (50_000, False)):
        opened = open_mail(nested(depth), CONFIG, where="1/2")
        assert not isinstance(opened, Passed)
        event, _ = translate(*opened, [], account="email")
        assert ("too much in it is in something else" in event.text) is not is_read
        assert event.sender.id == ANNA


@given(st.binary(max_size=400), st.integers(0, 500))
def test_no_mail_is_too_strange(junk: bytes, at: int) -> None:
    good = letter("hi", number="1", heads="Content-Type: multipart/mixed; boundary*0=a; boundary*1=b\n").encode()
    for raw in (junk, good[:at] + junk + good[at:]):
        with contextlib.suppress(PlatformProtocolError):
            opened = open_mail(raw, CONFIG, where="1/2")
            if not isinstance(opened, Passed):
                event, _ = translate(*opened, [], account="email")
                assert check_event(event, "email") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("host", "wanted"), [("smtp.gmail.com", "server"), ("SMTP.office365.com", "server"), ("notgmail.com", "append")]
)
def test_who_keeps_copies_is_known_of_large_providers(host: str, wanted: str) -> None:
    assert copies(EmailConfig(address=USER, password=Secret("x"), imap_host="h", smtp_host=host)) == wanted


def test_every_setting_is_on_the_reference_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    rows = (
        page.partition("Of a mailbox (`platform: email`)")[2].partition("\nOf ")[0].partition("\n## ")[0].splitlines()
    )
    rules = setting_rules(platform)
    shown = {row.split("`")[1]: row for row in rows if row.startswith("| `")}
    assert set(shown) == set(rules)
    for each in dataclasses.fields(platform.config):
        assert each.metadata["about"] in shown[each.name]
        assert shown[each.name].endswith(f"| {rules[each.name].says} |")

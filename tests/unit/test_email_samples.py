"""Mails as programs write them, made after real ones with other people in them: what each becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes.events import AttachmentRef, InboundEvent
from hermes.platform import Secret
from hermes.token_lock import token_hash
from platforms.email.config import EmailConfig
from platforms.email.translate import Passed, open_mail, translate

SAMPLES = Path(__file__).parents[1] / "samples" / "email"
CONFIG = EmailConfig(
    address="agent@hermes.test", password=Secret("x"), imap_host="h", smtp_host="h", authserv_id="mx.hermes.test"
)


def read(name: str) -> InboundEvent | Passed:
    raw = (SAMPLES / f"{name}.eml").read_bytes()
    opened = open_mail(raw, CONFIG, where="1/2", at=1_700_000_000.0)
    return opened if isinstance(opened, Passed) else translate(*opened, [], account="email")[0]


@pytest.mark.parametrize(
    ("name", "sender", "shown", "text", "thread"),
    [
        ("gmail_reply", "anna@people.test", "Anna Example", "At eight. ☕", "0123456789abcdef"),
        ("outlook_html", "bert@people.test", "Example, Bert", "Schön, danke.\n\nGruß\nBert", "fedcba9876543210"),
        (
            "apple_attachment", "cleo@people.test", "Cléo Example",
            "[subject: Die Pläne]\nPlease look at this plan, which is long enough to be wrapped by the program.", None,
        ),
    ],
)  # fmt: skip
def test_what_people_wrote(name: str, sender: str, shown: str, text: str, thread: str | None) -> None:
    event = read(name)
    assert isinstance(event, InboundEvent)
    assert (event.sender.id, event.sender.name, event.text) == (sender, shown, text)
    assert event.address.chat == sender
    assert thread is None or event.address.thread == thread
    assert event.quoted is None or event.quoted.ours


def test_the_file_of_a_program_that_calls_it_inline() -> None:
    event = read("apple_attachment")
    assert isinstance(event, InboundEvent)
    assert event.attachments == (
        AttachmentRef(kind="document", ref="1/2/2/b/9", name="Pläne.pdf", media_type="application/pdf", size_bytes=9),
    )


@pytest.mark.parametrize("name", ["bounce", "vacation"])
def test_what_no_person_wrote_is_passed_over(name: str) -> None:
    found = read(name)
    assert isinstance(found, Passed)
    assert found.why.startswith("written by no person")


def test_an_account_is_named_by_its_address_which_is_no_secret() -> None:
    assert token_hash("email", ["agent@hermes.test"]) == token_hash("email", [Secret("agent@hermes.test")])
    assert token_hash("email", ["agent@hermes.test"]) != token_hash("email", ["other@hermes.test"])

"""The real process with a mailbox: a person writes mails, through stops, kills, outages and repeats."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from killed_rounds import KilledRounds

from hermes.intake import FINAL_ROW_STATES
from hermes.testing.fake_mail import ANNA, PASSWORD, TRUSTED, USER, FakeMail, letter, open_fake_mail, text_of
from hermes.testing.fake_mail_wire import Fault
from hermes.testing.fake_model import FakeModel, Gate, Slow, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, hermes, open_gateway_process, until, write_config

QUICK = {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "healthy_after_s": 0.2}
DOWN = {name: Fault(answer=b"421 4.3.2 down") for name in ("smtp greeting",)}


def sections(mail: FakeMail, model: FakeModel, **account: Any) -> dict[str, Any]:
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k"},
        "platforms": {"email": {
            "address": USER, "password": PASSWORD, "imap_host": "127.0.0.1", "imap_port": mail.imap_port, "imap_security": "none",
            "smtp_host": "127.0.0.1", "smtp_port": mail.smtp_port, "smtp_security": "none", "authserv_id": TRUSTED,
            "allowed_users": [ANNA, "bert@people.test"], "sent_copy": "server", "sent_copy_s": 0.5, **account,
        }},
        "supervision": QUICK,
        "shutdown": {"flush_timeout_s": 0.5},
        "delivery": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "sweep_s": 0.5},
    }  # fmt: skip


def look(home: Path, sql: str) -> list[Any]:
    """Read the database."""
    con = sqlite3.connect(f"file:{home / 'hermes.db'}?mode=ro", uri=True)
    try:
        return con.execute(sql).fetchall()
    finally:
        con.close()


async def receives(mail: FakeMail) -> None:
    """The mailbox is being received from: what comes now is not the past."""
    seen = mail.requests.count("imap IDLE")
    await until(lambda: mail.requests.count("imap IDLE") > seen, "IDLE", within_s=25)


async def answered(mail: FakeMail, count: int, *, within_s: float = 25.0) -> list[str]:
    await until(lambda: len(mail.accepted) >= count, f"{count} mails", within_s=within_s)
    return mail.texts()


def open_rows(home: Path) -> tuple[int, int]:
    (inbox,) = look(home, "SELECT count(*) FROM inbox WHERE finished_at IS NULL")[0]
    (outbox,) = look(home, "SELECT count(*) FROM outbox WHERE finished_at IS NULL")[0]
    return inbox, outbox


@pytest.mark.wall_clock_s(90)
async def test_a_person_writes_through_a_stop_and_everything_comes_three_times(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_mail() as mail, open_fake_model(default=Reply(text="**Yes** & no")) as model:
        mail.keeps_copies = True
        write_config(home, sections(mail, model))
        first = letter("Is it so?", number="m1", subject="Question")
        async with open_gateway_process(home) as gateway:
            await receives(mail)
            mail.arrive(first)
            mail.arrive(first)
            assert await answered(mail, 1) == ["Yes & no"]
            mail.arrive(first)
            mail.arrive(letter("/status", number="m2", heads="In-Reply-To: <m1@people.test>\n"))
            assert "1 turn, " in (await answered(mail, 2))[1]
            (ready,) = [(await gateway.client.get("/ready")).status_code]
            assert ready == 200
            sent = await hermes(home, "send", "--to", f"email:{ANNA}", "from the *command* line")
            assert sent.returncode == 0, sent.stderr
            assert (await answered(mail, 3))[2] == "from the command line"
            checked = await hermes(home, "platform", "check", "email")
            assert checked.stdout.startswith(USER)
            assert await gateway.terminate() == 0
        assert PASSWORD not in gateway.log + gateway.said
        mail.arrive(first)
        answer = mail.accepted[2].message
        mail.arrive(letter("And?", number="m3", subject="Re: from", heads=f"In-Reply-To: {answer['Message-ID']}\n"))
        mail.arrive(letter("Eve is not Anna", number="m4", trusted=False))
        mail.arrive(letter("stranger", number="m5", sender="eve@evil.test"))
        async with open_gateway_process(home) as gateway:
            assert (await answered(mail, 4))[3] == "Yes & no"
            await until(lambda: all("\\Seen" in each.flags for each in mail.inbox.mails), "all mails marked")
            assert await gateway.terminate() == 0
        assert len(mail.accepted) == 4
        assert str(mail.accepted[0].message["Subject"]) == "Re: Question"
        assert {each.recipient for each in mail.accepted} == {ANNA}
        assert look(home, "SELECT count(*) FROM inbox") == [(3,)]


@pytest.mark.wall_clock_s(90)
async def test_a_reply_that_is_ready_during_an_outage_arrives_once_after_it_and_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_mail() as mail, open_fake_model() as model:
        mail.keeps_copies = True
        gate = trio.Event()
        model.script(Gate(event=gate, reply=Reply(text="the answer")))
        write_config(home, sections(mail, model))
        async with open_gateway_process(home) as gateway:
            await receives(mail)
            mail.arrive(letter("a question", number="m1"))
            await until(lambda: model.answering, "the question at the model")
            mail.standing = dict(DOWN)
            before = mail.requests.count("smtp greeting")
            gate.set()
            await until(lambda: mail.requests.count("smtp greeting") > before + 2, "attempts to send")
            assert await gateway.terminate() == 0
        async with open_gateway_process(home) as gateway:
            await until(lambda: mail.requests.count("smtp greeting") > before + 4, "an attempt to connect")
            mail.standing = {}
            assert await answered(mail, 1) == ["the answer"]
            assert await gateway.terminate() == 0
        assert mail.texts() == ["the answer"]
        assert look(home, "SELECT state FROM outbox") == [("sent",)]


async def moment(mail: FakeMail, model: FakeModel, chance: random.Random, number: int) -> None:
    """Wait for one of the moments at which it hurts."""
    fetched = mail.requests.count("imap UID FETCH")
    marked, asked = mail.requests.count("imap UID STORE"), len(model.requests)
    data, ended = mail.requests.count("smtp DATA"), mail.requests.count("smtp message")
    moments = (
        lambda: mail.requests.count("imap UID FETCH") > fetched,
        lambda: mail.requests.count("imap UID STORE") > marked,  # committed, and not marked
        lambda: len(model.requests) > asked,
        lambda: mail.requests.count("smtp DATA") > data,
        lambda: mail.requests.count("smtp message") > ended,  # accepted, and nobody has heard it
    )
    await until(moments[number % len(moments)], "the moment", within_s=25)
    await trio.sleep(chance.random() * 0.01)


@pytest.mark.wall_clock_s(600)
async def test_nothing_is_lost_or_repeated_when_the_process_is_killed_at_any_moment(
    tmp_path: Path, full: bool, seed: int, record: Callable[..., None]
) -> None:
    """With a folder of what was sent to look into, a kill leaves no duplicate, marked or not."""
    chance = random.Random(seed)
    home = tmp_path / "home"
    written: Counter[str] = Counter()
    async with (
        open_fake_mail() as mail,
        open_fake_model(default=Slow(first_s=0.01, reply=Reply(text="an answer"))) as model,
    ):
        mail.keeps_copies = True
        write_config(home, sections(mail, model))
        async with open_gateway_process(home):
            await receives(mail)
        for number in range(150 if full else 5):
            async with open_gateway_process(home) as gateway:
                for _ in range(chance.randint(1, 3)):
                    who = chance.choice((ANNA, "bert@people.test"))
                    written[who] += 1
                    mail.arrive(letter("/queue a question", number=f"{who[0]}{written[who]}", sender=who))
                if chance.random() < 0.3:
                    mail.fail("smtp message", Fault(cut=True, done=chance.random() < 0.5))
                await moment(mail, model, chance, number)
                await gateway.kill()
        total = sum(written.values())
        async with open_gateway_process(home) as gateway:
            await until(
                lambda: look(home, "SELECT count(*) FROM inbox") == [(total,)], "every mail committed", within_s=40
            )
            await until(lambda: open_rows(home) == (0, 0), "every row ended", within_s=60)
            assert await gateway.terminate() == 0
        rows = look(home, "SELECT state, count(*) FROM inbox GROUP BY state")
        assert {name for name, _ in rows} <= set(FINAL_ROW_STATES)
        assert look(home, "SELECT state, count(*) FROM outbox GROUP BY state") == [("sent", total)]
        got = Counter(each.recipient for each in mail.accepted)
        assert got == written
        assert not any(text_of(each.message).startswith("(may be") for each in mail.accepted)
        ids = [str(each.message["Message-ID"]) for each in mail.accepted]
        assert len(set(ids)) == len(ids)
        ((cursor,),) = look(home, "SELECT value FROM cursors WHERE name = 'mailbox'")
        assert int(cursor.split(b",")[2]) == mail.inbox.mails[-1].uid
        record("Kills of the real process", "e-mail: any moment", kills=number + 1, messages=total)


class KilledMail(KilledRounds):
    """Anna writes; every other send that is not answered had no effect."""

    mail: FakeMail

    async def begun(self, gateway: GatewayProcess) -> None:
        if self.written == 0:  # what came before the first one is the past
            await until(lambda: "imap IDLE" in self.mail.requests, "IDLE")

    def write(self, number: int) -> None:
        self.mail.arrive(letter("/queue a question", number=f"m{number}"))

    def texts(self) -> list[str]:
        return self.mail.texts()

    def stall(self) -> Callable[[], object]:
        before = self.mail.requests.count("smtp message")
        self.mail.fail("smtp message", Fault(hang=True, done=self.written % 2 == 0))
        return lambda: self.mail.requests.count("smtp message") > before


@pytest.mark.wall_clock_s(900)
async def test_killed_at_each_named_point_it_answers_each_mail_once_and_unmarked(
    tmp_path: Path, full: bool, seed: int, record: Callable[..., None]
) -> None:
    home = tmp_path / "home"
    async with open_fake_mail() as mail, open_fake_model() as model:
        mail.keeps_copies = True
        write_config(home, sections(mail, model, admins=[ANNA], admin_tools=True))
        killed = KilledMail(home, model)
        killed.mail = mail
        await killed.run(full=full, seed=seed)
        total = killed.written
        assert look(home, "SELECT state, count(*) FROM inbox GROUP BY state") == [("answered", total)]
        assert look(home, "SELECT state, count(*) FROM outbox GROUP BY state") == [("sent", total)]
        assert mail.texts() == [f"answer {number}" for number in range(total)]
        answers = [str(each.message["In-Reply-To"]) for each in mail.accepted]
        assert answers == [f"<m{number}@people.test>" for number in range(total)]
        record("Kills of the real process", "e-mail: each named point", kills=total, messages=total)


@pytest.mark.wall_clock_s(60)
async def test_a_wrong_password_makes_one_attempt_and_says_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_mail() as mail, open_fake_model(default=Reply(text="hello")) as model:
        write_config(home, sections(mail, model, password="wrong-password"))
        async with open_gateway_process(home) as gateway:

            async def parked() -> dict[str, Any] | None:
                found = await account_of(gateway)
                return found if found["state"] == "parked(refused)" else None

            found = await until(parked, "a parked account")
            assert "app password" in found["words"]
            assert mail.requests.count("imap AUTHENTICATE") == 1
            write_config(home, sections(mail, model))
            assert (await hermes(home, "reload")).returncode == 0
            await until(lambda: "imap IDLE" in mail.requests, "IDLE")
            mail.arrive(letter("now?", number="m1"))
            assert await answered(mail, 1) == ["hello"]
            assert await gateway.terminate() == 0
        assert "wrong-password" not in gateway.log + gateway.said


async def account_of(gateway: GatewayProcess) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.status())["accounts"]["email"]
    return found

"""The real process: what people send on Telegram and Discord reaches the model, also when the process is killed while it comes."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hermes.received import DIGITS, FOLDER
from hermes.testing.fake_discord import FakeDiscord, open_fake_discord
from hermes.testing.fake_model import FakeModel, Hang, Status, open_fake_model
from hermes.testing.fake_telegram import TOKEN, FakeTelegram, Fault, open_fake_telegram
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import hermes, open_gateway_process, until, write_config
from hermes.testing.messaging_process import look

JPEG = b"\xff\xd8\xff\xe0" + os.urandom(200_000)


def sections(telegram: FakeTelegram, model: FakeModel, **more: Any) -> dict[str, Any]:
    return {
        "model": {"base_url": model.base_url, "default": "m", "api_key": "k", **more},
        "platforms": {"telegram": {
            "token": TOKEN, "base_url": telegram.base_url, "allowed_users": ["*"], "poll_timeout_s": 5,
        }},
        "supervision": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "healthy_after_s": 0.2},
        "delivery": {"backoff_base_s": 0.05, "backoff_max_s": 0.5, "sweep_s": 0.5},
    }  # fmt: skip


def photo(telegram: FakeTelegram, ref: str, content: bytes, **fields: Any) -> None:
    telegram.files[ref] = (f"photos/{ref}.jpg", content)
    sizes = [
        {"file_id": "small", "file_unique_id": "s", "width": 90, "height": 60, "file_size": 900},
        {"file_id": ref, "file_unique_id": "u", "width": 900, "height": 600, "file_size": 1000},
    ]
    telegram.write(7, photo=sizes, **fields)


def seen(model: FakeModel) -> list[bytes]:
    """The pictures in the last request."""
    parts = [
        part for each in model.requests[-1].body["messages"] if isinstance(each["content"], list)
        for part in each["content"] if part["type"] == "image_url"
    ]  # fmt: skip
    heads = {part["image_url"]["url"].partition(",")[0] for part in parts}
    assert heads <= {"data:image/jpeg;base64"}
    return [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in parts]


@pytest.mark.wall_clock_s(60)
async def test_photos_reach_the_model_and_a_model_that_cannot_see_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="I see")) as model:
        write_config(home, sections(telegram, model))
        async with open_gateway_process(home) as gateway:
            photo(telegram, "one", JPEG, caption="what is this?")
            await until(lambda: len(telegram.texts(7)) == 1, "an answer")
            assert seen(model) == [JPEG]
            album = [JPEG + bytes([number]) for number in range(3)]
            for number, content in enumerate(album):
                photo(telegram, f"album-{number}", content, media_group_id="a")
            await until(lambda: len(telegram.texts(7)) == 2, "an answer to the album")
            assert seen(model) == [JPEG, *album]
            assert len(model.requests) == 2
            photo(telegram, "liar", b"<html>" * 10)
            await until(lambda: len(telegram.texts(7)) == 3, "an answer to the liar")
            assert seen(model) == [JPEG, *album]
            assert "could not be fetched: it is no JPEG" in str(model.requests[-1].body["messages"][-1])
            write_config(home, sections(telegram, model, vision=False))
            assert (await hermes(home, "reload")).returncode == 0
            telegram.write(7, "and now?")
            await until(lambda: len(telegram.texts(7)) == 4, "an answer in words")
            assert seen(model) == []
            assert "cannot see it" in str(model.requests[-1].body["messages"])
            fetched = telegram.counts["getfile"]
            photo(telegram, "unseen", JPEG + b"unseen")
            await until(lambda: len(telegram.texts(7)) == 5, "an answer to what nobody sees")
            assert telegram.counts["getfile"] == fetched
            assert await gateway.terminate() == 0
        database = b"".join(each.read_bytes() for each in home.glob("hermes.db*"))
        assert base64.b64encode(JPEG)[:60] not in database
        assert JPEG[4:64] not in database


@pytest.mark.wall_clock_s(60)
async def test_what_is_old_goes_and_what_cannot_be_looked_at_harms_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    old, new = "ab" + "0" * 62, "cd" + "0" * 62
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="yes")) as model:
        write_config(home, sections(telegram, model))
        async with open_gateway_process(home) as gateway:
            telegram.write(7, "hi")
            await until(lambda: telegram.texts(7), "an answer")
            await until(lambda: look(home, "SELECT 1 FROM outbox WHERE state = 'sent'"), "it is written down")
            assert await gateway.terminate() == 0
        kept = [home / "blobs" / each[:2] / each for each in (old, new)]
        saved = home / "workspace" / FOLDER / ("a" * DIGITS) / "report.pdf"
        for path in (*kept, saved):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        for path in (kept[0], saved):
            os.utime(path, (1.0, 1.0))
        config = sections(telegram, model)
        config["retention"] = {"finished_rows_s": 1, "blobs_s": 3600, "sweep_s": 1}
        write_config(home, config)
        async with open_gateway_process(home) as gateway:
            await until(lambda: not kept[0].exists() and not saved.exists(), "old files are gone", within_s=20)
            await until(lambda: not look(home, "SELECT 1 FROM outbox"), "old rows are gone", within_s=20)
            assert kept[1].exists()
            assert await gateway.terminate() == 0
        shutil.rmtree(home / "blobs")
        (home / "blobs").write_bytes(b"no directory")
        async with open_gateway_process(home) as gateway:
            telegram.write(7, "still there?")
            await until(lambda: len(telegram.texts(7)) == 2, "an answer")
            await until(lambda: "blobs.sweep_waits" in gateway.log, "a sweep that met it")
            assert (await gateway.client.get("/ready")).status_code == 200
            assert await gateway.terminate() == 0


@pytest.mark.wall_clock_s(60)
async def test_a_photo_outlives_the_process_that_was_fetching_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="I see")) as model:
        write_config(home, sections(telegram, model))
        telegram.fail("file", Fault(hang=True))
        async with open_gateway_process(home) as gateway:
            photo(telegram, "one", JPEG, caption="what is this?")
            await until(lambda: telegram.counts["getfile"] == 1 and not telegram.faults["file"], "a fetch that hangs")
            await until(lambda: not telegram.updates, "the confirmation")
            await gateway.kill()
        async with open_gateway_process(home) as gateway:
            await until(lambda: len(telegram.texts(7)) == 1, "an answer")
            assert seen(model) == [JPEG]
            assert await gateway.terminate() == 0
        assert len(model.requests) == 1
        assert len([each for each in (home / "blobs").rglob("*") if each.is_file() and len(each.name) == 64]) == 1


OGG = b"OggS\0\2" + os.urandom(9_000)
PDF = b"%PDF-1.7\n\0" + os.urandom(5_000)


def document(telegram: FakeTelegram, ref: str, name: str, content: bytes, **fields: Any) -> None:
    telegram.files[ref] = (f"documents/{ref}", content)
    telegram.write(
        7, document={"file_id": ref, "file_unique_id": ref, "file_name": name, "file_size": len(content)}, **fields
    )


def last(model: FakeModel) -> str:
    """The words of the last message in the last request."""
    content = model.requests[-1].body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@pytest.mark.wall_clock_s(60)
async def test_documents_and_voice_messages_reach_the_model_as_words(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="I see")) as model:
        configured = sections(telegram, model)
        configured["platforms"]["telegram"] |= {"admins": ["7"], "admin_tools": True}
        write_config(home, configured)
        telegram.files["v"] = ("voice/v.oga", OGG)
        voice = {"file_id": "v", "file_unique_id": "v", "duration": 3, "mime_type": "audio/ogg", "file_size": len(OGG)}
        async with open_gateway_process(home) as gateway:
            document(telegram, "notes", "notes.txt", b"buy milk\n", caption="what is in it?")
            await until(lambda: len(telegram.texts(7)) == 1, "an answer")
            assert "what is in it?\n[content of notes.txt, until the line END-" in last(model)
            assert "buy milk" in last(model)
            document(telegram, "pdf", "../../report.pdf", PDF, caption="and this")
            await until(lambda: len(telegram.texts(7)) == 2, "an answer to the PDF")
            path = last(model).rpartition("saved in the workspace as ")[2].rstrip("]")
            assert path.startswith("received/")
            assert (home / "workspace" / path).read_bytes() == PDF
            telegram.write(7, voice=voice)
            await until(lambda: len(telegram.texts(7)) == 3, "an answer to the voice message")
            assert "[voice, audio/ogg, 9,006 bytes; it was not transcribed" in last(model)
            assert not model.heard
            write_config(home, configured | {"transcription": {"model": "whisper-1", "language": "en"}})
            assert (await hermes(home, "reload")).returncode == 0
            telegram.write(7, voice=voice)
            await until(lambda: len(telegram.texts(7)) == 4, "an answer to what was said")
            assert "[voice, transcribed:] so it was said" in last(model)
            assert model.heard[0].body["file"] == ("voice.ogg", "audio/ogg", OGG)
            model.hearing.append(Status(code=400))
            telegram.write(7, voice=voice)
            await until(lambda: len(telegram.texts(7)) == 5, "an answer to what was not heard")
            assert "[voice: could not be transcribed: it was refused]" in last(model)
            assert await gateway.terminate() == 0


@pytest.mark.wall_clock_s(60)
async def test_a_voice_message_outlives_the_process_and_a_service_that_does_not_answer(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="I see")) as model:
        listens = {"transcription": {"model": "whisper-1", "timeout_s": 5}}
        write_config(home, sections(telegram, model) | listens)
        telegram.files["v"] = ("voice/v.oga", OGG)
        voice = {"file_id": "v", "file_unique_id": "v", "duration": 3, "mime_type": "audio/ogg", "file_size": len(OGG)}
        model.hearing.append(Hang())
        async with open_gateway_process(home) as gateway:
            telegram.write(7, voice=voice)
            await until(lambda: model.heard and not telegram.updates, "a recording at the service")
            await gateway.kill()
        async with open_gateway_process(home) as gateway:
            await until(lambda: len(telegram.texts(7)) == 1, "an answer")
            assert "[voice, transcribed:] so it was said" in last(model)
            listens["transcription"]["timeout_s"] = 0.2
            write_config(home, sections(telegram, model) | listens)
            assert (await hermes(home, "reload")).returncode == 0
            model.hearing.append(Hang())
            telegram.write(7, voice=voice)
            await until(lambda: len(telegram.texts(7)) == 2, "an answer without the words")
            assert "[voice: could not be transcribed: it did not work in time]" in last(model)
            assert await gateway.terminate() == 0
        assert len(model.requests) == 2


@pytest.mark.wall_clock_s(60)
async def test_files_on_discord_reach_the_model(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_discord() as discord, open_fake_model(default=Reply(text="I see")) as model:
        configured = {
            "model": {"base_url": model.base_url, "default": "m", "api_key": "k"},
            "platforms": {"discord": {"token": discord.token, "base_url": discord.base_url, "allowed_users": ["*"]}},
            "transcription": {"model": "whisper-1"},
        }
        write_config(home, configured)
        async with open_gateway_process(home) as gateway:
            await until(lambda: discord.gateway.sessions, "a session")
            files = [
                attached(discord, "a.jpg", JPEG, "image/jpeg"), attached(discord, "n.md", b"# milk", "text/markdown"),
                attached(discord, "voice.ogg", OGG, "audio/ogg"),
            ]  # fmt: skip
            discord.say("all of it", attachments=files)
            await until(lambda: discord.shown(), "an answer")
            assert seen(model) == [JPEG]
            words = str(model.requests[-1].body["messages"][-1])
            assert "# milk" in words
            assert "[audio, transcribed:] so it was said" in words
            assert await gateway.terminate() == 0


def attached(discord: FakeDiscord, name: str, content: bytes, media_type: str) -> dict[str, Any]:
    id_ = discord.snowflake()
    discord.files[f"{id_}/{name}"] = content
    url = f"http://127.0.0.1:{discord.port}/attachments/{id_}/{name}"
    return {
        "id": id_, "filename": name, "size": len(content), "url": url, "proxy_url": url, "content_type": media_type
    }  # fmt: skip


@pytest.mark.wall_clock_s(90)
async def test_files_go_out_by_a_tool_call_and_by_hand_and_outlive_a_kill(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="done")) as model:
        write_config(home, sections(telegram, model))
        async with open_gateway_process(home) as gateway:
            (home / "workspace" / "chart.jpg").write_bytes(JPEG)
            model.script(
                Reply(text="here", calls=[("send_file", '{"path": "chart.jpg", "caption": "the *chart*"}')]),
                Reply(text="done"),
                Reply(calls=[("send_file", '{"path": "../config.yaml"}')]),
            )
            telegram.write(7, "the chart, please")
            await until(lambda: "done" in telegram.texts(7), "an answer")
            await until(lambda: len(uploads(telegram)) == 1, "the chart")
            assert uploads(telegram) == [("chart.jpg", JPEG, "the chart")]
            telegram.write(7, "and the configuration")
            await until(lambda: telegram.texts(7).count("done") == 2, "another answer")
            assert "outside the workspace" in str(model.requests[-1].body["messages"][-1])
            assert "send_file" in str(model.requests[-1].body["tools"])
            assert (await gateway.chat("hi")).status_code == 200
            assert "send_file" not in str(model.requests[-1].body.get("tools"))
            report = tmp_path / "report.pdf"
            report.write_bytes(PDF)
            telegram.fail("sendDocument", Fault(hang=True))
            sent = await hermes(home, "send", "--to", "telegram:7", "the report", "--file", str(report))
            assert sent.returncode == 0, sent.stderr
            report.write_bytes(b"another")
            await until(lambda: telegram.counts["senddocument"] == 1, "an attempt")
            await gateway.kill()
        report.unlink()
        async with open_gateway_process(home) as gateway:
            await until(lambda: len(uploads(telegram)) == 2, "the report")
            name, content, caption = uploads(telegram)[1]
            assert (name, content) == ("report.pdf", PDF)
            assert caption == "(may be a duplicate)\nthe report"
            refused = await hermes(home, "send", "--to", "telegram:7", "--file", str(home / "config.yaml"))
            assert refused.returncode == 1
            assert "out of reach" in refused.stderr
            assert await gateway.terminate() == 0
        assert len(uploads(telegram)) == 2


def uploads(telegram: FakeTelegram) -> list[tuple[str, bytes, str]]:
    """Files that are shown: name, bytes, caption."""
    return [(*each.file, each.text) for each in telegram.shown.values() if each.file is not None]


@pytest.mark.wall_clock_s(60)
async def test_a_file_goes_out_on_discord(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_discord() as discord, open_fake_model(default=Reply(text="done")) as model:
        accounts = {"discord": {"token": discord.token, "base_url": discord.base_url, "allowed_users": ["*"]}}
        write_config(
            home, {"model": {"base_url": model.base_url, "default": "m", "api_key": "k"}, "platforms": accounts}
        )
        async with open_gateway_process(home) as gateway:
            (home / "workspace" / "notes.md").write_bytes(b"# milk")
            model.script(Reply(calls=[("send_file", '{"path": "notes.md", "caption": "notes"}')]), Reply(text="done"))
            await until(lambda: discord.gateway.sessions, "a session")
            discord.say("the notes, please")
            await until(lambda: sorted(discord.shown()) == ["done", "notes"], "answer and file")
            assert b"# milk" in discord.files.values()
            assert await gateway.terminate() == 0


@pytest.mark.wall_clock_s(60)
async def test_a_long_turn_says_what_it_does_in_the_message_that_becomes_its_reply(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_telegram() as telegram, open_fake_model(default=Reply(text="done")) as model:
        configured = sections(telegram, model)
        configured["platforms"]["telegram"] |= {"admins": ["7"], "admin_tools": True}
        configured["delivery"] |= {
            "progress": "line", "progress_after_s": 0.1, "progress_every_s": 0.1, "edit_interval_s": 0.05
        }  # fmt: skip
        write_config(home, configured)
        async with open_gateway_process(home) as gateway:
            wait = '{"command": "until [ -e go ]; do sleep 0.05; done"}'
            model.script(Reply(calls=[("terminal", wait)]), Reply(text="done"))
            telegram.write(7, "take your time")
            await until(lambda: telegram.texts(7) and "running terminal" in telegram.texts(7)[0], "a line")
            assert telegram.texts(7)[0].startswith("still working, ")
            (home / "workspace" / "go").touch()
            await until(lambda: telegram.texts(7) == ["done"], "the answer in its place")
            assert telegram.counts["sendmessage"] == 1
            model.script(Reply(calls=[("terminal", '{"command": "sleep 60"}')]))
            telegram.write(7, "once more")
            await until(lambda: len(telegram.texts(7)) == 2 and "terminal" in telegram.texts(7)[1], "another line")
            telegram.write(7, "/stop")
            await until(lambda: telegram.texts(7)[1] == "…", "the line to be taken back")
            assert await gateway.terminate() == 0

"""Transcription over HTTP: the request as services want it, failures as errors of models, within a deadline, nothing left open."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from hermes.agent.model import open_model
from hermes.agent.transcription import MAX_ANSWER_BYTES, Recording, endpoint_of
from hermes.errors import ModelProtocolError, ModelRefused, ModelUnavailable
from hermes.settings import Endpoint, ModelConfig, Secret, TranscriptionConfig
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_model import FakeModel, Garbage, Hang, Status, Step, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.spine import config_for

OGG = Recording(content=b"OggS\r\n--" + os.urandom(50_000), name="voice.ogg", media_type="audio/ogg")
QUICK = ModelConfig(backoff_base_s=0.001)


def endpoint(model: FakeModel) -> Endpoint:
    return Endpoint(model="whisper-1", base_url=model.base_url, api_key=Secret("sk-very-secret"))


async def test_the_request_is_the_form_that_services_take(tmp_path: Path) -> None:
    async with open_fake_model(hears=Reply(text=" said ")) as model, open_model(QUICK) as door:
        assert await door.transcribe(OGG, endpoint=endpoint(model), timeout_s=10) == "said"
        spoken = replace(OGG, language="de")
        assert await door.transcribe(spoken, endpoint=endpoint(model), timeout_s=10) == "said"
        first, second = model.heard
        assert first.path == "/v1/audio/transcriptions"
        assert first.headers["authorization"] == "Bearer sk-very-secret"
        assert first.body == {
            "model": "whisper-1",
            "response_format": "json",
            "file": ("voice.ogg", "audio/ogg", OGG.content),
        }
        assert second.body["language"] == "de"
        assert not model.refused
        assert model.accepted == 1  # one client, shared
        assert door.clients.statistics().leases == 0


@pytest.mark.parametrize(
    ("steps", "error", "requests"),
    [
        ([Status(code=401), Reply(text="x")], ModelRefused, 1),
        ([Status(code=400), Reply(text="x")], ModelRefused, 1),
        ([Status(code=503), Status(code=500)], ModelUnavailable, 2),
        ([Garbage(), Garbage()], ModelProtocolError, 2),
        ([Garbage(body=b'{"text": 1}', content_type="application/json")] * 2, ModelProtocolError, 2),
        ([Garbage(body=b"[" * MAX_ANSWER_BYTES + b"[")], ModelProtocolError, 1),
    ],
)  # fmt: skip
async def test_failures_are_errors_of_models(steps: list[Step], error: type[Exception], requests: int) -> None:
    async with open_fake_model() as model, open_model(QUICK) as door:
        model.hearing.extend(steps)
        with pytest.raises(error) as caught:
            await door.transcribe(OGG, endpoint=endpoint(model), timeout_s=10)
        assert "very-secret" not in str(caught.value)
        assert len(model.heard) == requests


async def test_a_failure_that_passes_is_tried_once_more() -> None:
    async with open_fake_model() as model, open_model(QUICK) as door:
        model.hearing.extend([Status(code=503), Reply(text="then")])
        assert await door.transcribe(OGG, endpoint=endpoint(model), timeout_s=10) == "then"


async def test_a_service_that_hangs_costs_its_time_and_a_cancelled_caller_none() -> None:
    async with open_fake_model(hears=Hang()) as model, open_model(QUICK) as door:
        with pytest.raises(ModelUnavailable, match="in time"):
            await door.transcribe(OGG, endpoint=endpoint(model), timeout_s=0.05)
        before = len(model.heard)  # a busy machine may not have brought the first one there in its time
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: door.transcribe(OGG, endpoint=endpoint(model), timeout_s=60))
            while len(model.heard) == before:  # noqa: ASYNC110  # an observable fact
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
        assert door.clients.statistics().leases == 0
        model.hears = Reply(text="well")
        assert await door.transcribe(OGG, endpoint=endpoint(model), timeout_s=10) == "well"


@pytest.mark.wall_clock_s(200)
async def test_ended_at_every_step_it_leaves_nothing_and_the_next_is_heard(seed: int, full: bool) -> None:
    small = replace(OGG, content=b"OggS" + bytes(3000))

    async def scenario() -> None:
        async with open_fake_model() as model, open_model(QUICK) as door:
            model.hearing.extend([Status(code=503), Reply(text="then")])
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(partial(door.transcribe, small, endpoint=endpoint(model), timeout_s=10))

    async def check() -> None:
        async with open_fake_model() as model, open_model(QUICK) as door:
            assert await door.transcribe(small, endpoint=endpoint(model), timeout_s=10) == "so it was said"

    await scenario()  # the library is loaded by then
    report = await cancel_at_every_step(
        scenario, check=check, ways=("cancel", "deadline") if full else ("cancel",), seeds=(seed,), limit=300 if full else 40
    )  # fmt: skip
    assert report.runs >= 20


async def test_the_fake_takes_what_the_services_own_client_sends() -> None:
    from openai import OpenAI

    async with open_fake_model() as model:

        def ask() -> str:
            with OpenAI(base_url=model.base_url, api_key="k", max_retries=0) as client:
                file = ("voice.ogg", OGG.content, OGG.media_type)
                return client.audio.transcriptions.create(model="whisper-1", file=file, response_format="json").text

        assert await trio.to_thread.run_sync(ask) == "so it was said"
        async with open_model(QUICK) as door:
            await door.transcribe(OGG, endpoint=endpoint(model), timeout_s=10)
        theirs, ours = model.heard
        assert theirs.body == ours.body
        assert theirs.path == ours.path


def test_who_transcribes(tmp_path: Path) -> None:
    primary = Endpoint(model="m", base_url="https://one.example/v1", api_key=Secret("one"), proxy="http://p")
    config = config_for(tmp_path, model=ModelConfig(primary=primary))
    assert endpoint_of(config) is None
    named = replace(config, transcription=TranscriptionConfig(model="whisper-1"))
    assert endpoint_of(named) == replace(primary, model="whisper-1")
    own = TranscriptionConfig(model="w", base_url="https://two.example/v1/")
    found = endpoint_of(replace(config, transcription=own))
    assert found is not None
    assert (found.base_url, found.api_key, found.proxy) == ("https://two.example/v1", None, None)
    assert endpoint_of(replace(named, model=ModelConfig())) is None

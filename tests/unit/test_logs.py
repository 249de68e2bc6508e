"""One line an event, in order, redacted, bounded, never in the way."""

from __future__ import annotations

import io
import json
import logging
import stat
import string
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.context import TurnContext
from hermes.observe import sink as sink_module
from hermes.observe.lines import LONGEST_TAKEN, LONGEST_VALUE, Line, error_fields, plain, render
from hermes.observe.logs import EventRecord, Logging, get_log, open_logging
from hermes.observe.redact import Redactor
from hermes.observe.sink import RotatingFile, Sink
from hermes.settings import LoggingConfig, Secret

CONTEXT = TurnContext(
    turn_id="t_1",
    session_id="s_1",
    session_key="api:1",
    principal="local",
    source="chat",
    workspace=Path("/w"),
    may_change=False,
)
AT = 1_795_217_105.25
log = get_log("hermes.tests")


def shown(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


# --- lines -----------------------------------------------------------------------------------------------------------


def test_the_human_form() -> None:
    line = Line(
        AT, 30, "session.turn_failed", {"turn": "t_1", "seconds": 1.25, "text": 'he said "no"', "n": 3, "x": None}
    )
    assert render(line, "human", str) == (
        '2026-11-20T23:25:05.250Z WARNING session.turn_failed turn=t_1 seconds=1.25 text="he said \\"no\\"" n=3 x=-'
    )


def test_the_json_form_and_names_that_are_taken() -> None:
    line = Line(AT, 20, "a.b", {"turn": "t_1", "time": 5, "ok": True, "nan": float("nan")})
    assert json.loads(render(line, "json", str)) == {
        "time": "2026-11-20T23:25:05.250Z",
        "level": "info",
        "event": "a.b",
        "turn": "t_1",
        "_time": 5,
        "ok": True,
        "nan": None,
    }


values = st.one_of(st.text(max_size=60), st.integers(), st.floats(), st.booleans(), st.none(), st.binary(max_size=20))


@given(event=st.text(max_size=30), fields=st.dictionaries(st.text(max_size=20), values, max_size=8))
def test_whatever_is_logged_is_one_line_of_utf8_without_control_characters(event: str, fields: dict[str, Any]) -> None:
    line = Line(AT, 20, event, {name: plain(value) for name, value in fields.items()})
    for form in ("human", "json"):
        text = render(line, form, Redactor(["a-secret-value"]).redact)
        assert len(text.splitlines()) == 1
        assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in text)
        text.encode()
        if form == "json":
            assert json.loads(text)["time"] == "2026-11-20T23:25:05.250Z"


secret_values = st.text(string.ascii_letters + string.digits + "\"'\\/ %é漢=+&:@", min_size=8, max_size=40).filter(
    lambda text: text == text.strip() and len(set(text)) > 4
)


@given(
    secret=secret_values,
    before=st.text(max_size=20),
    after=st.text(max_size=20),
    form=st.sampled_from(["human", "json"]),
)
def test_a_planted_secret_is_in_no_line(secret: str, before: str, after: str, form: Any) -> None:
    redact = Redactor([secret]).redact
    try:
        try:
            raise OSError(f"{before}{secret}{after}")
        except OSError as cause:
            raise ExceptionGroup(secret, [ValueError({"key": secret}), KeyError(secret)]) from cause
    except ExceptionGroup as error:
        fields = error_fields(error)
    fields |= {"plain": f"{before}{secret}{after}", "json": json.dumps(before + secret + after), secret: "as a name"}
    text = render(Line(AT, 40, f"a.{secret}", {name: plain(value) for name, value in fields.items()}), form, redact)
    assert secret not in text
    assert json.dumps(secret)[1:-1] not in text
    assert json.dumps(secret, ensure_ascii=False)[1:-1] not in text
    assert repr(secret)[1:-1] not in text


def test_a_number_can_be_a_secret() -> None:
    line = Line(AT, 20, "a.b", {"pin": 12345678, "port": 8642})
    assert render(line, "human", Redactor(["12345678"]).redact).endswith("a.b pin=*** port=8642")


@pytest.mark.parametrize("offset", [0, 5, 20, 39])
def test_a_secret_at_a_cut_leaves_nothing_of_itself(offset: int) -> None:
    secret = "abcdefghijABCDEFGHIJ0123456789klmnopqrst"
    redact = Redactor([secret]).redact
    for limit in (LONGEST_VALUE, LONGEST_TAKEN):
        value = "x" * (limit - offset) + secret + "y" * 10
        text = render(Line(AT, 20, "a.b", {"value": plain(value)}), "human", redact)
        assert secret[:8] not in text
    covered = f"{secret} " * (LONGEST_TAKEN // 41 + 10)
    text = render(Line(AT, 20, "a.b", {"value": plain("x" * offset + covered)}), "human", redact)
    assert secret[:4] not in text


def test_values_are_bounded() -> None:
    text = render(Line(AT, 20, "a.b", {"long": plain("z" * 1_000_000), "big": plain(10**5000)}), "human", str)
    assert len(text) < LONGEST_VALUE + 200
    many = render(Line(AT, 20, "a.b", {f"n{i}": i for i in range(1000)}), "human", str)
    assert many.count("=") == 40


def test_a_value_is_taken_as_it_is_now() -> None:
    changing = [1]
    value = plain(changing)
    changing.append(2)
    assert value == "[1]"
    assert plain(Secret("hush-hush")) == "Secret(***)"


# --- errors ----------------------------------------------------------------------------------------------------------


def raised(make: Callable[[], BaseException]) -> BaseException:
    try:
        raise make()
    except BaseException as error:  # noqa: ASYNC103  # nothing is awaited here
        return error  # noqa: ASYNC104


def test_an_error_is_its_text_its_place_and_its_causes() -> None:
    def inner() -> None:
        raise ConnectionRefusedError(111, "refused")

    try:
        try:
            inner()
        except OSError as cause:
            raise RuntimeError("no model") from cause
    except RuntimeError as error:
        fields = error_fields(error)
    assert fields["error"] == "RuntimeError: no model"
    assert fields["because"] == "ConnectionRefusedError: [Errno 111] refused"
    assert str(fields["at"]).startswith("tests/unit/test_logs.py:") or "/unit/test_logs.py:" in str(fields["at"])
    assert str(fields["at"]).endswith("test_an_error_is_its_text_its_place_and_its_causes")


def test_a_group_shows_its_leaves() -> None:
    leaves = [ExceptionGroup("in", [raised(lambda: ValueError("a")), OSError("b")]), *(KeyError(n) for n in range(6))]  # type: ignore[list-item]
    fields = error_fields(raised(lambda: ExceptionGroup("out", leaves)))
    assert fields["error"] == "ValueError: a; OSError: b; KeyError: 0; KeyError: 1; KeyError: 2; and 3 more"
    assert "raised" in str(fields["at"])


def test_a_deep_stack_and_an_error_that_cannot_speak_are_bounded() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    def down(depth: int) -> None:
        if depth == 0:
            raise Mute
        down(depth - 1)

    try:
        down(200)
    except Mute as error:
        fields = error_fields(error)
    assert "Mute" in str(fields["error"])
    assert str(fields["at"]).count(" < ") == 9
    assert " < … < " in str(fields["at"])


# --- the file --------------------------------------------------------------------------------------------------------


def test_files_rotate_by_size_and_are_private(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "hermes.log"
    rotating = RotatingFile(path, max_bytes=100, files=2)
    rotating.write([f"line {number:03d} of sixteen" for number in range(20)])
    rotating.close()
    files = sorted(item.name for item in path.parent.iterdir())
    assert files == ["hermes.log", "hermes.log.1", "hermes.log.2"]
    assert all((path.parent / name).stat().st_size <= 100 for name in files)
    together = [line for name in reversed(files) for line in shown(path.parent / name)]
    assert together == [f"line {number:03d} of sixteen" for number in range(20)][-len(together) :]
    assert len(together) >= 8
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_is_continued_and_a_line_larger_than_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for text in ("first", "second"):
        rotating = RotatingFile(path, max_bytes=50, files=1)
        rotating.write([text])
        rotating.close()
    assert shown(path) == ["first", "second"]
    rotating.write(["y" * 200])
    rotating.close()
    assert shown(path) == ["y" * 200]


def test_no_older_files_means_starting_over(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    rotating = RotatingFile(path, max_bytes=10, files=0)
    rotating.write(["12345", "67890"])
    rotating.close()
    assert [item.name for item in tmp_path.iterdir()] == ["x.log"]
    assert shown(path) == ["67890"]


def test_a_file_that_somebody_moved_away_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    rotating = RotatingFile(path, max_bytes=1000, files=1)
    rotating.write(["one"])
    path.rename(tmp_path / "taken")
    rotating.write(["two"])
    rotating.close()
    assert shown(path) == ["two"]


# --- the sink --------------------------------------------------------------------------------------------------------


class Stalling:
    """An output that stalls until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.stalled = threading.Event()
        self.lines: list[str] = []

    def write(self, lines: list[str]) -> None:
        self.stalled.set()
        self.go.wait()
        self.lines += lines

    def close(self) -> None:
        self.lines.append("closed")


def test_a_stalled_output_costs_lines_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "MOST_LINES", 10)
    output = Stalling()
    sink = Sink("stalling", output, "human", 10, str)
    sink.start()
    sink.put(Line(AT, 40, "first.line", {}))
    output.stalled.wait()
    for number in range(25):
        sink.put(Line(AT, 20, "next.line", {"n": number}))
    assert sink.dropped == 15
    output.go.set()
    assert sink.flush(10)
    sink.close(10)
    assert output.lines[0].endswith("first.line")
    assert [line.split("n=")[1] for line in output.lines[1:11]] == [str(number) for number in range(10)]
    assert output.lines[11].endswith("WARNING log.lines_missing dropped=15 lost=0")
    assert len(output.lines) == 13
    assert output.lines[-1] == "closed"


def test_the_queue_is_bounded_by_bytes_too() -> None:
    output = Stalling()
    sink = Sink("stalling", output, "human", 10, str)
    sink.start()
    sink.put(Line(AT, 40, "first.line", {}))
    output.stalled.wait()
    for _ in range(1000):
        sink.put(Line(AT, 20, "large", {"x": "x" * 60_000}))
    assert sink.dropped >= 1000 - sink_module.MOST_BYTES // 60_000
    output.go.set()
    sink.close(10)


def test_an_output_that_fails_is_told_to_the_other_and_later_to_itself(tmp_path: Path) -> None:
    in_the_way = tmp_path / "logs"
    in_the_way.write_text("a file where the directory should be")
    stream = io.StringIO()
    path = in_the_way / "hermes.log"
    with open_logging(LoggingConfig(), path, 0, stream) as logging_now:
        log.info("a.first")
        log.info("a.second")
        assert logging_now.flush(10)
        in_the_way.unlink()
        log.info("a.third")
        assert logging_now.flush(10)
        assert logging_now.missing == 2
    assert 'log.output_failed output="log file"' in stream.getvalue()
    assert stream.getvalue().count("log.output_failed") == 1
    lines = shown(path)
    assert lines[0].endswith("a.third")
    assert "log.lines_missing dropped=0 lost=2" in lines[1]


def test_a_stream_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    stream = io.StringIO()
    stream.close()
    with open_logging(LoggingConfig(), tmp_path / "x.log", 0, stream):
        log.info("a.line")
    assert shown(tmp_path / "x.log")[0].endswith("a.line")


# --- the whole -------------------------------------------------------------------------------------------------------


def test_events_arrive_in_order_with_context_and_error_and_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "hermes.log"
    stream = io.StringIO()
    with open_logging(LoggingConfig(format="json"), path, 0, stream, secrets=[Secret("the-api-key-1")]) as logging_now:
        log.info("session.turn_started", CONTEXT, queue=2)
        logging_now.learn(["another-secret"])
        log.warning(
            "model.failed", CONTEXT, error=raised(lambda: OSError("key the-api-key-1, another-secret")), seconds=0.5
        )
        log.debug("not.shown")
    first, second = map(json.loads, shown(path))
    assert first == {
        "time": first["time"],
        "level": "info",
        "event": "session.turn_started",
        "turn": "t_1",
        "session": "s_1",
        "source": "chat",
        "queue": 2,
    }
    assert second["error"] == "OSError: key ***, ***"
    assert second["at"].endswith(" raised")
    assert stream.getvalue() == path.read_text(encoding="utf-8")


def test_leaving_writes_everything_and_puts_logging_back(tmp_path: Path) -> None:
    root, ours = logging.getLogger(), logging.getLogger("hermes")
    before = list(root.handlers), ours.level, threading.active_count()
    with open_logging(LoggingConfig(level="debug"), tmp_path / "x.log", 0, None):
        for number in range(2000):
            log.debug("a.line", n=number)
    assert (list(root.handlers), ours.level, threading.active_count()) == before
    assert [int(line.rpartition("=")[2]) for line in shown(tmp_path / "x.log")] == list(range(2000))


@pytest.mark.parametrize(
    ("level", "verbosity", "in_file", "on_stream"),
    [
        ("info", 0, "iwe", "iwe"),
        ("info", 1, "diwe", "diwe"),
        ("info", -1, "iwe", "we"),
        ("info", -2, "iwe", "e"),
        ("debug", -1, "diwe", "we"),
        ("error", 0, "e", "e"),
        ("error", -1, "e", "e"),
    ],
)
def test_levels(tmp_path: Path, level: Any, verbosity: int, in_file: str, on_stream: str) -> None:
    stream = io.StringIO()
    with open_logging(LoggingConfig(level=level), tmp_path / "x.log", verbosity, stream):
        for speak in (log.debug, log.info, log.warning, log.error):
            speak(f"event.{speak.__name__}")
    text = (tmp_path / "x.log").read_text(encoding="utf-8") if (tmp_path / "x.log").exists() else ""
    assert "".join(line.rpartition(".")[2][0] for line in text.splitlines()) == in_file
    assert "".join(line.rpartition(".")[2][0] for line in stream.getvalue().splitlines()) == on_stream


def test_a_reload_changes_the_level(tmp_path: Path) -> None:
    with open_logging(LoggingConfig(), tmp_path / "x.log", 0, None) as logging_now:
        log.debug("event.one")
        logging_now.set_level(LoggingConfig(level="debug"), 0)
        log.debug("event.two")
        logging_now.set_level(LoggingConfig(level="warning"), 0)
        log.info("event.three")
    assert [line.split()[2] for line in shown(tmp_path / "x.log")] == ["event.two"]


def test_libraries_speak_from_warning_on_and_are_redacted(tmp_path: Path) -> None:
    url = "https://api.telegram.org/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getUpdates"
    httpx2, openai = logging.getLogger("httpx2"), logging.getLogger("openai._base_client")
    httpx2.setLevel(logging.DEBUG)
    try:
        with open_logging(LoggingConfig(level="debug"), tmp_path / "x.log", 1, None):
            httpx2.info("HTTP Request: GET %s", url)
            httpx2.warning("retrying %s", url)
            openai.debug("request %s", {"headers": {"Authorization": "Bearer abcdefghijkl"}})
            logging.getLogger("hermes.net").debug("plain text of our own, %d", 5)
            logging.getLogger("trio").error("it failed", exc_info=raised(lambda: OSError(url)))
            misfit = logging.LogRecord("other", logging.WARNING, "", 0, "%d pieces", ("no number",), None)
            for handler in logging.getLogger().handlers:
                if type(handler).__module__ == "hermes.observe.logs":
                    handler.handle(misfit)  # pytest's own handlers would raise for it
    finally:
        httpx2.setLevel(logging.NOTSET)
    lines = shown(tmp_path / "x.log")
    assert [line.split(" ", 2)[2].split()[0] for line in lines] == ["httpx2", "DEBUG", "trio", "other"] or len(
        lines
    ) == 4
    text = "\n".join(lines)
    assert 'WARNING httpx2 text="retrying https://api.telegram.org/bot***/getUpdates"' in text
    assert 'hermes.net text="plain text of our own, 5"' in text
    assert 'error="OSError: https://api.telegram.org/bot***/getUpdates"' in text
    assert "AAHdqTcv" not in text
    assert "Request" not in text
    assert "%d pieces (TypeError: " in lines[-1]


def test_a_disabled_level_does_no_work() -> None:
    asked = []

    class Loud:
        def log_fields(self) -> dict[str, object]:
            asked.append(1)
            return {}

    logger = logging.getLogger("hermes.tests")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        log.info("a.line", Loud())
        log.debug("a.line", Loud())
        assert asked == []
        log.warning("a.line", Loud())
        assert asked == [1]
    finally:
        logger.setLevel(before)


def test_other_handlers_can_read_the_event(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("a.line", CONTEXT, n=5)
    assert caplog.messages == ["a.line turn=t_1 session=s_1 source=chat n=5"]
    assert isinstance(caplog.records[0], EventRecord)


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    def speak(name: str) -> None:
        for number in range(300):
            log.info("a.line", who=name, n=number)

    with open_logging(LoggingConfig(), tmp_path / "x.log", 0, None) as logging_now:
        threads = [threading.Thread(target=speak, args=(f"t{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert isinstance(logging_now, Logging)
        assert logging_now.missing == 0
    lines = shown(tmp_path / "x.log")
    assert len(lines) == 1800
    for number in range(6):
        mine = [int(line.rpartition("=")[2]) for line in lines if f"who=t{number} " in line]
        assert mine == list(range(300))

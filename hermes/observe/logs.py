"""Structured events over the standard library's logging: an event name, fields, one line.

    log = get_log(__name__)
    log.warning("session.turn_failed", context, error=exc, seconds=1.2)

A call costs a few microseconds and never blocks: threads render, redact and write. Python's own registry of loggers is
the only state that is shared; `open_logging` puts one handler there and takes it away.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from hermes.observe.lines import Line, Value, error_fields, plain, render
from hermes.observe.redact import Redactor
from hermes.observe.sink import RotatingFile, Sink, Stream
from hermes.settings import LoggingConfig, Secret

OURS = ("hermes", "platforms")  # loggers that follow the configured level; all others speak from WARNING on
CLOSE_S = 3.0


class HasLogFields(Protocol):
    """Anything that lines can be about, such as a TurnContext."""

    def log_fields(self) -> Mapping[str, object]:
        """The fields that each line about it carries."""


class EventRecord(logging.LogRecord):
    """A record of `logging` with an event's fields; `getMessage()` is readable for any other handler."""

    def __init__(self, logger: str, level: int, event: str, fields: Mapping[str, Value]) -> None:
        super().__init__(logger, level, "", 0, event, None, None)
        self.fields = fields

    def getMessage(self) -> str:  # noqa: N802  # the name of the standard library
        """The event and its fields, not redacted: this handler's text is for tests and debuggers."""
        return render(Line(self.created, self.levelno, self.msg, self.fields), "human", str).split(" ", 2)[2].lstrip()


class Log:
    """What a module logs with.

    Args:
        name: the module's name.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(
        self, event: str, about: HasLogFields | None = None, /, *, error: BaseException | None = None, **fields: object
    ) -> None:
        """What helps to find a fault; off by default."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._handle(logging.DEBUG, event, about, error, fields)

    def info(
        self, event: str, about: HasLogFields | None = None, /, *, error: BaseException | None = None, **fields: object
    ) -> None:
        """What happened, as it should.

        Args:
            event: `area.what_happened`, a constant.
            about: adds its `log_fields()` first.
            error: adds its text, place and causes.
            fields: name -> value; a value that is no string, number, bool or None is turned into text at once.
        """
        if self._logger.isEnabledFor(logging.INFO):
            self._handle(logging.INFO, event, about, error, fields)

    def warning(
        self, event: str, about: HasLogFields | None = None, /, *, error: BaseException | None = None, **fields: object
    ) -> None:
        """What went wrong and was dealt with."""
        if self._logger.isEnabledFor(logging.WARNING):
            self._handle(logging.WARNING, event, about, error, fields)

    def error(
        self, event: str, about: HasLogFields | None = None, /, *, error: BaseException | None = None, **fields: object
    ) -> None:
        """What went wrong and needs a person."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._handle(logging.ERROR, event, about, error, fields)

    def _handle(
        self, level: int, event: str, about: HasLogFields | None, error: BaseException | None, fields: dict[str, object]
    ) -> None:
        content: dict[str, Value] = {}
        if about is not None:
            for name, value in about.log_fields().items():
                content[name] = plain(value)
        for name, value in fields.items():
            content[name] = plain(value)
        if error is not None:
            content.update(error_fields(error))
        self._logger.handle(EventRecord(self._logger.name, level, event, content))


def get_log(name: str) -> Log:
    """The log of a module: `log = get_log(__name__)`."""
    return Log(name)


class _Handler(logging.Handler):
    """Turns records into lines and hands them to the sinks that want them."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        super().__init__()
        self._sinks = tuple(sinks)

    def createLock(self) -> None:  # noqa: N802  # the name of the standard library
        """No lock: each sink has its own."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        line = _line_of(record)
        if line is not None:
            for sink in self._sinks:
                if record.levelno >= sink.level:
                    sink.put(line)


def _line_of(record: logging.LogRecord) -> Line | None:
    if isinstance(record, EventRecord):
        return Line(record.created, record.levelno, record.msg, record.fields)
    if record.name.partition(".")[0] not in OURS and record.levelno < logging.WARNING:
        return None  # a library may set its own logger to DEBUG; request lines of HTTP clients hold tokens
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError) as error:  # a library's arguments do not fit its format
        text = f"{record.msg} ({error_fields(error)['error']})"
    fields: dict[str, Value] = {"text": plain(text)}
    if record.exc_info and record.exc_info[1] is not None:
        fields.update(error_fields(record.exc_info[1]))
    return Line(record.created, record.levelno, record.name, fields)


@dataclass(frozen=True, slots=True)
class Logging:
    """The logging of a process, while it is open.

    Args:
        path: the file, or None.
        redactor: takes secrets out of text; others who show text to people use the same.
        sinks: the file's and the stream's.
    """

    path: Path | None
    redactor: Redactor
    sinks: tuple[Sink, ...]

    @property
    def missing(self) -> int:
        """Lines that were dropped because a queue was full, or lost because an output failed."""
        return sum(sink.dropped + sink.lost for sink in self.sinks)

    def learn(self, secrets: Iterable[str | Secret]) -> None:
        """Redact these values too, from now on."""
        self.redactor.learn(secret.reveal() if isinstance(secret, Secret) else secret for secret in secrets)

    def flush(self, within_s: float) -> bool:
        """Wait until what was logged is written; for threads other than the loop's. Returns whether all of it was."""
        written = [sink.flush(within_s) for sink in self.sinks]
        return all(written)

    def set_level(self, config: LoggingConfig, verbosity: int) -> None:
        """Follow a new configuration: the level. The file, its form and its rotation stay until the next start."""
        for sink, level in zip(self.sinks, _levels(config, verbosity, with_file=self.path is not None), strict=False):
            sink.level = level
        _set_loggers(min((sink.level for sink in self.sinks), default=logging.WARNING))


def _levels(config: LoggingConfig, verbosity: int, *, with_file: bool) -> tuple[int, ...]:
    configured = logging.getLevelNamesMapping()[config.level.upper()]
    loud = logging.DEBUG if verbosity > 0 else configured
    on_stream = loud if verbosity >= 0 else max(configured, logging.WARNING if verbosity == -1 else logging.ERROR)
    return (loud, on_stream) if with_file else (on_stream,)


def _set_loggers(level: int) -> None:
    for name in OURS:
        logging.getLogger(name).setLevel(level)


@contextmanager
def open_logging(
    config: LoggingConfig,
    path: Path | None,
    verbosity: int = 0,
    stream: TextIO | None = None,
    *,
    secrets: Iterable[str | Secret] = (),
) -> Iterator[Logging]:
    """Send what is logged to a file that rotates and to a stream, redacted, until the block is left.

    A disk that is full or a stream that is gone costs lines, which are counted and told later, and stops nobody.

    Args:
        config: level, form, size and number of files.
        path: the file, `$HOME/logs/hermes.log`; None for none.
        verbosity: 0 as configured; 1 and more: debug; -1: on the stream only warnings and errors; -2: only errors.
        stream: standard error; None for none.
        secrets: values that must never be written; more may be learned.

    Yields:
        the open logging.

    Lifetime: threads, no tasks, so that it can be outermost, around `trio.run`; leaving it writes what is queued and
    waits for that at most `CLOSE_S` seconds for each output.
    """
    redactor = Redactor(secret.reveal() if isinstance(secret, Secret) else secret for secret in secrets)
    levels = iter(_levels(config, verbosity, with_file=path is not None))
    sinks: list[Sink] = []
    if path is not None:
        rotating = RotatingFile(path, max_bytes=config.max_bytes, files=config.files)
        sinks.append(Sink("log file", rotating, config.format, next(levels), redactor.redact))
    if stream is not None:
        sinks.append(Sink("log stream", Stream(stream), config.format, next(levels), redactor.redact))
    if len(sinks) > 1:
        sinks[0].failed = sinks[1].put
    with ExitStack() as stack:
        for sink in sinks:
            sink.start()
            stack.callback(sink.close, CLOSE_S)
        for name in OURS:
            stack.callback(logging.getLogger(name).setLevel, logging.getLogger(name).level)
        handler = _Handler(sinks)
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        opened = Logging(path, redactor, tuple(sinks))
        opened.set_level(config, verbosity)
        yield opened

"""`hermes serve`: read the configuration, then run the gateway until it is asked to stop."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType

from hermes.cli.running import RESTART, add_home, run_trio
from hermes.config import reload_config
from hermes.gateway_options import Overrides, ServeOptions
from hermes.home import Home
from hermes.loading import loading
from hermes.settings import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_home(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration (default: config.yaml in home)")
    parser.add_argument("--host", metavar="HOST", help="the address to listen on, instead of http.host")
    parser.add_argument("--port", type=_port, metavar="PORT", help="the port to listen on instead of http.port; 0: any")
    parser.add_argument("--replace", action="store_true", help="ask the holder of the home to stop and take over")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="count", default=0, help="log more; twice: more still")
    loudness.add_argument("-q", "--quiet", action="store_true", help="log only warnings and errors")


def run(arguments: argparse.Namespace) -> int:
    """Serve; returns the exit code."""
    options = options_of(arguments)
    config = reload_config(options)
    with loading():
        from hermes.gateway import run_gateway

    _redact_crashes(config)
    if options.replace:
        _say_that_it_waits(Home(config.home))

    async def serve() -> int:
        return await run_gateway(config, options=options, announce=_announce)

    code = run_trio(serve)
    if code == RESTART and not is_managed(config):
        _announce("Starting again")
        # Everything is closed; the lock is free. Python's descriptors are not inherited.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line, no shell
    return code


def is_managed(config: Config) -> bool:
    """Whether a service manager started this process, which sees the exit code and starts it again."""
    return bool(config.surroundings.notify_socket or config.surroundings.invocation_id)


def _say_that_it_waits(home: Home) -> None:
    from hermes.instance import is_held

    with contextlib.suppress(OSError):  # a lock that cannot be opened is told by the start
        if is_held(home):
            _announce("Asking the instance that holds the home to stop; it finishes first what it is answering")


def _announce(line: str) -> None:
    try:
        print(line, flush=True)  # a pipe or a service manager would get it only when the process ends
    except OSError:  # whoever read it has gone, and the gateway serves all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains of the rest when it ends


def options_of(arguments: argparse.Namespace) -> ServeOptions:
    """The command line as a value; paths are made absolute, for the directory may change until a reload."""
    return ServeOptions(
        home=arguments.home.absolute() if arguments.home is not None else None,
        config_file=arguments.config.absolute() if arguments.config is not None else None,
        overrides=Overrides(host=arguments.host, port=arguments.port),
        replace=arguments.replace,
        verbosity=-1 if arguments.quiet else arguments.verbose,
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text)


def _redact_crashes(config: Config) -> None:
    """Let the traceback of a crash show no secret of the configuration."""

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        import traceback as formatting

        from hermes.observe.redact import Redactor, secrets_in

        text = "".join(formatting.format_exception(kind, error, traceback))
        sys.stderr.write(Redactor(secrets_in(config)).redact(text))

    sys.excepthook = show

"""How a gateway was asked for on the command line; kept so that a reload can read everything again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says above every file: None leaves it to the configuration.

    Args:
        host: where to listen instead of `http.host`.
        port: 0 to 65535, instead of `http.port`; 0 lets the system choose.
        workspace: where tools work instead of `workspace`, absolute.
    """

    host: str | None = None
    port: int | None = None
    workspace: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The command line of `hermes serve`.

    Args:
        home: `--home`, or None for `$HERMES_HOME` and its default.
        config_file: `--config`, or None for `config.yaml` in the home.
        overrides: `--host` and `--port`.
        replace: ask the instance that holds the home to stop, and take over.
        verbosity: 0 as configured, 1 and more for `-v`, -1 for `-q`.
    """

    home: Path | None = None
    config_file: Path | None = None
    overrides: Overrides = Overrides()
    replace: bool = False
    verbosity: int = 0

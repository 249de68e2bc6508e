"""The home: one directory that holds everything, its files, its control socket's address and its API key."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hermes.errors import ConfigError, Problem
from hermes.settings import Secret, Surroundings

LONGEST_SOCKET_PATH: Final = 100
"""Bytes; `sun_path` holds 104 on macOS and 108 on Linux, one of them the final NUL (unix(4), unix(7))."""
KEY_BYTES: Final = 32
MIN_KEY: Final = 16
DEFAULT_NAME: Final = ".hermes-gateway"
ANOTHER: Final = "use another (--home or HERMES_HOME)"


@dataclass(frozen=True, slots=True)
class Home:
    """The names of what is in a home; nothing here opens or creates.

    Args:
        path: the directory, absolute and without symlinks.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self.path / "config.yaml"

    @property
    def env_file(self) -> Path:
        """Variables for the configuration."""
        return self.path / ".env"

    @property
    def database(self) -> Path:
        """The store."""
        return self.path / "hermes.db"

    @property
    def lock_file(self) -> Path:
        """What the one instance holds locked."""
        return self.path / "hermes.lock"

    @property
    def api_key_file(self) -> Path:
        """The key that was made because none was configured."""
        return self.path / "api_key"

    @property
    def workspace(self) -> Path:
        """Where tools work unless configured otherwise."""
        return self.path / "workspace"

    @property
    def logs(self) -> Path:
        """The directory of the log and of what was rotated out of it."""
        return self.path / "logs"

    @property
    def log_file(self) -> Path:
        """The log that is being written."""
        return self.logs / "hermes.log"

    @property
    def blobs(self) -> Path:
        """Files that people sent; made when there is the first."""
        return self.path / "blobs"

    @property
    def chat_history(self) -> Path:
        """What was written in `hermes chat`, for its editor."""
        return self.path / "chat_history"

    @property
    def socket_name(self) -> Path:
        """The control socket, or a symlink to it where this path is too long to be bound."""
        return self.path / "hermes.sock"

    @property
    def directories(self) -> tuple[Path, ...]:
        """Everything that a home has as a directory."""
        return (self.workspace, self.path / "memories", self.path / "skills", self.path / "plugins", self.logs)

    def refuse_foreign(self) -> None:
        """Refuse a directory that belongs to hermes-agent, or that is no directory.

        Raises:
            ConfigError: with one problem.
        """
        if os.path.lexists(self.path / "state.db"):
            raise ConfigError(Problem("home", f"{self.path} belongs to hermes-agent (it has a state.db); {ANOTHER}"))
        try:
            about = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise ConfigError(Problem("home", f"cannot be used: {error.strerror}; {ANOTHER}")) from None
        if not stat.S_ISDIR(about.st_mode):
            raise ConfigError(Problem("home", f"{self.path} is not a directory; {ANOTHER}"))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key of a home without a configured one.

    Args:
        key: what clients send as their bearer token.
        made: whether it was made just now, and should be shown to the person who starts the gateway.
    """

    key: Secret
    made: bool


def locate_home(flag: Path | None, environ: Mapping[str, str]) -> Path:
    """Where the home is: `--home`, else `$HERMES_HOME`, else `~/.hermes-gateway`.

    Returns:
        An absolute path without symlinks; nothing needs to be there.

    Raises:
        ConfigError: the path cannot be one.
    """
    user_home = environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    chosen = str(flag) if flag is not None else environ.get("HERMES_HOME", "")
    if chosen == "~" or chosen.startswith("~/"):
        chosen = user_home + chosen[1:]
    try:
        return Path(chosen or f"{user_home}/{DEFAULT_NAME}").resolve()
    except (OSError, RuntimeError, ValueError):
        raise ConfigError(Problem("home", "is not a path that can be used")) from None


def make_home(home: Home) -> None:
    """Create the home (0700) and its directories where they are missing.

    Raises:
        ConfigError: it cannot be created or written, or it is another user's.
    """
    home.refuse_foreign()
    try:
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.path.stat().st_uid != os.geteuid() and os.geteuid() != 0:
            raise ConfigError(Problem("home", f"{home.path} belongs to another user; {ANOTHER}"))
        for directory in home.directories:
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(Problem("home", f"{home.path} cannot be created or written: {error.strerror}")) from None
    if not os.access(home.path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(Problem("home", f"{home.path} cannot be written"))


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file as a whole: readers see the old content or the new, also after a power cut.

    Raises:
        OSError: nothing was changed.
    """
    temporary = _write_beside(path, data, mode)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def ensure_api_key(home: Home) -> ApiKey:
    """The key in the home; made once (mode 0600) however many ask at the same time.

    Raises:
        ConfigError: the file cannot be read or written, or holds no key.
    """
    import secrets

    path = home.api_key_file
    made = False
    try:
        if not path.exists():
            made = _create(path, secrets.token_urlsafe(KEY_BYTES).encode() + b"\n")
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would be waited for
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                os.fchmod(descriptor, 0o600)
            content = file.read(1024)
    except OSError as error:
        raise ConfigError(Problem(path.name, f"cannot be read or made: {error.strerror}")) from None
    key = content.decode("ascii", "replace").strip()
    if len(key) < MIN_KEY or not all("!" <= letter <= "~" for letter in key):
        raise ConfigError(
            Problem(path.name, f"holds no key of {MIN_KEY} or more visible characters; remove the file for a new one")
        )
    return ApiKey(key=Secret(key), made=made)


def place_socket(home: Home, surroundings: Surroundings) -> Path:
    """Make ready the path that the control socket is bound to, without what a dead process left there.

    A path in the home of more than 100 bytes is moved to a 0700 directory under `$XDG_RUNTIME_DIR`, else the temporary
    directory, named by a hash of the home; a symlink in the home leads there for clients with other variables.
    Only the holder of the instance lock may call this.

    Raises:
        ConfigError: no directory can be used.
    """
    wanted = home.socket_name
    try:
        if _fits(wanted):
            wanted.unlink(missing_ok=True)
            return wanted
        for directory in _elsewhere(home, surroundings):
            target = directory / "s"
            if not _fits(target):
                continue
            directory.mkdir(mode=0o700, exist_ok=True)
            if not _private(directory):
                raise ConfigError(Problem("home", "has a long path, and the directory for its socket is not private"))
            target.unlink(missing_ok=True)
            wanted.unlink(missing_ok=True)
            wanted.symlink_to(target)
            return target
    except OSError as error:
        raise ConfigError(Problem("home", f"has no place for its control socket: {error.strerror}")) from None
    raise ConfigError(Problem("home", "has a long path, and there is no shorter one for its control socket"))


def find_socket(home: Home) -> Path | None:
    """The path that a client connects to, or None where no gateway has bound one that can be trusted."""
    wanted = home.socket_name
    if _fits(wanted):
        return wanted
    try:
        target = wanted.readlink()
    except OSError:
        return None
    return target if _private(target.parent) else None


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH


def _elsewhere(home: Home, surroundings: Surroundings) -> tuple[Path, ...]:
    import hashlib

    name = "hermes-" + hashlib.sha256(os.fsencode(home.path)).hexdigest()[:24]
    places = (surroundings.runtime_dir, surroundings.temp_dir, Surroundings().temp_dir)
    return tuple(place / name for place in places if place is not None and place.is_dir())


def _private(directory: Path) -> bool:
    """Whether a directory is really one, ours, and closed to everybody else."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    import secrets

    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _create(path: Path, data: bytes) -> bool:
    """Create a file with its whole content at once; False when somebody else did so first."""
    temporary = _write_beside(path, data, 0o600)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)
    return True


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The directory that file tools may touch. Every path is walked component by component on open descriptors.

No path is ever resolved first and opened afterwards: each component is opened relative to the descriptor before it,
with O_NOFOLLOW; a symbolic link is read and its target walked in its place; `..` goes back to a descriptor that is
already held. So nothing that is swapped while a path is being walked can lead outside. Out of reach inside the
workspace too: the gateway's home (known by its identity, not its name, and by the hard links of its files) and /proc.

All of this blocks, for the time of some system calls: it is for worker threads.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hermes.errors import ToolDenied, ToolError

MAX_PATH = 4096  # characters
MAX_DEPTH = 64  # directories inside one another: each is an open descriptor during the walk
MAX_LINKS = 40  # symbolic links followed in one walk, as in path_resolution(7)
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CLIMB = DIRECTORY | getattr(os, "O_PATH", 0)  # on Linux a directory that may be entered need not be readable

Identity = tuple[int, int]  # device and inode


def identity(about: os.stat_result) -> Identity:
    """What a file is, whatever its name."""
    return about.st_dev, about.st_ino


@dataclass(frozen=True, slots=True)
class Forbidden:
    """What no walk enters: the home, and the file system of /proc, where the process itself can be read."""

    home: Identity | None
    proc: int | None

    def covers(self, about: os.stat_result) -> bool:
        """Whether a directory is one of them."""
        return identity(about) == self.home or about.st_dev == self.proc


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads, as an open directory and a name in it. Valid inside the `with` that made it.

    Args:
        directory: descriptor.
        name: of something in it that is no directory and no symbolic link, or of nothing yet; None = the directory
            itself.
        shown: the path for messages, as it was given.
        forbidden: what is out of reach.
        home: the gateway's home.
    """

    directory: int
    name: str | None
    shown: str
    forbidden: Forbidden
    home: Path

    def open_file(self) -> tuple[int, os.stat_result]:
        """Open the file for reading: its descriptor and what it is. It never waits, whatever the name turns out to be.

        Raises:
            ToolError: not a regular file, or not there.
            ToolDenied: a hard link to a file of the home.
        """
        with explained(self.shown):
            self.check_file()
            descriptor = os.open(
                self.name or ".", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.directory
            )
        try:
            about = os.fstat(descriptor)
            self._refuse(about)  # again: it may have been swapped after the look
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, about

    def check_file(self) -> os.stat_result:
        """What the name stands for, if that is a regular file. Opening anything else can have effects of its own."""
        if self.name is None:
            raise ToolError(f"{self.shown}: is a directory")
        about = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        self._refuse(about)
        return about

    def _refuse(self, about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise ToolError(f"{self.shown}: not a regular file")
        if about.st_nlink > 1 and identity(about) in files_of(self.home):
            raise ToolDenied(f"{self.shown}: a file of the gateway's home")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A root directory and the home that is never part of it.

    Args:
        root: absolute. It may contain the home; it may lie inside it only at or below `home/workspace`.
        home: the gateway's home, absolute.
    """

    root: Path
    home: Path

    @contextmanager
    def place(self, path: str, *, create: bool = False) -> Iterator[Place]:
        """Walk to where a path leads.

        Args:
            path: relative to the root, or absolute and inside it.
            create: make the directories that are missing on the way.

        Raises:
            ToolDenied: it leads outside the workspace or to the home.
            ToolError: a component is missing or no directory, or the path is not one.
        """
        forbidden = Forbidden(_identity_of(self.home), _device_of("/proc"))
        root = self._open_root(forbidden)
        walk = _Walk(self, root, path, forbidden, create=create)
        try:
            with explained(path):
                name = walk.go(self.parts(path))
            yield Place(walk.held[-1], name, path, forbidden, self.home)
        finally:
            for descriptor in walk.held:
                os.close(descriptor)

    def open_directory(self, path: str) -> int:
        """The descriptor of a directory of the workspace; the caller closes it. Raises as `place` does."""
        with self.place(path) as place:
            if place.name is not None:
                raise ToolError(f"{path}: no such directory")
            return os.dup(place.directory)

    def _open_root(self, forbidden: Forbidden) -> int:
        with explained(str(self.root)):
            root = os.open(self.root, DIRECTORY & ~os.O_NOFOLLOW)
        try:
            self._check_root(root, forbidden)
        except BaseException:
            os.close(root)
            raise
        return root

    def _check_root(self, root: int, forbidden: Forbidden) -> None:
        """Climb from the root to `/`: if the home is on the way, the step below it must be `workspace`."""
        about = os.fstat(root)
        if forbidden.covers(about):
            raise ToolDenied("the gateway's home, or /proc, cannot be a workspace")
        allowed = _identity_of(self.home / "workspace")
        below, climbing = identity(about), os.dup(root)
        try:
            while True:
                above = os.open("..", CLIMB, dir_fd=climbing)
                os.close(climbing)
                climbing = above
                here = identity(os.fstat(climbing))
                if here == below:
                    return
                if here == forbidden.home and below != allowed:
                    raise ToolDenied("a workspace cannot lie inside the gateway's home")
                below = here
        except PermissionError:
            # Above this nobody may look. Names have to do.
            if self.root.resolve().is_relative_to(self.home.resolve() / "workspace"):
                return
            if self.root.resolve().is_relative_to(self.home.resolve()):
                raise ToolDenied("a workspace cannot lie inside the gateway's home") from None
        finally:
            os.close(climbing)

    def parts(self, path: str) -> tuple[str, ...]:
        """The components of a path, relative to the root; `..` is kept."""
        if not path or "\0" in path or len(path) > MAX_PATH:
            raise ToolError("a path must have 1 to 4096 characters and no NUL")
        pure = PurePosixPath(path)
        if not pure.is_absolute():
            return pure.parts
        for root in (self.root, self.root.resolve()):
            if pure.is_relative_to(root):
                return pure.relative_to(root).parts
        raise ToolDenied(f"{path}: outside the workspace")


class _Walk:
    """One walk: the descriptors of the directories from the root to where it is."""

    def __init__(self, workspace: Workspace, root: int, path: str, forbidden: Forbidden, *, create: bool) -> None:
        self.workspace = workspace
        self.held = [root]
        self.path = path
        self.forbidden = forbidden
        self.create = create
        self.links = 0

    def go(self, parts: tuple[str, ...]) -> str | None:
        """Walk; the name that is left over when the end is no directory."""
        pending = deque(parts)
        while pending:
            part = pending.popleft()
            if part == "..":
                if len(self.held) == 1:
                    raise ToolDenied(f"{self.path}: outside the workspace")
                os.close(self.held.pop())
                continue
            try:
                self._enter(part)
            except FileNotFoundError:
                if not pending:
                    return part
                if not self.create:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=self.held[-1])
                pending.appendleft(part)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                target = self._link(part)
                if target is not None:
                    pending.extendleft(reversed(target))
                elif pending:
                    raise
                else:
                    return part
        return None

    def _enter(self, part: str) -> None:
        if len(self.held) > MAX_DEPTH:
            raise ToolError(f"{self.path}: more than {MAX_DEPTH} directories deep")
        descriptor = os.open(part, DIRECTORY, dir_fd=self.held[-1])
        self.held.append(descriptor)
        if self.forbidden.covers(os.fstat(descriptor)):
            raise ToolDenied(f"{self.path}: out of reach, a file of the gateway itself")

    def _link(self, part: str) -> tuple[str, ...] | None:
        """The components to walk in place of a symbolic link; None if it is none."""
        try:
            target = os.readlink(part, dir_fd=self.held[-1])
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise
        self.links += 1
        if self.links > MAX_LINKS:
            raise ToolError(f"{self.path}: too many symbolic links")
        if target.startswith("/"):
            parts = self.workspace.parts(target)
            while len(self.held) > 1:
                os.close(self.held.pop())
            return parts
        return PurePosixPath(target).parts


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Turn an error of the system into one that a model can act on."""
    try:
        yield
    except OSError as error:
        reason = "no such file or directory" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise ToolError(f"{shown}: {reason[:1].lower()}{reason[1:]}") from None
    except UnicodeEncodeError:
        raise ToolError("a path must be valid Unicode") from None


def _identity_of(path: Path) -> Identity | None:
    with suppress(OSError):
        return identity(path.stat())
    return None


def _device_of(path: str) -> int | None:
    with suppress(OSError):
        return Path(path).stat().st_dev
    return None


def files_of(home: Path) -> set[Identity]:
    """The files directly in the home: the database with its companions, the key, the configuration."""
    with suppress(OSError), os.scandir(home) as entries:
        return {identity(entry.stat(follow_symlinks=False)) for entry in entries}
    return set()

"""Which platforms there are: entry points of installed packages, and files in the home. Found without importing any of them."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import MappingProxyType

from hermes.platform import CONTRACT, PlatformSpec

GROUP = "hermes.platforms"
ATTRIBUTE = "platform"
MARK = "__hermes_file__"  # on a module: which state of which file it was made from
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")


class BadPlugin(Exception):
    """A platform that cannot be used; the text says why, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPlatform:
    """A platform that could be loaded.

    Args:
        name: what `platform:` calls it.
        where: the package or the file it is in, for people.
        load: imports it; raises BadPlugin.
    """

    name: str
    where: str
    load: Callable[[], PlatformSpec[object]]


def find_platforms(home: Path) -> Mapping[str, FoundPlatform]:
    """Every platform by its name. A file in the home wins over an installed package, since it was put there on purpose.

    Of two packages with one name neither is used: nobody has said which.

    Args:
        home: whose `plugins/platforms/*.py` are looked at.
    """
    from importlib.metadata import entry_points  # takes milliseconds: only who needs platforms pays

    found: dict[str, FoundPlatform] = {}
    for point in entry_points(group=GROUP):
        if _NAME.match(point.name):
            where = f"the package {point.value.partition(':')[0]}"
            before = found.get(point.name)
            if before is None:
                found[point.name] = FoundPlatform(name=point.name, where=where, load=_loader(point.name, point.load))
            elif before.where != where:  # one package may be seen twice, by two entries of the path
                found[point.name] = _ambiguous(point.name, before.where, where)
    for path in sorted((home / "plugins" / "platforms").glob("*.py")):
        if _NAME.match(path.stem):
            hidden = found.get(path.stem)
            found[path.stem] = FoundPlatform(
                name=path.stem, where=str(path) + (f" (in place of {hidden.where})" if hidden else ""),
                load=_loader(path.stem, partial(_load_file, path)),
            )  # fmt: skip
    return MappingProxyType(found)


def _ambiguous(name: str, one: str, other: str) -> FoundPlatform:
    def load() -> PlatformSpec[object]:
        raise BadPlugin(f"are both called {name}: uninstall one of them")

    return FoundPlatform(name=name, where=f"{one} and {other}", load=load)


def _loader(name: str, load: Callable[[], object]) -> Callable[[], PlatformSpec[object]]:
    def checked() -> PlatformSpec[object]:
        try:
            spec = load()
        except BadPlugin:
            raise
        except Exception as error:
            raise BadPlugin(f"cannot be loaded: {type(error).__name__}: {str(error)[:300]}") from error
        if not isinstance(spec, PlatformSpec):
            raise BadPlugin(f"has no `{ATTRIBUTE} = PlatformSpec(...)`")
        if spec.contract != CONTRACT:
            raise BadPlugin(
                f"was written for version {spec.contract} of the platform contract; this is version {CONTRACT}"
            )
        if spec.name != name:
            raise BadPlugin(f"calls itself {spec.name!r}, and is found as {name!r}")
        return spec

    return checked


def _load_file(path: Path) -> object:
    """Run a file of the home. It must be as private as the home is: whoever can write it runs code as us."""
    for each in (path, path.parent, path.parent.parent):
        status = each.stat()
        if status.st_uid not in (os.getuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            what = "can be written by others" if each == path else f"is in {each}, which can be written by others"
            raise BadPlugin(f"{what}; `chmod go-w` it, and see that it is yours")
    name = f"hermes_plugin_{path.stem.replace('-', '_')}"
    status = path.stat()
    mark = (str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    known = sys.modules.get(name)
    if getattr(known, MARK, None) == mark:  # a reload finds what it had, so that its accounts are not taken for changed
        return getattr(known, ATTRIBUTE, None)
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, MARK, mark)
    sys.modules[name] = module  # where dataclasses and type hints look for what their module's names mean
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return getattr(module, ATTRIBUTE, None)

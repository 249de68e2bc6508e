"""`hermes platform new`: the plugin is installed into a fresh environment, found there, passes its own test, and is served."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from hermes.cli.platform_new import render
from hermes.testing import refusing_port
from hermes.testing.gateway_process import hermes, open_gateway_process, until, write_config

ROOT = Path(__file__).parents[2]


def test_the_skeleton_is_what_the_tutorial_explains() -> None:
    """The same code, but for names: the page explains each line of it."""
    page = (ROOT / "docs" / "tutorial" / "write-a-platform.md").read_text(encoding="utf-8")
    (told, _) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for word, skeleton in (
        ("PostboxConfig", "Settings"), ("class Postbox:", "class Connection:"), ("postbox = Postbox(", "connection = Connection("),
        ("await postbox.call", "await connection.call"), ("yield postbox", "yield connection"),
        ("open_postbox", "open_connection"),
    ):  # fmt: skip
        assert word in told
        told = told.replace(word, skeleton)
    assert render("postbox")["hermes_postbox.py"] == told


@pytest.mark.parametrize("name", ["a", "host", "platform", "my-chat_2"])
def test_whatever_the_name_is_its_files_are_python(name: str) -> None:
    for path, text in render(name).items():
        assert "@" not in re.sub(r"^@\w+(\.\w+)*(\(.*)?$", "", text, flags=re.MULTILINE)
        if path.endswith(".py"):
            compile(text, path, "exec")


async def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name, words in (("Bad", "no name"), ("7up", "no name"), ("telegram", "there is a platform telegram already")):
        done = await hermes(home, "platform", "new", name, "--into", str(tmp_path))
        assert (done.returncode, words in done.stderr) == (1, True)
    (tmp_path / "hermes-parrot").mkdir()
    done = await hermes(home, "platform", "new", "parrot", "--into", str(tmp_path))
    assert done.returncode == 1
    assert "cannot be written: File exists" in done.stderr
    assert not list((tmp_path / "hermes-parrot").iterdir())


def fresh_environment(place: Path) -> Path:
    """A virtual environment that sees what this one has, pip and setuptools included; returns its interpreter."""
    venv.create(place, with_pip=False, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    seen = [each for each in (str(ROOT), *sys.path) if Path(each).is_dir() and each not in own]
    (packages / "seen.pth").write_text("\n".join(seen))
    return place / "bin" / "python"


def run(*words: str | Path, at: Path) -> str:
    done = subprocess.run([str(each) for each in words], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.wall_clock_s(240)
async def test_a_new_plugin_in_a_fresh_environment(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = await hermes(home, "platform", "new", "parrot", "--into", str(tmp_path))
    assert made.returncode == 0, made.stderr
    plugin = tmp_path / "hermes-parrot"
    files = sorted(str(each.relative_to(plugin)) for each in plugin.rglob("*") if each.is_file())
    assert files == ["README.md", "hermes_parrot.py", "pyproject.toml", "tests/test_parrot.py"]

    python = fresh_environment(tmp_path / "venv")
    assert "parrot" not in run(python, "-m", "hermes", "platform", "list", "--home", home, at=tmp_path)
    run(
        python,
        "-m",
        "pip",
        "install",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        plugin,
        at=tmp_path,
    )
    plugin.joinpath("hermes_parrot.py").rename(tmp_path / "aside.py")  # what is found is what was installed

    listed = json.loads(run(python, "-m", "hermes", "platform", "list", "--home", home, "--json", at=tmp_path))
    (parrot,) = [each for each in listed if each["name"] == "parrot"]
    assert parrot["where"] == "the package hermes_parrot"
    assert [each["name"] for each in parrot["settings"]] == ["token", "base_url"]
    assert "9 passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", at=plugin)

    with refusing_port() as port:
        write_config(home, {"platforms": {"parrot": {"token": "x", "base_url": f"http://127.0.0.1:{port}"}}})
        instead = ("sh", "-c", 'shift; exec "$0" "$@"', str(python))  # the fresh interpreter in place of this one
        async with open_gateway_process(home, wrap=instead, more={"PYTHONPATH": ""}) as gateway:

            async def tried() -> bool:
                account = (await gateway.status())["accounts"]["parrot"]
                return bool(account["state"] not in ("connected", "starting", "new") and account["words"])

            await until(tried, "the account of the plugin")
            assert await gateway.terminate() == 0

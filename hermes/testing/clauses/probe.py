"""What importing a platform's module does, seen in a process of its own: what it loads, opens and starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hermes.testing.clauses.subject import Subject

LIGHT = frozenset(("hermes", "msgspec", "trio"))  # beside the standard library and the platform itself
HEAVY_STANDARD = frozenset(("asyncio", "multiprocessing", "sqlite3", "tkinter", "unittest", "http.server", "xmlrpc"))
LONGEST_S = 60.0

SCRIPT = """
import importlib, importlib.util, json, sys, threading
import hermes.platform, hermes.discovery
name, path, folders = json.loads(sys.argv[1])
sys.path[:0] = folders
seen, on = [], True
EVENTS = ("socket.", "subprocess.", "os.system", "os.putenv", "os.unsetenv", "os.fork", "sqlite3.", "urllib.", "ssl.")
def look(event, args):
    if on and event.startswith(EVENTS):
        seen.append(event)
    elif on and event == "open" and not str(args[0]).endswith((".py", ".pyc", ".so", ".dylib", ".zip", ".pth", ".cfg")):
        seen.append("open " + str(args[0])[-100:])
before, threads = set(sys.modules), threading.active_count()
sys.addaudithook(look)
if path:
    made = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(made)
    sys.modules[name] = module
    made.loader.exec_module(module)
else:
    importlib.import_module(name)
on = False
print(json.dumps([sorted(set(sys.modules) - before), seen, threading.active_count() - threads]))
"""


def what_importing_does(subject: Subject) -> list[str]:
    """What is wrong with it, in words; nothing is imported here."""
    name = subject.spec.open.__module__
    module = sys.modules.get(name)
    file = str(subject.sources[0] if subject.sources else getattr(module, "__file__", ""))
    package = str(getattr(module, "__package__", "") or "") if not subject.sources else ""
    argument = json.dumps([name, "" if package else file, sys.path])
    done = subprocess.run(  # noqa: S603  # our own interpreter and script
        [sys.executable, "-c", SCRIPT, argument], capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    if done.returncode:
        return [f"{Path(file).name} cannot be imported by itself: {done.stderr.strip().splitlines()[-1][:300]}"]
    loaded, events, threads = json.loads(done.stdout.splitlines()[-1])
    own = (package or name).partition(".")[0]
    found = [f"importing it does {event}" for event in dict.fromkeys(events)]
    if threads:
        found.append(f"importing it starts {threads} thread(s)")
    heavy = sorted({_heavy(each, own) for each in loaded} - {""})
    if heavy:
        found.append(f"importing it loads {', '.join(heavy)}; import that where it is used, inside `open`")
    return found


def _heavy(module: str, own: str) -> str:
    top = module.partition(".")[0]
    if module in HEAVY_STANDARD or top in HEAVY_STANDARD:
        return module if module in HEAVY_STANDARD else top
    if top in sys.stdlib_module_names or top in LIGHT or top == own or top.startswith(("_", "hermes_plugin_")):
        return ""
    return top

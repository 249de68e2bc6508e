"""`hermes pairing`: who wrote without being let in, who was let in, and changing that."""

from __future__ import annotations

import argparse
from typing import Any

from hermes.cli.running import DONE, add_home, add_json, ask, in_words, print_json, when


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("list", "who waits to be let in, and who was"),
        ("approve", "let in whoever was told a code"),
        ("revoke", "let a person in no more"),
    ):
        action = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
        if name != "list":
            action.add_argument("account", help="its id in the configuration")
        if name == "approve":
            action.add_argument("code", help="as the person was told it")
        if name == "revoke":
            action.add_argument("person", help="the id, as `list` shows it")
        add_home(action)
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """List, approve or revoke."""
    body: dict[str, str] = {}
    if arguments.action != "list":
        body["account"] = arguments.account
    if arguments.action == "approve":
        body["code"] = arguments.code
    if arguments.action == "revoke":
        body["person"] = arguments.person
    answer = ask(arguments, "POST", f"/control/pairing-{arguments.action}", body)
    if arguments.json:
        print_json(answer)
    elif arguments.action == "list":
        _show(answer)
    else:
        done = "may talk to" if arguments.action == "approve" else "may talk no more to"
        print(f"{in_words(answer['person'])} {done} {in_words(answer['account'])}")
    return DONE


def _show(answer: Any) -> None:
    for each in answer["waiting"]:
        print(f"waits    {in_words(each['account'])}  {in_words(each['person'])}  until {when(each['expires_at'])}")
    for each in answer["allowed"]:
        print(f"allowed  {in_words(each['account'])}  {in_words(each['person'])}  since {when(each['since'])}")
    if not answer["waiting"] and not answer["allowed"]:
        print("nobody waits, and nobody was let in by a code")

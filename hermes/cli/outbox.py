"""`hermes outbox`: what is to be delivered, and what could not be."""

from __future__ import annotations

import argparse

from hermes.cli.running import DONE, add_home, add_json, ask, in_words, print_json, when


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("list", "what is on its way, and what did not arrive"),
        ("retry", "send a part after all that did not arrive"),
        ("drop", "give up a part that waits or is held, forget one that was rejected"),
    ):
        action = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
        if name == "list":
            action.add_argument("--account", metavar="ACCOUNT", help="of this account alone")
        else:
            action.add_argument("key", help="the part, as `list` names it")
        add_home(action)
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """List, retry or drop."""
    if arguments.action != "list":
        answer = ask(arguments, "POST", f"/control/outbox-{arguments.action}", {"key": arguments.key})
        if arguments.json:
            print_json(answer)
        else:
            print("it is sent again" if arguments.action == "retry" else "given up")
        return DONE
    answer = ask(arguments, "POST", "/control/outbox", {"account": arguments.account} if arguments.account else {})
    if arguments.json:
        print_json(answer)
        return DONE
    for part in answer["parts"]:
        why = f" ({in_words(part['reason'])})" if part.get("reason") else ""
        print(f"{part['key']}  {when(part['created_at'])}  {in_words(part['address'])}  {part['state']}{why}")
        print(f"    {_preview(part['text'])}")
    if answer["parts"]:
        print("`hermes outbox retry KEY` sends what was rejected or is held, `drop KEY` gives it up")
    else:
        print("nothing is on its way, and everything has arrived")
    return DONE


def _preview(text: str) -> str:
    """A part's text on one line, without what a service reads as bold and the like."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())

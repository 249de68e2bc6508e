"""What the control socket can ask about people: who waits to be let in, letting one in, and taking that back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict

from hermes.control import Action
from hermes.errors import RequestError
from hermes.events import MAX_ID
from hermes.http.services import Json
from hermes.observe.logs import get_log
from hermes.store import Store

log = get_log(__name__)

MAX_CODE = 64


def pairing_actions(store: Store, accounts: Callable[[], Collection[str]]) -> Mapping[str, Action]:
    """Name -> what `POST /control/{name}` does.

    Args:
        accounts: ids of those that are configured now.
    """

    async def listed(_body: Json) -> Json:
        waiting, allowed = await store.accounts.pairings()
        return {"waiting": [asdict(each) for each in waiting], "allowed": [asdict(each) for each in allowed]}

    async def approve(body: Json) -> Json:
        account, code = _account(body, accounts()), body.get("code")
        if not isinstance(code, str) or not code.isascii() or not 0 < len(code) <= MAX_CODE:
            raise RequestError(400, "code must be what the person was told", param="code")
        person = await store.accounts.approve(account, code)
        log.info("pairing.approved", account=account, person=person)
        return {"account": account, "person": person, "allowed": True}

    async def revoke(body: Json) -> Json:
        # An account that is configured no more is taken, too: what it left behind must not come back with it.
        account, person = _text(body, "account"), _text(body, "person")
        if not await store.accounts.revoke(account, person):
            raise RequestError(
                404, f"{person!r} was not let in at {account!r}", code="person_not_found", param="person"
            )
        log.info("pairing.revoked", account=account, person=person)
        return {"account": account, "person": person, "allowed": False}

    return {"pairing-list": listed, "pairing-approve": approve, "pairing-revoke": revoke}


def _account(body: Json, known: Collection[str]) -> str:
    account = _text(body, "account")
    if account not in known:
        words = f"there is no account {account!r} (there are: {', '.join(sorted(known)) or 'none'})"
        raise RequestError(404, words, code="account_not_found", param="account")
    return account


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or not value.isprintable():
        raise RequestError(400, f"{name} must be text of 1 to {MAX_ID} characters", param=name)
    return value

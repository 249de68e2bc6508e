"""What the control socket can ask about accounts: retry one, send a text, look through what is to be delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from hermes.control import Action
from hermes.delivery import Delivery
from hermes.errors import AccountDown, RequestError, ToolError
from hermes.events import Address
from hermes.http.services import Json
from hermes.messaging import Messaging
from hermes.outgoing import MAX_FILES
from hermes.store import Store
from hermes.store.outbox import Added

MAX_TEXT = 100_000
MAX_LISTED = 500


def account_actions(store: Store, messaging: Messaging) -> Mapping[str, Action]:
    """Name -> what `POST /control/{name}` does."""

    async def retry(body: Json) -> Json:
        account = _text(body, "account")
        if messaging.connections is None or messaging.connections.table.get(account) is None:
            raise _no_account(messaging, account, "account")
        return {"account": account, "tried": messaging.connections.retry(account)}

    async def send(body: Json) -> Json:
        to, files = _text(body, "to"), _paths(body)
        text = _text(body, "text") if not files or body.get("text") else ""
        if not text.strip() and not files:
            raise RequestError(400, "there is nothing to send", param="text")
        address = await _find_address(store, messaging, to)
        if files:
            added = await _send_files(messaging, address, files, text)
        else:
            added = await _delivery(messaging).post(address, messaging.parts(address, text), source="send")
        if added.gone is not None:
            raise RequestError(409, f"nobody is there: {added.gone}", code="address_gone", param="to")
        return {"to": str(added.address), "keys": list(added.keys)}

    async def outbox(body: Json) -> Json:
        account = body.get("account")
        if account is not None and not isinstance(account, str):
            raise RequestError(400, "account must be a string", param="account")
        rows = await store.outbox.listing(limit=MAX_LISTED, account=account)
        if account is not None and not rows and not any(each.account == account for each in messaging.accounts()):
            raise _no_account(messaging, account, "account")  # one that was removed may have left parts
        return {"parts": [asdict(row) | {"address": str(row.address)} for row in rows]}

    async def outbox_retry(body: Json) -> Json:
        key = _text(body, "key")
        if not await _delivery(messaging).retry(key):
            raise RequestError(404, f"no part {key!r} was rejected or is held", code="part_not_found", param="key")
        return {"key": key, "retried": True}

    async def outbox_drop(body: Json) -> Json:
        key = _text(body, "key")
        if not await store.outbox.drop(key):
            raise RequestError(
                404, f"no part {key!r} waits, is held or was rejected", code="part_not_found", param="key"
            )
        return {"key": key, "dropped": True}

    return {
        "account-retry": retry, "send": send, "outbox": outbox, "outbox-retry": outbox_retry, "outbox-drop": outbox_drop,
    }  # fmt: skip


async def _find_address(store: Store, messaging: Messaging, text: str) -> Address:
    """Where `to` says: a chat, or the place that an account's people chose by /sethome."""
    address = parse_address(text) if ":" in text else None
    account = text if address is None else address.account
    try:
        messaging.capabilities(account)
    except AccountDown:
        raise _no_account(messaging, account, "to") from None
    address = address or await store.conversations.home(account)
    if address is None:
        words = f"nobody has typed /sethome in a chat of {account}: do that, or name the chat as {account}:CHAT"
        raise RequestError(409, words, code="no_home", param="to")
    return address


def _no_account(messaging: Messaging, account: str, param: str) -> RequestError:
    known = ", ".join(sorted(each.account for each in messaging.accounts())) or "none"
    words = f"there is no account {account!r} (there are: {known})"
    return RequestError(404, words, code="account_not_found", param=param)


def parse_address(text: str) -> Address:
    """`account:chat` or `account:chat:thread` as an address.

    Raises:
        RequestError: 400, it is none.
    """
    account, colon, rest = text.partition(":")
    chat, more, thread = rest.partition(":")
    if not account or not colon or not chat or (more and not thread) or len(text) > 1100:
        raise RequestError(400, "where to is written as account:chat or account:chat:thread", param="to")
    return Address(account, chat, thread or None)


async def _send_files(messaging: Messaging, to: Address, paths: list[str], text: str) -> Added:
    _delivery(messaging)
    assert messaging.outgoing is not None
    try:
        return await messaging.outgoing.send(to, paths, text)
    except ToolError as error:
        raise RequestError(400, str(error), code="file_not_sent", param="files") from None


def _paths(body: Json) -> list[str]:
    value = body.get("files") or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or len(value) > MAX_FILES:
        raise RequestError(400, f"files must be a list of at most {MAX_FILES} paths", param="files")
    return value


def _delivery(messaging: Messaging) -> Delivery:
    if messaging.delivery is None:
        raise RequestError(409, "this gateway has no accounts: it is inside `hermes chat`", code="no_accounts")
    return messaging.delivery


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise RequestError(400, f"{name} must be text of 1 to {MAX_TEXT} characters", param=name)
    return value

"""A Telegram Bot API server for tests: real HTTP on the loopback, the service's rules, and its bad days on request.

In a test: `async with open_fake_telegram() as telegram:`, then `telegram.write(1, "hello")` and look at `telegram.shown`. That it
behaves like the service is proven by the service's own client library, which is run against it.
"""

from __future__ import annotations

import email
import json
import math
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from hermes.nurseries import open_background_nursery
from hermes.testing.fake_telegram_methods import METHODS, Shown, TelegramError
from hermes.testing.fake_telegram_webhook import push_updates
from hermes.testing.wire_server import WireAnswer, WireRequest, json_answer, open_wire_server

TOKEN = "4242:AAfake-token-of-the-tests"  # noqa: S105 - opens nothing
MAX_HOLD_S = 50.0  # the service holds no poll longer
FUTURE = 10  # an offset further beyond what it has counts as none there
BOT = {"id": 4242, "is_bot": True, "first_name": "Hermes", "username": "hermes_test_bot"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a call gets in place of its answer.

    Args:
        code, description, parameters: an error answer.
        cut_after: the answer is cut after so many bytes.
        hang: no answer at all.
        body: this instead of JSON, with `code`.
        done: the call has its effect all the same.
    """

    code: int = 0
    description: str = "scripted"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cut_after: int | None = None
    hang: bool = False
    body: bytes | None = None
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call as it came: the method and its parameters as JSON values, uploads as `(file name, bytes)`."""

    method: str
    params: dict[str, Any]
    at: float


class FakeTelegram:
    """The service for one bot.

    Attributes:
        port: where it serves.
        shown: (chat, message id) -> what people see, in the order in which it was made.
        calls: every call that was understood.
        faults: method -> what its next calls get; the name `*` stands for all methods, `file` for downloads.
        standing: the same for all calls until it is taken away.
        limits: chat (as text; `*` for all) -> until when it takes nothing; `early` counts who came before.
        polling: polls held now; `most_polling` of them at once so far.
        updates: not confirmed yet.
        webhook: what was set; `hook` is what is known of it, `retry_s` the first pause after it did not
            take an update, `longest_retry_s` the longest.
        commands: what was registered.
        files: file id -> (path, bytes).
        gone: chat (as text) -> the error that it answers with, or `moved <its new id>`.
        pressed: the queries of buttons that were answered.
        reactions: (chat, message id) -> the emoji of the bot there, also on what people wrote; empty = taken back.
        refused: calls with another token.
        down: every call is answered 502, after it was counted.
    """

    def __init__(self) -> None:
        self.port = 0
        self.token = TOKEN
        self.shown: dict[tuple[int | str, int], Shown] = {}
        self.calls: deque[Call] = deque(maxlen=100_000)
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.updates: deque[dict[str, Any]] = deque()
        self.polling = 0
        self.most_polling = 0
        self.standing: dict[str, Fault] = {}
        self.limits: dict[str, float] = {}
        self.early = 0
        self.webhook = ""
        self.hook: dict[str, Any] = {}
        self.retry_s = 1.0
        self.longest_retry_s = 60.0
        self.commands: list[Any] = []
        self.files: dict[str, tuple[str, bytes]] = {}
        self.gone: dict[str, str] = {}
        self.pressed: list[str] = []
        self.reactions: dict[tuple[int | str, int], list[str]] = {}
        self.confirmed = 0
        self.refused = 0
        self.down = False
        self.counts: Counter[str] = Counter()
        self._next_update = 1000
        self._next_message = 1
        self._recent: deque[dict[str, Any]] = deque(maxlen=1000)
        self._lot = trio.lowlevel.ParkingLot()
        self._seen = trio.lowlevel.ParkingLot()
        self._poll = 0

    @property
    def base_url(self) -> str:
        """What to configure as `base_url`."""
        return f"http://127.0.0.1:{self.port}"

    def fail(self, method: str, *faults: Fault) -> None:
        """What the next calls of a method get."""
        self.faults[method].extend(faults)

    def write(self, user: int, text: str = "", *, chat: dict[str, Any] | None = None, **fields: Any) -> int:
        """Somebody writes; the update's number.

        Args:
            user: the person's id.
            chat: where; a direct message by default.
            fields: of the message, beside or in place of the usual ones.
        """
        message = {
            "message_id": self.next_message(), "date": 1_700_000_000, "chat": chat or {"id": user, "type": "private"},
            "from": {"id": user, "is_bot": False, "first_name": f"Person {user}"},
        }  # fmt: skip
        if text:
            message["text"] = text
        return self.push({"message": {**message, **fields}})

    def press(self, user: int, shown: dict[str, Any], label: str) -> str:
        """Somebody presses the button under a message of the bot whose label begins so; the query's id."""
        data = next(
            each["callback_data"]
            for row in shown["reply_markup"]["inline_keyboard"] for each in row if each["text"].startswith(label)
        )  # fmt: skip
        query = f"query-{self._next_update}"
        self.push({"callback_query": {
            "id": query, "from": {"id": user, "is_bot": False, "first_name": f"Person {user}"}, "message": shown,
            "chat_instance": "1", "data": data,
        }})  # fmt: skip
        return query

    def push(self, update: dict[str, Any], *, number: int | None = None) -> int:
        """Have any update delivered; its number."""
        if number is None:
            number, self._next_update = self._next_update, self._next_update + 1
        self._queue({"update_id": number, **update})
        return number

    def repeat(self, *numbers: int) -> None:
        """Have updates delivered once more, in this order, as they were: what is confirmed comes back, what waits is doubled."""
        known = {each["update_id"]: each for each in self._recent}
        for number in numbers:
            self._queue(known[number])

    def _queue(self, update: dict[str, Any]) -> None:
        self.updates.append(update)
        self._recent.append(update)
        self._lot.unpark_all()

    def limit(self, chat: int | str, for_s: float) -> None:
        """Take nothing more for a chat, or with `*` for any, and say so, for so many seconds."""
        self.limits[str(chat)] = trio.current_time() + for_s

    async def changed(self) -> None:
        """Wait until something is queued, set or confirmed."""
        await self._lot.park()

    def notify(self) -> None:
        """Wake whoever waits for a change."""
        self._lot.unpark_all()

    def next_message(self) -> int:
        """A new message id."""
        self._next_message += 1
        return self._next_message

    def texts(self, chat: int | str) -> list[str]:
        """The words that people see in a chat of what the bot wrote."""
        return [each.text for (where, _), each in self.shown.items() if where == chat]

    async def something_shown(self) -> None:
        """Wait until a call has shown something."""
        await self._seen.park()

    async def handle(self, request: WireRequest) -> WireAnswer:
        """Answer one request."""
        parts = request.path.strip("/").split("/")
        if parts[0] == "file" and parts[1] == f"bot{self.token}":
            if (fault := self._fault("file")) is not None:
                return _faulty(fault, None)
            found = dict(self.files.values()).get("/".join(parts[2:]))
            return json_answer({}, 404) if found is None else WireAnswer(body=found)
        if not parts[0].startswith("bot") or len(parts) != 2:
            return _error(404, "Not Found")
        if parts[0] != f"bot{self.token}":
            self.refused += 1
            return _error(401, "Unauthorized")
        method = parts[1]
        params = {**_params(request), **request.query}
        self.counts[method.lower()] += 1
        self.calls.append(Call(method=method, params=params, at=trio.current_time()))
        if self.down:
            return WireAnswer(status=502, body=b"<html>Bad Gateway</html>", headers=(("content-type", "text/html"),))
        fault = self._fault(method)
        if fault is not None and not fault.done:
            return _faulty(fault, None)
        try:
            self._refuse_early(params)
            result = await self.run(method.lower(), params)
        except TelegramError as error:
            return _error(error.code, error.description, error.parameters)
        return json_answer({"ok": True, "result": result}) if fault is None else _faulty(fault, result)

    def _fault(self, method: str) -> Fault | None:
        for name in (method, "*"):
            if self.faults[name]:
                return self.faults[name].popleft()
        return self.standing.get(method) or self.standing.get("*")

    def _refuse_early(self, params: dict[str, Any]) -> None:
        for chat in (str(params.get("chat_id", "")), "*"):
            left = self.limits.get(chat, 0.0) - trio.current_time()
            if left > 0:
                self.early += 1
                wait = math.ceil(left)
                raise TelegramError(429, f"Too Many Requests: retry after {wait}", {"retry_after": wait})

    async def run(self, method: str, params: dict[str, Any]) -> Any:
        """Do what a method does. Raises TelegramError."""
        if method == "getupdates":
            return await self._get_updates(params)
        if method not in METHODS:
            raise TelegramError(404, "Not Found: method not found")
        found = METHODS[method](self, params)
        self._seen.unpark_all()
        self.notify()  # a webhook may have been set, which ends polls as well
        return found

    async def _get_updates(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        if self.webhook:
            raise TelegramError(
                409, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
            )  # fmt: skip
        self._confirm(int(params.get("offset", 0)))
        self.polling += 1
        self.most_polling = max(self.most_polling, self.polling)
        try:
            timeout = min(float(params.get("timeout", 0)), MAX_HOLD_S)
            if not self.updates and timeout > 0:
                await self._hold(timeout)
        finally:
            self.polling -= 1
        return list(self.updates)[: int(params.get("limit", 100))]

    async def _hold(self, timeout: float) -> None:
        """Wait for updates; whoever waited before is told that it is not alone."""
        self._poll += 1
        mine = self._poll
        self._lot.unpark_all()
        with trio.move_on_after(timeout):
            while not self.updates and self._poll == mine and not self.webhook:
                await self._lot.park()
        if self.webhook:
            raise TelegramError(409, "Conflict: terminated by setWebhook request")
        if self._poll != mine:
            raise TelegramError(
                409, "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
            )

    def _confirm(self, offset: int) -> None:
        """Forget what is below the offset. One from beyond all that is known is taken for none, as by the service."""
        highest = max((each["update_id"] for each in self.updates), default=offset)
        if 0 < offset <= highest + FUTURE:
            for each in [each for each in self.updates if each["update_id"] < offset]:
                self.updates.remove(each)
                self.confirmed = max(self.confirmed, each["update_id"])


def _params(request: WireRequest) -> dict[str, Any]:
    kind = request.headers.get("content-type", "")
    if kind.startswith("application/json"):
        found = json.loads(request.body or b"{}")
        return dict(found) if isinstance(found, dict) else {}
    if kind.startswith("multipart/form-data"):
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        return dict(_part(part) for part in email.message_from_bytes(head + request.body).get_payload())
    if kind.startswith("application/x-www-form-urlencoded"):
        from urllib.parse import parse_qsl

        return {name: _json(value) for name, value in parse_qsl(request.body.decode())}
    return {}


def _part(part: Any) -> tuple[str, Any]:
    name = part.get_param("name", header="content-disposition")
    data = part.get_payload(decode=True)
    file = part.get_filename()
    return name, (file, data) if file is not None else _json(data.decode())


def _json(value: str) -> Any:
    """A form field: the service takes JSON where a field is no text."""
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return (
        found
        if isinstance(found, (dict, list, int, bool)) and not (isinstance(found, float) and math.isnan(found))
        else value
    )


def _error(code: int, description: str, parameters: Mapping[str, Any] | None = None) -> WireAnswer:
    body: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    if parameters:
        body["parameters"] = dict(parameters)
    return json_answer(body, code)


def _faulty(fault: Fault, result: Any) -> WireAnswer:
    if fault.hang:
        return WireAnswer(hang=True)
    if fault.body is not None:
        return WireAnswer(status=fault.code or 200, body=fault.body, headers=(("content-type", "text/html"),))
    if fault.cut_after is not None:
        return json_answer({"ok": True, "result": result}, cut_after=fault.cut_after)
    return _error(fault.code, fault.description, fault.parameters)


@asynccontextmanager
async def open_fake_telegram() -> AsyncIterator[FakeTelegram]:
    """The service, on a port of the loopback, while inside."""
    telegram = FakeTelegram()
    async with open_wire_server(telegram.handle) as port, open_background_nursery() as nursery:
        telegram.port = port
        nursery.start_soon(push_updates, telegram)
        yield telegram

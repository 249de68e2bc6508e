"""The Web API of the fake Slack: its methods, its rules for messages and blocks, its words for errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from hermes.testing.fake_http import Answered, Asked, answer_json

if TYPE_CHECKING:
    from hermes.testing.fake_slack import FakeSlack

BOT, BOT_ID = "U0HERMES", "B0HERMES"
MAX_POSTED, MAX_UPDATED, MAX_SECTION = 40_000, 4_000, 3_000
Params = dict[str, Any]


class Refused(Exception):
    """A call that Slack answers with `ok: false`."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer = answer_json({"ok": False, "error": error, **more})


class ApiSide:
    """The methods. What they change is in the world."""

    def __init__(self, world: FakeSlack) -> None:
        self._world = world
        self._uploads: dict[str, dict[str, Any]] = {}
        self._methods: dict[str, Callable[[Params], dict[str, Any]]] = {
            "auth.test": self._auth,
            "apps.connections.open": lambda _: {"url": world.sockets.ticket()},
            "chat.postMessage": self._post,
            "chat.update": self._update,
            "conversations.history": self._history,
            "conversations.replies": self._replies,
            "conversations.open": lambda params: {"channel": {"id": self._open(params)}},
            "users.info": self._user,
            "files.getUploadURLExternal": self._upload,
            "files.completeUploadExternal": self._complete,
            "files.info": lambda params: {"file": self._file(params)},
            "reactions.add": self._react,
            "reactions.remove": self._unreact,
            "reactions.get": lambda params: {"type": "message", "message": self._message(params, "timestamp")},
            "assistant.threads.setStatus": self._status,
        }

    async def handle(self, asked: Asked) -> Answered:
        """Answer one request."""
        world = self._world
        world.requests.append(asked)
        world.touch()
        fault = next((each for each in world.faults if re.search(each.path, asked.path)), None)
        if fault is None:
            return self._serve(asked)
        place = world.faults.index(fault)
        world.faults[place : place + 1] = (
            [type(fault)(answer=fault.answer, path=fault.path, times=fault.times - 1, serve=fault.serve)]
            if fault.times > 1
            else []
        )
        if fault.serve or fault.answer is None:
            self._serve(asked)
        world.touch()
        return fault.answer or Answered(cut=0)

    def _serve(self, asked: Asked) -> Answered:
        try:
            if not asked.path.startswith("/api/"):
                return self._elsewhere(asked)
            method = asked.path.removeprefix("/api/")
            params = self._params(asked)
            params["token"] = self._token(asked, params, method)
            found = self._methods.get(method)
            if found is None:
                raise Refused("unknown_method")
            done = found(params)
            self._world.touch()
            return answer_json({"ok": True, **done}, headers={"x-oauth-scopes": self._world.scopes})
        except Refused as refused:
            return refused.answer
        except (ValueError, KeyError, TypeError):
            return answer_json({"ok": False, "error": "invalid_arguments"})

    def _params(self, asked: Asked) -> Params:
        kind = asked.headers.get("content-type", "")
        if kind.startswith("application/json"):
            found = json.loads(asked.body or b"{}")
            return {**asked.query, **found}
        params: Params = {**asked.query, **dict(parse_qsl(asked.body.decode(), keep_blank_values=True))}
        for name in ("blocks", "metadata", "files"):
            if isinstance(params.get(name), str):
                params[name] = json.loads(params[name])
        return params

    def _token(self, asked: Asked, params: Params, method: str) -> str:
        """The token of a call. Raises Refused."""
        world = self._world
        token = asked.headers.get("authorization", "").removeprefix("Bearer ") or str(params.get("token", ""))
        if not token:
            raise Refused("not_authed")
        if world.reject_auth or (token not in world.tokens and token != world.app_token):
            raise Refused("invalid_auth")
        if (token == world.app_token) is not (method == "apps.connections.open"):
            raise Refused("not_allowed_token_type")
        return token

    def _elsewhere(self, asked: Asked) -> Answered:
        """Uploads, downloads, and answers to commands."""
        world = self._world
        if asked.path.startswith("/upload/"):
            wanted = self._uploads.get(asked.path.removeprefix("/upload/"))
            if wanted is None:
                return Answered(status=404)
            content = next(iter(asked.form().values())) if asked.is_form else asked.body
            if len(content) != wanted["length"]:
                return Answered(status=400, body=b"length")
            world.contents[wanted["id"]] = content
            return Answered(body=f"OK - {len(content)}".encode(), media_type="text/plain")
        if found := re.match(r"/files-pri/\w+-(F\w+)/", asked.path):
            if asked.headers.get("authorization", "").removeprefix("Bearer ") not in world.tokens:
                return Answered(body=b"<!DOCTYPE html><html>Sign in</html>", media_type="text/html; charset=utf-8")
            return Answered(body=world.contents[found[1]], media_type=world.files[found[1]]["mimetype"])
        if asked.path.startswith(("/commands/", "/actions/")):
            world.responses.append(json.loads(asked.body))
            world.touch()
            return Answered(body=b"ok", media_type="text/plain")
        return Answered(status=404)

    def _auth(self, params: Params) -> dict[str, Any]:
        team = self._world.tokens[params["token"]]
        return {
            "url": f"https://{team.lower()}.slack.com/", "team": team.title(), "user": "hermes", "team_id": team,
            "user_id": BOT, "bot_id": BOT_ID, "is_enterprise_install": False,
        }  # fmt: skip

    # --- messages

    def _channel(self, params: Params, name: str = "channel") -> str:
        """The channel of a call, of which the app is a member. Raises Refused."""
        id_ = str(params.get(name, ""))
        if id_[:1] in "UW" and id_ in self._world.users:
            return self._open({"users": id_})
        channel = self._world.channels.get(id_)
        if channel is None:
            raise Refused("channel_not_found")
        if not channel["member"]:
            raise Refused("not_in_channel")
        if channel["archived"]:
            raise Refused("is_archived")
        return id_

    def _open(self, params: Params) -> str:
        if params.get("users") not in self._world.users:
            raise Refused("user_not_found")
        id_ = "D" + str(params["users"])[1:]
        if id_ not in self._world.channels:
            self._world.add_channel(id_)
        return id_

    def _post(self, params: Params) -> dict[str, Any]:
        channel = self._channel(params)
        thread = params.get("thread_ts")
        if thread is not None and thread not in self._world.messages[channel]:
            raise Refused("thread_not_found")
        message = self._content(params, MAX_POSTED)
        if thread is not None:
            message["thread_ts"] = thread
        shown = self._world.add_message(
            channel, user=BOT, bot_id=BOT_ID, app_id="A0HERMES", team=self._world.tokens[params["token"]], **message
        )
        return {"channel": channel, "ts": shown["ts"], "message": shown}

    def _content(self, params: Params, most: int) -> dict[str, Any]:
        text, blocks = str(params.get("text") or ""), params.get("blocks") or []
        if not text.strip() and not blocks:
            raise Refused("no_text")
        if len(text) > most:
            raise Refused("msg_too_long")
        check_blocks(blocks)
        found: dict[str, Any] = {"text": text}
        if blocks:
            found["blocks"] = blocks
        metadata = params.get("metadata")
        if metadata is not None:
            if not isinstance(metadata.get("event_type"), str) or not isinstance(metadata.get("event_payload"), dict):
                raise Refused("invalid_metadata_format")
            found["metadata"] = metadata
        return found

    def _update(self, params: Params) -> dict[str, Any]:
        channel = self._channel(params)
        message = self._message(params, "ts")
        if message.get("bot_id") != BOT_ID:
            raise Refused("cant_update_message")
        found = self._content(params, MAX_UPDATED)
        if "blocks" in params and not params["blocks"]:
            message.pop("blocks", None)
        message |= found | {"edited": {"user": BOT, "ts": self._world.stamp()}}
        return {"channel": channel, "ts": message["ts"], "text": message["text"], "message": message}

    def _message(self, params: Params, name: str) -> dict[str, Any]:
        message = self._world.messages[self._channel(params)].get(str(params.get(name)))
        if message is None:
            raise Refused("message_not_found")
        return message

    def _history(self, params: Params) -> dict[str, Any]:
        messages = self._world.messages[self._channel(params)].values()
        top = [each for each in messages if each.get("thread_ts") in (None, each["ts"])]
        return self._page(sorted(top, key=lambda each: float(each["ts"]), reverse=True), params)

    def _replies(self, params: Params) -> dict[str, Any]:
        messages = self._world.messages[self._channel(params)]
        root = messages.get(str(params.get("ts")))
        if root is None:
            raise Refused("thread_not_found")
        replies = [each for each in messages.values() if each.get("thread_ts") == root["ts"] and each is not root]
        return self._page([*sorted(replies, key=lambda each: float(each["ts"]))], params, first=root)

    def _page(
        self, messages: list[dict[str, Any]], params: Params, first: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        oldest, at = float(params.get("oldest") or 0), int(params.get("cursor") or 0)
        found = [each for each in messages if float(each["ts"]) > oldest]
        most = min(int(params.get("limit") or 100), self._world.page)
        page = [dict(each) for each in found[at : at + most]]
        if first is not None:  # a thread's first message is on each page
            page.insert(0, dict(first))
        if str(params.get("include_all_metadata", "")).lower() not in ("true", "1"):
            for each in page:
                each.pop("metadata", None)
        more = at + most < len(found)
        return {
            "messages": page, "has_more": more,
            "response_metadata": {"next_cursor": str(at + most) if more else ""},
        }  # fmt: skip

    def _user(self, params: Params) -> dict[str, Any]:
        user = self._world.users.get(str(params.get("user")))
        if user is None:
            raise Refused("user_not_found")
        return {"user": user}

    # --- files, reactions, signs

    def _upload(self, params: Params) -> dict[str, Any]:
        length = int(params["length"])
        if length <= 0 or not params["filename"]:
            raise Refused("invalid_arguments")
        id_ = self._world.id("F")
        self._uploads[id_] = {"id": id_, "length": length, "name": params["filename"]}
        return {"upload_url": f"http://127.0.0.1:{self._world.port}/upload/{id_}", "file_id": id_}

    def _complete(self, params: Params) -> dict[str, Any]:
        world = self._world
        found = []
        for each in params["files"]:
            wanted = self._uploads.get(each["id"])
            if wanted is None or wanted["id"] not in world.contents:
                raise Refused("file_not_found")
            file = world.add_file(wanted["name"], world.contents[wanted["id"]], "application/octet-stream", user=BOT)
            del world.files[file["id"]]
            file |= {"id": wanted["id"], "title": each.get("title") or wanted["name"]}
            world.files[wanted["id"]] = file
            found.append(file)
        if params.get("channel_id") is not None:
            channel = self._channel(params, "channel_id")
            check_blocks(params.get("blocks") or [])
            fields: dict[str, Any] = {"text": params.get("initial_comment") or "", "files": found, "upload": True}
            if params.get("blocks") and not params.get("initial_comment"):
                fields["blocks"] = params["blocks"]
            if params.get("thread_ts"):
                fields["thread_ts"] = params["thread_ts"]
            shown = world.add_message(channel, user=BOT, bot_id=BOT_ID, **fields)
            for file in found:
                kind = "public" if channel[0] == "C" else "private"
                file["shares"] = {kind: {channel: [{"ts": shown["ts"]}]}}
        return {"files": [{"id": each["id"], "title": each["title"]} for each in found]}

    def _file(self, params: Params) -> dict[str, Any]:
        file = self._world.files.get(str(params.get("file")))
        if file is None:
            raise Refused("file_not_found")
        return file

    def _react(self, params: Params) -> dict[str, Any]:
        message, name = self._message(params, "timestamp"), params["name"]
        if not re.fullmatch(r"[a-z0-9_+'-]+", name):
            raise Refused("invalid_name")
        shown = message.setdefault("reactions", [])
        if any(each["name"] == name for each in shown):
            raise Refused("already_reacted")
        shown.append({"name": name, "users": [BOT], "count": 1})
        return {}

    def _unreact(self, params: Params) -> dict[str, Any]:
        message = self._message(params, "timestamp")
        left = [each for each in message.get("reactions", []) if each["name"] != params["name"]]
        if len(left) == len(message.get("reactions", [])):
            raise Refused("no_reaction")
        message["reactions"] = left
        return {}

    def _status(self, params: Params) -> dict[str, Any]:
        channel = self._channel(params, "channel_id")
        if params.get("thread_ts") not in self._world.messages[channel]:
            raise Refused("invalid_thread_ts")
        self._world.statuses.append((channel, params["thread_ts"], params["status"]))
        return {}


def check_blocks(blocks: Any) -> None:
    """Blocks as Slack takes them: sections with text, and rows of buttons. Raises Refused."""
    if not isinstance(blocks, list) or len(blocks) > 50:
        raise Refused("invalid_blocks")
    actions: set[str] = set()
    for block in blocks:
        if block["type"] == "section":
            if (
                block["text"]["type"] not in ("mrkdwn", "plain_text")
                or not 1 <= len(block["text"]["text"]) <= MAX_SECTION
            ):
                raise Refused("invalid_blocks")
        elif block["type"] == "actions":
            if not 1 <= len(block["elements"]) <= 25:
                raise Refused("invalid_blocks")
            for each in block["elements"]:
                sizes = len(each["text"]["text"]) <= 75 and len(each["action_id"]) <= 255 and len(each["value"]) <= 2000
                if each["type"] != "button" or each["text"]["type"] != "plain_text" or not sizes:
                    raise Refused("invalid_blocks")
                if each["action_id"] in actions:
                    raise Refused("invalid_blocks")
                actions.add(each["action_id"])
        else:
            raise Refused("invalid_blocks_format")

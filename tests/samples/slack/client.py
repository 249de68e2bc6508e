"""slack-sdk as a client of the fake Slack: `client.py BASE_URL BOT_TOKEN APP_TOKEN`; orders come in as JSON lines, sights go out."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

BASE_URL, BOT_TOKEN, APP_TOKEN = sys.argv[1:]
BLOCKS = [
    {"type": "section", "text": {"type": "mrkdwn", "text": "*Really?*"}},
    {"type": "actions", "elements": [
        {"type": "button", "action_id": "hermes:0:0", "value": "yes", "text": {"type": "plain_text", "text": "Yes"}},
    ]},
]  # fmt: skip
lock = threading.Lock()
acknowledges = True


def saw(what: str, **more: Any) -> None:
    with lock:
        print(json.dumps({"saw": what, **more}), flush=True)


def happened(client: SocketModeClient, request: SocketModeRequest) -> None:
    if acknowledges:
        client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
    saw("envelope", type=request.type, payload=request.payload, retry=request.retry_attempt)


web = WebClient(token=BOT_TOKEN, base_url=BASE_URL + "/")
sockets = SocketModeClient(app_token=APP_TOKEN, web_client=WebClient(base_url=BASE_URL + "/"), ping_interval=1)
sockets.socket_mode_request_listeners.append(happened)


def obey(order: dict[str, Any]) -> None:
    global acknowledges
    what = order.pop("do")
    if what == "connect":
        sockets.connect()
        saw("connected")
    elif what == "acknowledge":
        acknowledges = order["yes"]
        saw("done")
    elif what == "file":
        answer = web.files_upload_v2(content="content of it", filename="a.txt", title="a title", **order)
        saw("done", file=answer["file"]["id"])
    elif what == "metadata":
        order["metadata"] = {"event_type": "hermes_part", "event_payload": {"key": "k1"}}
        saw("done", answer=web.chat_postMessage(**order).data)
    elif what == "buttons":
        saw("done", answer=web.chat_postMessage(blocks=BLOCKS, text="Really?", **order).data)
    elif what == "patiently":
        web.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
        saw("done", answer=web.chat_postMessage(**order).data)
    else:
        answer = getattr(web, what)(**order)
        saw("done", answer=answer.data, scopes=answer.headers.get("x-oauth-scopes"))


for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "quit":
        break
    try:
        obey(order)
    except SlackApiError as error:
        saw("failed", error=error.response["error"])
    except Exception as error:
        saw("broke", words=repr(error))
sockets.close()

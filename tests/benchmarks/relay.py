"""A bare relay on the gateway's own listener: one request in, one model request out, nothing else. The measure of all figures.

    python relay.py httpx2|openai UPSTREAM_URL [SLEEP_S]     prints its port

`httpx2` posts the bytes as they came: the floor. `openai` asks through the official client's `post`, streams, and reads the raw
body: what a gateway cannot do without, the fair peer. With SLEEP_S it sleeps so long before it asks, as one does for a disk.
"""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Any

import httpx2
import trio

from hermes.http.listener import open_server

JSON = [(b"content-type", b"application/json")]


async def read_body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def answer(send: Any, body: bytes) -> None:
    headers = [*JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main(kind: str, upstream: str, sleep_s: float) -> None:
    async with httpx2.AsyncClient(timeout=60.0, limits=httpx2.Limits(max_connections=256)) as http:
        if kind == "openai":
            import openai

            client = openai.AsyncOpenAI(api_key="k", base_url=upstream, http_client=http, timeout=60.0, max_retries=0)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["method"] == "GET":
                await answer(send, b'{"status":"ok"}')
                return
            body = await read_body(receive)
            if sleep_s:
                await trio.sleep(sleep_s)
            if kind == "httpx2":
                url = f"{upstream}/chat/completions"
                response = await http.post(url, content=body, headers={"content-type": "application/json"})
                await answer(send, response.content)
                return
            stream = await client.post(
                "/chat/completions", content=body, cast_to=object, stream=True, stream_cls=openai.AsyncStream[object]
            )
            pieces = []
            async with aclosing(stream.response.aiter_raw()) as raw:
                async for piece in raw:
                    pieces.append(piece)
            await stream.response.aclose()
            await answer(send, b"".join(pieces))

        async with open_server(app, host="127.0.0.1") as server:
            print(server.addresses[0][1], flush=True)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)

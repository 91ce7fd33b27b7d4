"""An OpenAI-compatible server on loopback that says what a script tells it to, and counts who asked.

In a test: `with ScriptedServer(script) as server: ... server.answered`. As a process of its own, for benchmarks and
DAGs: `python tests/exam/scripted_server.py script.json` prints its address, and `GET /calls` returns the counts.

A script maps a part of the user's message to replies; the longest part that fits decides. The n-th call for a part gets
its n-th reply, and the last reply again and again.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What comes back: `text`, after `delay_s`; or another `status`; or, with `drop`, a connection that breaks."""

    text: str | None = ""
    status: int = 200
    delay_s: float = 0.0
    drop: bool = False
    retry_after_s: float | None = None
    input_tokens: int = 100
    output_tokens: int = 10
    ended_by: str = "stop"


@dataclass(frozen=True)
class Script:
    """`replies` by part of the user's message; `default` where none fits. `key` None lets anybody in."""

    replies: Mapping[str, tuple[Reply, ...]] = field(default_factory=dict)
    default: Reply = Reply("答え: 1")
    latency_s: float = 0.0
    key: str | None = None
    model: str = "scripted-2026-01-01"

    def to_json(self) -> str:
        """For a server that is a process of its own."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Script:
        """The script that `to_json` wrote."""
        values = json.loads(text)
        values["replies"] = {part: tuple(Reply(**r) for r in replies) for part, replies in values["replies"].items()}
        values["default"] = Reply(**values["default"])
        return cls(**values)


class ScriptedServer:
    """Listens from `__enter__` to `__exit__`, in a thread. `asked` and `answered` count calls by part of the script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self._parts = sorted(script.replies, key=len, reverse=True)
        self._address: Future[str] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self.serve(),), daemon=True)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        self._address.result(timeout=10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)
        self._loop.close()

    @property
    def url(self) -> str:
        """What SERVICE_BASE_URL must be."""
        return self._address.result(timeout=10)

    async def serve(self) -> None:
        """Until stopped. Port 0: the system chooses a free one."""
        self._stop = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._address.set_result(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await self._stop.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._connection(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if head[0].startswith("GET"):
            _send(writer, 200, {"asked": self.asked, "answered": self.answered})
            return True
        if self.script.key is not None and headers.get("authorization") != f"Bearer {self.script.key}":
            self.asked["(wrong key)"] += 1
            said = f"Incorrect API key provided: {headers.get('authorization', '').removeprefix('Bearer ')}"
            _send(writer, 401, _error(said, "invalid_api_key"))
            return True
        return await self._reply(json.loads(body), writer)

    async def _reply(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        self.bodies.append(body)
        text = "\n".join(_texts(body["messages"][-1]["content"]))
        part = next((part for part in self._parts if part in text), "(default)")
        replies = self.script.replies.get(part, (self.script.default,))
        reply = replies[min(self.asked[part], len(replies) - 1)]
        self.asked[part] += 1
        await asyncio.sleep(self.script.latency_s + reply.delay_s)
        if reply.drop:
            writer.transport.abort()
            return False
        if reply.status != 200:
            _send(writer, reply.status, _error("scripted", "scripted"), reply.retry_after_s)
            return True
        _send(writer, 200, _completion(self.script.model, reply))
        await writer.drain()
        self.answered[part] += 1
        return True


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code}}


def _completion(model: str, reply: Reply) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {"index": 0, "finish_reason": reply.ended_by, "message": {"role": "assistant", "content": reply.text}}
        ],
        "usage": {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
        },
    }


def _send(writer: asyncio.StreamWriter, status: int, body: Any, retry_after_s: float | None = None) -> None:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    if retry_after_s is not None:
        head += f"Retry-After: {retry_after_s}\r\n"
    writer.write(head.encode() + b"\r\n" + content)


def main() -> None:
    """Serve the script in the file that the first argument names, until the process is ended."""
    server = ScriptedServer(Script.from_json(Path(sys.argv[1]).read_text()))
    with server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

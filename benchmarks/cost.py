"""What a tracked call costs, beside a no-op handler and the SDK called by hand; prints ratios of one run.

Usage: python benchmarks/cost.py [calls]

The sink is a process of its own that answers every POST at once, so its CPU time is not counted.
"""

from __future__ import annotations

import contextvars
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tracers.context import register_configure_hook

import pltrack

SINK = r"""
import asyncio
class Sink(asyncio.Protocol):
    n = 0
    def connection_made(self, transport): self.transport, self.buffer = transport, b""
    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self.buffer) < end + 4 + size: return
            self.buffer = self.buffer[end + 4 + size:]
            Sink.n += 1
            body = b'{"id": %d, "request_id": %d, "success": true}' % (Sink.n, Sink.n)
            head = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % len(body) + body)
async def main():
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
_noop_var: contextvars.ContextVar[Any] = contextvars.ContextVar("noop", default=None)
MODEL = FakeListChatModel(responses=["The capital of France is Paris, as everybody knows."])


class NoOp(BaseCallbackHandler):
    """A handler that does nothing: the floor."""

    run_inline = True
    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


class ByHand(NoOp):
    """The SDK's `log_request` in `on_llm_end`, as people write it."""

    def __init__(self, url: str) -> None:
        from promptlayer import PromptLayer

        self.client = PromptLayer(api_key="pl_bench", base_url=url)
        self.messages: Any = None
        self.started = 0.0

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        """Keep the input."""
        self.messages, self.started = messages[0], time.time()

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Send it, and wait for the answer."""
        said = [{"role": "user", "content": [{"type": "text", "text": each.content}]} for each in self.messages]
        text = response.generations[0][0].text
        self.client.log_request(
            provider="openai",
            model="gpt-4o",
            input={"type": "chat", "messages": said},
            output={
                "type": "chat",
                "messages": [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
            },
            request_start_time=self.started,
            request_end_time=time.time(),
        )


def history(count: int) -> list[BaseMessage]:
    """Return a conversation of `count` messages."""
    kinds = [HumanMessage, AIMessage]
    said = [kinds[i % 2](f"message {i}: " + "some words about something " * 4) for i in range(count - 1)]
    return [SystemMessage("You are a helpful assistant."), *said]


def per_call(messages: list[BaseMessage], calls: int, clock: Callable[[], float] = time.thread_time) -> float:
    """Return microseconds of one call: what its own thread works (default), or by the wall clock."""
    started = clock()
    for _ in range(calls):
        MODEL.invoke(messages)
    return (clock() - started) / calls * 1e6


def added(
    calls: int, rounds: int, messages: list[BaseMessage], url: str, clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    """Return the median time that each way adds to a call, measured in turns."""
    noop, by_hand = NoOp(), ByHand(url)
    found: dict[str, list[float]] = {"no-op handler": [], "pltrack": [], "SDK by hand": []}
    for _ in range(rounds):
        base = per_call(messages, calls, clock)
        for name, handler, count in (("no-op handler", noop, calls), ("SDK by hand", by_hand, calls // 10)):
            token = _noop_var.set(handler)
            found[name].append(per_call(messages, count, clock) - base)
            _noop_var.reset(token)
        with pltrack.pl_session("bench"):
            found["pltrack"].append(per_call(messages, calls, clock) - base)
        pltrack.flush(60)
    return {name: statistics.median(each) for name, each in found.items()}


def cpu(calls: int, messages: list[BaseMessage], url: str) -> dict[str, float]:
    """Return CPU microseconds of the whole process that each way adds to a call, delivery included."""
    found = {}
    started = time.process_time()
    per_call(messages, calls)
    base = time.process_time() - started
    started = time.process_time()
    for _ in range(calls // 100):
        with pltrack.pl_session("bench"):
            per_call(messages, 100)
    pltrack.flush(120)
    found["pltrack"] = (time.process_time() - started - base) / calls * 1e6
    token = _noop_var.set(ByHand(url))
    started = time.process_time()
    per_call(messages, calls // 5)
    found["SDK by hand"] = (time.process_time() - started - base / 5) / (calls // 5) * 1e6
    _noop_var.reset(token)
    return found


def import_time(code: str) -> float:
    """Return the median milliseconds of a fresh interpreter that runs `code`."""
    times = []
    for _ in range(9):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def main(calls: int) -> None:
    """Measure and print."""
    register_configure_hook(_noop_var, inheritable=True)
    sink = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    url = f"http://127.0.0.1:{int(sink.stdout.readline())}"
    with tempfile.TemporaryDirectory() as folder:
        pltrack.configure(api_key="pl_bench", base_url=url, journal=Path(folder) / "journal.db")
        messages = history(8)
        added(50, 2, messages, url)  # warm up: imports, connections
        eight = added(calls, 7, messages, url)
        busy = added(calls, 5, messages, url, time.perf_counter)
        long = added(calls // 4, 5, history(208), url)
        rounds = [cpu(calls * 5, messages, url) for _ in range(3)]
        burned = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        result = pltrack.flush(60)
        pltrack.shutdown(5)
    sink.kill()
    noop = eight["no-op handler"]
    for name, value in eight.items():
        print(f"added on the caller's thread, 8 messages  {name:14} {value:8.0f} us  {value / noop:6.2f} x no-op")
    for name, value in busy.items():
        print(f"the same by the wall clock, back to back  {name:14} {value:8.0f} us")
    slope = (long["pltrack"] - long["no-op handler"] - eight["pltrack"] + noop) / 200
    print(f"per extra message beyond the no-op        pltrack        {slope:8.2f} us")
    for name, value in burned.items():
        print(f"CPU with delivery, per call               {name:14} {value:8.0f} us")
    bare = import_time("pass")
    print(f"import pltrack beyond bare Python         pltrack        {import_time('import pltrack') - bare:8.0f} ms")
    print(json.dumps({"pending": result.pending, "failed": result.failed, "pid": os.getpid()}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)

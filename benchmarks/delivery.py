"""How fast a backlog is delivered, beside the SDK's `log_request` in a loop; prints the ratio of one run.

Usage: python benchmarks/delivery.py [calls]

The sink is a process of its own that answers every POST at once. Both say the same of each call, eight messages long;
pltrack reads its calls from the journal and writes every id back to it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from promptlayer import PromptLayer

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
TEXTS = [f"message {n}: " + "some words about something " * 4 for n in range(8)]
ANSWER = "The capital of France is Paris, as everybody knows."
MODEL = FakeListChatModel(responses=[ANSWER])
GOAL = 3.0


def by_pltrack(calls: int) -> float:
    """Return calls delivered per second, from a journal full of them to the last id written back."""
    pltrack.configure(delivery="external")
    messages = [(AIMessage if n % 2 else HumanMessage)(text) for n, text in enumerate(TEXTS)]
    for _ in range(calls // 100):
        with pltrack.pl_session("bench"):
            for _ in range(100):
                MODEL.invoke(messages)
    pltrack.flush(60)
    pltrack.configure(delivery="background")
    started = time.perf_counter()
    result = pltrack.flush(120)
    took = time.perf_counter() - started
    assert (result.delivered, result.pending, result.failed) == (calls, 0, 0), result
    return calls / took


def by_the_sdk(calls: int, url: str) -> float:
    """Return calls logged per second by `log_request` in a loop."""
    client = PromptLayer(api_key="pl_bench", base_url=url)
    roles = ("user", "assistant")
    said = [{"role": roles[n % 2], "content": [{"type": "text", "text": text}]} for n, text in enumerate(TEXTS)]
    answer = [{"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}]
    started = time.perf_counter()
    for _ in range(calls):
        client.log_request(
            provider="openai",
            model="gpt-4o",
            input={"type": "chat", "messages": said},
            output={"type": "chat", "messages": answer},
            request_start_time=time.time(),
            request_end_time=time.time(),
        )
    return calls / (time.perf_counter() - started)


def main(calls: int) -> None:
    """Measure in turns and print."""
    sink = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    url = f"http://127.0.0.1:{int(sink.stdout.readline())}"
    with tempfile.TemporaryDirectory() as folder:
        pltrack.configure(api_key="pl_bench", base_url=url, journal=Path(folder) / "journal.db")
        by_pltrack(100)  # warm up: imports, connections
        by_the_sdk(20, url)
        rounds = [(by_pltrack(calls), by_the_sdk(calls // 8, url)) for _ in range(3)]
        pltrack.shutdown(5)
    sink.kill()
    ours, theirs = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(f"delivered from the journal    pltrack              {ours:8.0f} a second")
    print(f"log_request in a loop         SDK by hand          {theirs:8.0f} a second")
    print(f"ratio                         (goal: {GOAL:g} at least)   {ours / theirs:8.2f} x")
    print(json.dumps({"ratio": round(ours / theirs, 2), "met": ours / theirs >= GOAL}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)

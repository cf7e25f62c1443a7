"""One way of tracking in a process of its own; does what it is told, line by line, and answers with figures.

Usage: python benchmarks/worker.py NAME URL FOLDER

Reads `["case", {arguments}]` from stdin and answers with a JSON object. What a way adds to a call is the difference to
the same calls in the same process without it, measured in turns.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from ways import WAYS, Way

ANSWER = "The capital of France is Paris, as everybody knows."
MODEL = FakeListChatModel(responses=[ANSWER])
Figures = dict[str, float]
Work = Callable[[int], Any]


def history(count: int, characters: int = 0) -> list[BaseMessage]:
    """Return a conversation of `count` messages, the last of them as long as asked for."""
    kinds = [HumanMessage, AIMessage]
    said = [kinds[n % 2](f"message {n}: " + "some words about something " * 4) for n in range(count - 1)]
    told: list[BaseMessage] = [SystemMessage("You are a helpful assistant."), *said]
    if characters:
        told[-1] = HumanMessage("All work and no play. " * (characters // 22))
    return told


def clocks() -> tuple[float, float, float]:
    """Return what this thread worked, what the whole process worked, and the time."""
    return time.thread_time(), time.process_time(), time.perf_counter()


def added(way: Way, work: Work, calls: int, around: int = 0) -> Figures:
    """Return microseconds that the way adds to each call that `work(n)` makes: without it, twice with it, without.

    `caller` is work of this thread, `wall` its time, `cpu` work of the whole process with delivery. With `around`, each
    so many calls have a block of their own.
    """
    work(max(calls // 10, 1))  # other processes had the caches meanwhile
    without = [_plain(work, calls)]
    tracked = [_tracked(way, work, calls, around), _tracked(way, work, calls, around)]
    without.append(_plain(work, calls))
    return {
        name: (sum(each[name] for each in tracked) - sum(each[name] for each in without)) / 2 for name in tracked[0]
    }


def _plain(work: Work, calls: int) -> Figures:
    gc.collect()
    thread, process, wall = clocks()
    work(calls)
    return _per_call(calls, thread, process, wall, *clocks())


def _tracked(way: Way, work: Work, calls: int, around: int) -> Figures:
    gc.collect()
    thread, process, wall = clocks()
    for _ in range(calls // around if around else 1):
        with way.on():
            work(around or calls)
    ended = clocks()
    way.flush()
    return _per_call(calls, thread, process, wall, ended[0], time.process_time(), ended[2])


def _per_call(calls: int, *at: float) -> Figures:
    return {name: (at[n + 3] - at[n]) / calls * 1e6 for n, name in enumerate(("caller", "cpu", "wall"))}


# -- cases ----------------------------------------------------------------------------------------------------


def call(way: Way, calls: int, messages: int, characters: int = 0, around: int = 0) -> Figures:
    """Return what is added to `invoke`."""
    told = history(messages, characters)

    def work(count: int) -> None:
        for _ in range(count):
            MODEL.invoke(told)

    return added(way, work, calls, around)


def acall(way: Way, calls: int, messages: int) -> Figures:
    """Return what is added to `ainvoke`."""
    told = history(messages)

    async def several(count: int) -> None:
        for _ in range(count):
            await MODEL.ainvoke(told)

    return added(way, lambda count: asyncio.run(several(count)), calls)


def stream(way: Way, calls: int, chunks: int, asynchronous: bool = False) -> Figures:
    """Return what is added to each chunk of a stream."""
    told = history(8)

    def adds(length: int) -> Figures:
        model = FakeListChatModel(responses=["x" * length])

        async def read() -> None:
            async for _ in model.astream(told):
                pass

        async def several(count: int) -> None:
            for _ in range(count):
                await read()

        def work(count: int) -> None:
            for _ in range(count):
                for _ in model.stream(told):
                    pass

        return added(way, (lambda count: asyncio.run(several(count))) if asynchronous else work, calls)

    long, short = adds(chunks + 20), adds(20)
    return {name: (long[name] - short[name]) / chunks for name in long}


def repeated(work: Callable[[], Any], calls: int) -> float:
    """Return microseconds of this thread for one run of `work`."""
    gc.collect()
    started = time.thread_time()
    for _ in range(calls):
        work()
    return (time.thread_time() - started) / calls * 1e6


def block(way: Way, calls: int) -> Figures:
    """Return what entering and leaving an empty block costs."""

    def once() -> None:
        with way.block():  # type: ignore[union-attr]
            pass

    return {"caller": repeated(once, calls)} if way.block() is not None else {}


def decorated(way: Way, calls: int) -> Figures:
    """Return what the decorator adds to an empty function."""

    def empty() -> None:
        pass

    tracked = way.decorated(empty)
    if tracked is None:
        return {}
    with way.block():  # type: ignore[union-attr]
        found = repeated(tracked, calls) - repeated(empty, calls)
    way.flush()
    return {"caller": found}


def verbs(way: Any, calls: int) -> Figures:
    """Return what each of pltrack's verbs costs its caller, about a session with one call in it."""
    with way.on() as session:
        MODEL.invoke("What is the capital of France?")
    told = {
        "score": lambda: session.score(90),
        "metadata": lambda: session.metadata(plan="pro"),
        "link_prompt": lambda: session.link_prompt("example", {"product": "toasters"}, version=1),
        "request(id).score": lambda: way.pltrack.request(session.ids[0]).score(80),
    }
    found = {name: repeated(verb, calls) for name, verb in told.items()}
    way.flush()
    return found


def speak(way: Way) -> Figures:
    """Make one call and say three things about it; tell whether that can be done."""
    done = way.speak(lambda: MODEL.invoke("What is the capital of France?"))
    way.flush()
    return {"done": done}


def backlog(way: Any, calls: int) -> Figures:
    """Return how many calls a second pltrack delivers from its journal, to the last id written back."""
    way.pltrack.configure(delivery="external")
    told = history(8)
    for _ in range(calls // 100):
        with way.on():
            for _ in range(100):
                MODEL.invoke(told)
    way.flush()
    way.pltrack.configure(delivery="background")
    started, worked = time.perf_counter(), time.process_time()
    result = way.pltrack.flush(120)
    took, work = time.perf_counter() - started, time.process_time() - worked
    assert (result.delivered, result.pending, result.failed) == (calls, 0, 0), result
    return {"rate": calls / took, "cpu": work / calls * 1e6}


def log(way: Any, calls: int) -> Figures:
    """Return how many calls a second the SDK logs in a loop."""
    said = [{"role": "user", "content": [{"type": "text", "text": each.content}]} for each in history(8)]
    answer = [{"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}]
    started, worked = time.perf_counter(), time.process_time()
    for _ in range(calls):
        way.handler.client.log_request(
            provider="openai",
            model="gpt-4o",
            input={"type": "chat", "messages": said},
            output={"type": "chat", "messages": answer},
            request_start_time=time.time(),
            request_end_time=time.time(),
        )
    return {
        "rate": calls / (time.perf_counter() - started),
        "cpu": (time.process_time() - worked) / calls * 1e6,
    }


def post(way: Way, calls: int) -> Figures:
    """Return the CPU of a bare keep-alive POST with aiohttp: what no delivery one by one can be cheaper than."""
    import aiohttp

    async def several(count: int) -> float:
        async with aiohttp.ClientSession() as session:
            await _posted(session)
            started = time.process_time()
            for _ in range(count):
                await _posted(session)
            return time.process_time() - started

    async def _posted(session: aiohttp.ClientSession) -> None:
        async with session.post(os.environ["SINK"], data=b"x" * 2_000) as response:
            await response.read()

    return {"cpu": asyncio.run(several(calls)) / calls * 1e6}


def leave(way: Way, calls: int) -> Figures:
    """Make calls and end, as programs end; the answer is when that began."""
    with way.on():
        for _ in range(calls):
            MODEL.invoke("What is the capital of France?")
    return {"at": time.time()}


CASES = {
    each.__name__: each for each in (call, acall, stream, block, decorated, verbs, speak, backlog, log, post, leave)
}


def main(name: str, url: str, folder: str) -> None:
    """Answer until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # peers may print
    os.environ["SINK"] = url
    try:
        way = WAYS[name](url, Path(folder))
        _warm_up(way)
        print(json.dumps({"ready": 1}), file=answers, flush=True)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        return
    for line in sys.stdin:
        case, arguments = json.loads(line)
        print(json.dumps(CASES[case](way, **arguments)), file=answers, flush=True)
        if case == "leave":
            return


def _warm_up(way: Way) -> None:
    """Load what the first call loads, and open connections."""
    for _ in range(3):
        call(way, 30, 8)
    gc.collect()
    gc.freeze()  # or each collection between two measurements looks at all modules again


if __name__ == "__main__":
    main(*sys.argv[1:4])

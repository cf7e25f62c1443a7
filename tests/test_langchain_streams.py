"""Streams of every kind LangChain has: read to the end, given up, failing, made in one place and read in another."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.fake import FakeStreamingListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langchain_core.tracers import _streaming
from oldest import V3, needs_v3
from programs import environment, run

import pltrack
from pltrack import _handler, current_session, pl_session
from pltrack.testing import FakePromptLayer

pytestmark = [
    pytest.mark.filterwarnings("ignore:The method .* is in beta"),
    pytest.mark.filterwarnings("ignore:astream_log is deprecated"),
]
WaitUntil = Callable[[Callable[[], object]], None]
USAGE = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}


class Streaming(FakeListChatModel):
    """Streams an empty piece, "hello", and the usage with the last letter; may fail or hang on the way."""

    responses: list[str] = ["hello"]  # noqa: RUF012 -- a pydantic field
    fail_at: int = -1
    hang_at: int = -1
    hangs: Any = None
    streamed: list[str] = []  # noqa: RUF012 -- a pydantic field

    def pieces(self) -> Iterator[ChatGenerationChunk]:
        self.streamed.append("stream")
        yield ChatGenerationChunk(message=AIMessageChunk(""))
        for i, letter in enumerate("hello"):
            if i == self.fail_at:
                raise ConnectionError("cut")
            last = {"usage_metadata": USAGE, "chunk_position": "last"} if i == 4 else {}
            yield ChatGenerationChunk(message=AIMessageChunk(letter, **last))

    def _stream(self, *args: Any, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any) -> Any:
        yield from self.pieces()

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        for i, piece in enumerate(self.pieces()):
            if i == self.hang_at:
                if self.hangs is not None:
                    self.hangs.set()
                await asyncio.Event().wait()
            yield piece
            await asyncio.sleep(0)


class Calling(Streaming):
    """Streams a text, a piece of a tool call and a thought."""

    def pieces(self) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk([{"type": "reasoning", "reasoning": "hm", "index": 0}]))
        for arguments in ('{"a": ', "1"):
            call: Any = {"name": "add", "args": arguments, "id": "c1", "index": 1, "type": "tool_call_chunk"}
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))
        for letter in "hello":
            yield ChatGenerationChunk(message=AIMessageChunk(letter))


class Refused(InMemoryRateLimiter):
    """Lets nobody through."""

    def acquire(self, *, blocking: bool = True) -> bool:
        raise ConnectionError("limited")


MODEL = Streaming()
CHAIN = RunnableLambda(lambda x: x) | MODEL


async def one() -> AsyncIterator[str]:
    yield "x"


async def each_of_v3(model: Any) -> AsyncIterator[Any]:
    async for event in await model.astream_events("x", version="v3"):
        yield event


SYNC: dict[str, Callable[[Any], Iterator[Any]]] = {
    "stream": lambda model: model.stream("x"),
    "transform": lambda model: model.transform(iter(["x"])),
    "v3": lambda model: iter(model.stream_events("x", version="v3")),
    "v3 text": lambda model: iter(model.stream_events("x", version="v3").text),
}
ASYNC: dict[str, Callable[[Any], AsyncIterator[Any]]] = {
    "astream": lambda model: model.astream("x"),
    "atransform": lambda model: model.atransform(one()),
    "events v2": lambda model: model.astream_events("x", version="v2"),
    "events v3": each_of_v3,
    "astream_log": lambda model: model.astream_log("x"),
}
if not V3:
    SYNC = {name: way for name, way in SYNC.items() if "v3" not in name}
    ASYNC = {name: way for name, way in ASYNC.items() if "v3" not in name}


def said(logged: Any) -> str:
    return "".join(
        str(block.get("text", "")) for each in logged.body["output"]["messages"] for block in each["content"] or []
    )


def whole(promptlayer: FakePromptLayer, session: pltrack.Session) -> None:
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert (logged.body["status"], said(logged)) == ("SUCCESS", "hello")
    assert (logged.body["input_tokens"], logged.body["output_tokens"]) == (3, 5)
    assert (session.usage.calls, session.usage.input_tokens, session.usage.output_tokens) == (1, 3, 5)
    assert session.usage.first_token_seconds is not None
    assert 0 <= session.usage.first_token_seconds <= session.usage.seconds
    assert not _handler._live


@pytest.mark.parametrize("way", SYNC)
def test_a_stream_read_to_its_end(promptlayer: FakePromptLayer, way: str) -> None:
    """Every sync way is one record with the whole text, the usage once, and the time to the first token [22, 28]."""
    with pl_session() as session:
        assert list(SYNC[way](MODEL))
    whole(promptlayer, session)


@pytest.mark.parametrize("way", ["stream", "transform"])
def test_a_chains_stream_read_to_its_end(promptlayer: FakePromptLayer, way: str) -> None:
    """The same through a chain [22]."""
    with pl_session() as session:
        assert list(SYNC[way](CHAIN))
    whole(promptlayer, session)


@pytest.mark.parametrize("way", ASYNC)
async def test_an_async_stream_read_to_its_end(promptlayer: FakePromptLayer, way: str, wait_until: WaitUntil) -> None:
    """Every async way too; the end of a v3 stream, one turn of the loop after the block, is waited for [28]."""
    async with pl_session() as session:
        assert [item async for item in ASYNC[way](MODEL)]
    for _ in range(5):
        await asyncio.sleep(0)
    whole(promptlayer, session)


@pytest.mark.parametrize("way", ["astream", "atransform", "events v2", "astream_log"])
async def test_a_chains_async_stream_read_to_its_end(promptlayer: FakePromptLayer, way: str) -> None:
    """The same through a chain."""
    async with pl_session() as session:
        assert [item async for item in ASYNC[way](CHAIN)]
    whole(promptlayer, session)


async def test_events_turn_a_call_inside_into_a_stream(promptlayer: FakePromptLayer) -> None:
    """astream_events over code that calls invoke: LangChain streams that call; it is one record all the same [23]."""
    inner = RunnableLambda(lambda x: MODEL.invoke(x))
    async with pl_session() as session:
        assert [event async for event in inner.astream_events("x", version="v2")]
    whole(promptlayer, session)


async def test_we_turn_no_call_into_a_stream() -> None:
    """invoke and ainvoke are not streamed for our sake: none of our handlers is one that taps streams [23, 24]."""
    model = Streaming(streamed=[])
    ours = pltrack.PromptLayerCallbackHandler()
    async with pl_session() as session:
        model.invoke("x", config={"callbacks": [ours]})
        await model.ainvoke("x", config={"callbacks": [ours]})
        entry = session._blocks[0]
    assert model.streamed == []
    taps = [kind for name, kind in vars(_streaming).items() if name.endswith("StreamingCallbackHandler")]
    assert taps
    for kind in taps:
        assert not isinstance(ours, kind)
        assert not isinstance(entry, kind)
    assert session.usage.first_token_seconds is None


@needs_v3
def test_the_first_token_is_the_first_that_says_something() -> None:
    """Empty first pieces do not count, lists of blocks and tool calls do, and v3 pieces count as tokens do [25]."""
    for model, way, before in ((MODEL, "stream", 1), (MODEL, "v3", 2), (Calling(), "stream", 0), (Calling(), "v3", 2)):
        with pl_session() as session:
            stream = SYNC[way](model)
            for _ in range(before):
                next(stream)
                assert next(iter(_handler._live.values())).call.first_token_at is None
            next(stream)
            (live,) = _handler._live.values()
            assert live.call.first_token_at is not None
            list(stream)
        assert session.last.status == "SUCCESS"


def test_a_completion_stream_that_tells_no_tokens(promptlayer: FakePromptLayer) -> None:
    """It is recorded whole, without a time to the first token; none is made up [25]."""
    with pl_session() as session:
        assert "".join(FakeStreamingListLLM(responses=["hello"]).stream("x")) == "hello"
    pltrack.flush(10)
    assert promptlayer.requests[0].body["output"]["content"][0]["text"] == "hello"
    assert session.usage.first_token_seconds is None


# -- where a stream is made, and where it is read --------------------------------------------------------------


async def test_streams_made_inside_and_read_after_the_block() -> None:
    """LangChain begins them at the first step: they are the session's through follow() only [26]."""
    ways: list[Callable[[], Any]] = [
        lambda: MODEL.stream("x"), lambda: CHAIN.stream("x"), lambda: MODEL.astream("x"),
        lambda: MODEL.astream_events("x", version="v2"),
        lambda: MODEL.batch_as_completed(["x", "y"]), lambda: MODEL.abatch_as_completed(["x", "y"]),
    ]  # fmt: skip

    async def read(stream: Any) -> None:
        if hasattr(stream, "__aiter__"):
            assert [item async for item in stream]
        else:
            assert list(stream)

    for make in ways:
        with pl_session() as session:
            lost = make()
            kept = session.follow(make())
        await read(lost)
        assert session.requests == ()
        await read(kept)
        assert {each.status for each in session.requests} == {"SUCCESS"}
        assert current_session() is None


@needs_v3
async def test_streams_made_before_the_block_and_read_inside() -> None:
    """They are the session's; a v3 stream is whose it was where it was made: nobody's [26, 27]."""
    before, abefore = MODEL.stream("x"), MODEL.astream("x")
    v3 = MODEL.stream_events("x", version="v3")
    async with pl_session() as session:
        list(before)
        assert [item async for item in abefore]
        assert list(v3)
    assert [each.status for each in session.requests] == ["SUCCESS"] * 2


@needs_v3
async def test_a_v3_stream_made_inside_and_read_after() -> None:
    """It needs no follow(): it is the session's wherever it is read [27]."""
    with pl_session() as session:
        sync = MODEL.stream_events("x", version="v3")
        asynchronous = await MODEL.astream_events("x", version="v3")
    assert session.requests == ()
    with pl_session() as reader:
        assert str(sync.text) == "hello"
        assert await asynchronous.text == "hello"
    await asyncio.sleep(0)
    assert [each.status for each in session.requests] == ["SUCCESS"] * 2
    assert reader.requests == ()


def test_a_model_that_starts_late_in_a_stream() -> None:
    """A stream begun in the block whose model starts after it is still the session's, by inheritance [2, 26]."""

    def steps(items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            yield item
            yield MODEL.invoke("late").content

    with pl_session() as session:
        stream = RunnableGenerator(steps).stream("x")
        assert next(stream) == "x"
    assert list(stream) == ["hello"]
    assert [each.status for each in session.requests] == ["SUCCESS"]


async def test_a_stream_whose_steps_are_read_in_different_tasks(promptlayer: FakePromptLayer) -> None:
    """The end of the task of its first step, as of asyncio.wait_for, is not the end of the stream [34]."""
    for way in {"astream", "events v3"} & ASYNC.keys():
        async with pl_session(way) as session:
            stream: Any = ASYNC[way](MODEL)
            await asyncio.create_task(anext(stream))
            for _ in range(3):
                await asyncio.sleep(0)
            assert session.requests[0].status is None
            assert [item async for item in stream]
        for _ in range(3):
            await asyncio.sleep(0)
        assert session.last.status == "SUCCESS"
    await pltrack.aflush(10)
    assert {said(logged) for logged in promptlayer.requests} == {"hello"}


@needs_v3
async def test_a_v3_stream_whose_reader_is_done_at_once() -> None:
    """LangChain tells of the end a turn of the loop after the reader's task ended: it is a success [28]."""

    async def read() -> None:
        assert [item async for item in each_of_v3(MODEL)]

    async with pl_session() as session:
        await asyncio.create_task(read())
    for _ in range(3):
        await asyncio.sleep(0)
    assert session.last.status == "SUCCESS"
    assert not _handler._live


# -- given up ---------------------------------------------------------------------------------------------------


def cut_short(promptlayer: FakePromptLayer, text: str = "h") -> Any:
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert (logged.body["status"], logged.body["error_type"]) == ("WARNING", "PROVIDER_PARTIAL_RESPONSE")
    assert said(logged) == text
    assert not _handler._live
    return logged


@pytest.mark.parametrize("how", ["break", "close", "collected", "collected in a thread", "reader fails"])
@pytest.mark.parametrize("way", ["stream", "chain", pytest.param("v3", marks=needs_v3)])
def test_a_stream_that_is_given_up(promptlayer: FakePromptLayer, way: str, how: str) -> None:
    """It is a WARNING with what had arrived, whoever ends it; LangChain is silent about v3 ones [28, 29, 30, 32]."""
    with pl_session() as session:
        stream: Any = CHAIN.stream("x") if way == "chain" else SYNC[way](MODEL)
        if how == "break":
            for item in stream:
                if "'h'" in str(item):
                    break
        elif how == "reader fails":
            with contextlib.suppress(KeyError):
                for item in stream:
                    if "'h'" in str(item):
                        raise KeyError("the reader's")
        else:
            while "'h'" not in str(next(stream)):
                pass
        if how == "close":
            stream.close()
        ring: list[Any] = [stream]
        ring.append(ring)
        del stream, ring
    if how == "collected in a thread":
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join(10)
    gc.collect()
    cut_short(promptlayer)
    assert session.usage.first_token_seconds is not None


@pytest.mark.parametrize("way", ["astream", "atransform", "events v2"])
@pytest.mark.parametrize("how", ["aclose", "dropped", "cancelled"])
async def test_an_async_stream_that_is_given_up(promptlayer: FakePromptLayer, way: str, how: str) -> None:
    """The same for async ones, closed, dropped or cancelled [29]."""
    model = Streaming(hang_at=2)
    begun = asyncio.Event()

    async def read(stream: Any, last: str) -> None:
        async for item in stream:
            if last in str(item):
                begun.set()
                if how != "cancelled":
                    return

    async with pl_session():
        stream: Any = ASYNC[way](model)
        task = asyncio.create_task(read(stream, "content='h'"))
        async with asyncio.timeout(10):
            await begun.wait()
        if how == "cancelled":
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if how == "aclose":
            await stream.aclose()
    del stream, task
    gc.collect()
    for _ in range(20):
        await asyncio.sleep(0)
    gc.collect()
    await asyncio.to_thread(cut_short, promptlayer)


@needs_v3
@pytest.mark.parametrize("how", ["aclose", "with", "cancelled"])
async def test_an_async_v3_stream_that_is_closed(promptlayer: FakePromptLayer, how: str) -> None:
    """Its record keeps what had arrived, though LangChain hands over none of it [28]."""
    async with pl_session():
        stream = await Streaming(hang_at=2).astream_events("x", version="v3")
        async for text in stream.text:
            assert text == "h"
            break
        if how == "with":
            async with stream:
                pass
        elif how == "aclose":
            await stream.aclose()
        else:
            assert stream._producer_task is not None
            stream._producer_task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
    await asyncio.to_thread(cut_short, promptlayer)


@pytest.mark.parametrize("way", [pytest.param("events v3", marks=needs_v3), "astream_log"])
async def test_an_async_stream_that_langchain_reads_on(promptlayer: FakePromptLayer, way: str) -> None:
    """Given up by its reader, LangChain reads it to its end by itself: a success with the whole text [28]."""
    async with pl_session() as session:
        async for _ in ASYNC[way](MODEL):
            break
    for _ in range(30):
        await asyncio.sleep(0)
    await asyncio.to_thread(whole, promptlayer, session)


async def test_a_loop_that_ends_before_its_streams(promptlayer: FakePromptLayer) -> None:
    """asyncio.run cancels what still runs, and closes async generators: each is recorded as far as it came [29]."""

    async def main(way: str) -> None:
        with pl_session(way):
            stream: Any = ASYNC[way](Streaming(hang_at=2))
            while "'h'" not in str(await anext(stream)):
                pass
            held.append(stream)

    held: list[Any] = []
    ways = {"astream", "events v3"} & ASYNC.keys()
    for way in ways:
        await asyncio.to_thread(asyncio.run, main(way))
    assert not _handler._live
    await pltrack.aflush(10)
    assert [each.body["status"] for each in promptlayer.requests] == ["WARNING"] * len(ways)
    assert [said(each) for each in promptlayer.requests] == ["h"] * len(ways)


@pytest.mark.parametrize("way", [*SYNC, *ASYNC])
async def test_a_stream_that_fails_in_the_middle(promptlayer: FakePromptLayer, way: str) -> None:
    """The error reaches the reader; the record is an ERROR with its words and what had arrived [28]."""
    model = Streaming(fail_at=2)
    async with pl_session() as session:
        with pytest.raises(ConnectionError, match="cut"):  # noqa: PT012 -- sync and async ways
            if way in SYNC:
                list(SYNC[way](model))
            else:
                [item async for item in ASYNC[way](model)]
    for _ in range(3):
        await asyncio.sleep(0)
    await pltrack.aflush(10)
    (logged,) = promptlayer.requests
    assert (logged.body["status"], logged.body["error_message"]) == ("ERROR", "ConnectionError: cut")
    assert said(logged) == "he"
    assert session.usage.first_token_seconds is not None


@needs_v3
def test_a_tool_call_that_had_not_arrived_whole(promptlayer: FakePromptLayer) -> None:
    """Thoughts and pieces of tool calls of a v3 stream that is given up are kept [28]."""
    with pl_session():
        stream = iter(Calling().stream_events("x", version="v3"))
        while "'h'" not in str(next(stream)):
            pass
        del stream
    gc.collect()
    logged = cut_short(promptlayer)
    (message,) = logged.body["output"]["messages"]
    assert message["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1'}
    assert "hm" in str(message["content"])


@needs_v3
def test_a_v3_stream_that_is_held_is_not_given_up(promptlayer: FakePromptLayer) -> None:
    """However long its reader waits and whatever is collected meanwhile, it goes on [28]."""
    with pl_session() as session:
        stream = iter(MODEL.stream_events("x", version="v3"))
        for _ in range(3):
            next(stream)
            gc.collect()
    gc.collect()
    assert session.last.status is None
    assert list(stream)
    whole(promptlayer, session)


@needs_v3
def test_a_v3_stream_under_a_run_id_given_twice() -> None:
    """Each keeps the id it had, also where the user's own run id is used again [21, 28]."""
    import uuid

    own = uuid.uuid4()
    with pl_session() as session:
        for _ in range(2):
            list(MODEL.stream_events("x", version="v3", config={"run_id": own}))
    assert len(set(session.ids)) == 2
    assert session.ids[0] == str(own)
    assert [each.status for each in session.requests] == ["SUCCESS"] * 2


async def test_a_limiter_that_refuses_a_stream(promptlayer: FakePromptLayer) -> None:
    """LangChain reports no end for it: it is a WARNING once its error is forgotten, sync and async [19]."""

    class Async(Refused):
        async def aacquire(self, *, blocking: bool = True) -> bool:
            raise ConnectionError("limited")

    def sync() -> None:
        with pl_session("sync"), contextlib.suppress(ConnectionError):
            list(Streaming(rate_limiter=Refused()).stream("x"))

    async def asynchronous() -> None:
        async with pl_session("async"):
            with contextlib.suppress(ConnectionError):
                [_ async for _ in Streaming(rate_limiter=Async()).astream("x")]

    await asyncio.to_thread(sync)
    await asyncio.create_task(asynchronous())
    gc.collect()
    for _ in range(3):
        await asyncio.sleep(0)
    await pltrack.aflush(10)
    assert [each.body["status"] for each in promptlayer.requests] == ["WARNING"] * 2
    assert not _handler._live


async def test_an_interrupt_from_the_keyboard() -> None:
    """Ctrl-C in ainvoke, of which LangChain says nothing, and in stream and invoke: recorded, none left open [34]."""

    class Interrupted(FakeListChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyboardInterrupt

        def _call(self, *args: Any, **kwargs: Any) -> str:
            raise KeyboardInterrupt

    model = Interrupted(responses=["x"])

    def run_it() -> None:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(model.ainvoke("x"))
        with pytest.raises(KeyboardInterrupt):
            model.invoke("x")

    with pl_session() as session:
        await asyncio.to_thread(run_it)
    assert [each.status for each in session.requests] == ["WARNING", "WARNING"]
    assert not _handler._live


async def test_a_model_that_raises_a_cancellation_itself() -> None:
    """LangChain turns it into an AttributeError for the caller [35]: so it does with us; the record is a WARNING."""

    class Cancelling(FakeListChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            raise asyncio.CancelledError

    async def ask() -> Any:
        try:
            await Cancelling(responses=[]).ainvoke("x")
        except BaseException as error:
            return type(error)

    without = await ask()
    async with pl_session() as session:
        assert await ask() is without
    assert session.last.status == "WARNING"


async def test_a_cancelled_call_that_had_begun_to_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """astream_events streams the call inside; cancelled by a timeout, it is recorded after the block [23, 34]."""
    monkeypatch.setattr(_handler, "_GRACE", 0.01)
    model = Streaming(hang_at=3, hangs=asyncio.Event())

    async def step(x: Any) -> Any:
        return await model.ainvoke(x)

    async def give_up(limit: asyncio.Timeout) -> None:
        await model.hangs.wait()
        limit.reschedule(asyncio.get_running_loop().time())

    async def read() -> None:
        async with asyncio.timeout(30) as limit:
            waiting = asyncio.create_task(give_up(limit))
            [_ async for _ in RunnableLambda(step).astream_events("x", version="v2")]
        await waiting

    async with pl_session() as session:
        with pytest.raises(TimeoutError):
            await read()
    gc.collect()
    async with asyncio.timeout(10):
        while session.last.status is None:
            await asyncio.sleep(0)
    assert session.last.status == "WARNING"
    assert not _handler._live


@needs_v3
def test_a_stream_open_at_the_end_of_the_program(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """It gets no event any more: it is recorded as far as it came, v3 ones with what had arrived [31]."""
    program = """
        with pltrack.pl_session() as s:
            held = [model.stream("x"), iter(model.stream_events("x", version="v3"))]
            for each in held:
                for _ in range(3): next(each)
        print(*s.ids)
    """
    ids = run(program, environment(tmp_path / "j.db", promptlayer)).split()
    promptlayer.wait_for(lambda pl: len(pl.requests) == 2)
    logged = [promptlayer.by_pltrack_id(own) for own in ids]
    assert [each.body["status"] for each in logged] == ["WARNING"] * 2
    assert [said(each) for each in logged] == ["", "f"]

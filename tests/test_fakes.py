"""The fakes of our own tests, held against the real clients that will call them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import tiny_gguf
from fake_openai import FakeOpenAI
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def chat(server: FakeOpenAI) -> Any:
    def make(model: str = "gpt-4o-mini", **settings: Any) -> ChatOpenAI:
        return ChatOpenAI(model=model, base_url=server.url, api_key="sk-test", **{"max_retries": 0, **settings})

    return make


def test_chat_model_is_answered_with_usage(server: FakeOpenAI, chat: Any) -> None:
    """`invoke` gets the text, the model's full name and the tokens, and the server remembers the call."""
    answer = chat().invoke("hi")
    assert answer.content == "Hello there"
    assert answer.response_metadata["model_name"] == "gpt-4o-mini-2024-01-01"
    assert answer.usage_metadata["total_tokens"] == 18
    assert answer.usage_metadata["input_token_details"]["cache_read"] == 4
    assert answer.usage_metadata["output_token_details"]["reasoning"] == 2
    assert [call.path for call in server.requests] == ["/v1/chat/completions"]
    assert server.requests[0].body["messages"] == [{"content": "hi", "role": "user"}]


def test_stream_comes_in_words_and_tells_usage_when_asked(chat: Any) -> None:
    """A stream has several chunks; the last one carries the usage if `stream_usage` asks for it."""
    chunks = list(chat(stream_usage=True).stream("hi"))
    assert [chunk.content for chunk in chunks if chunk.content] == ["Hel", "lo ", "there"]
    assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) == 18
    unasked = chat(stream_usage=False).stream("hi")
    assert not any(chunk.usage_metadata for chunk in unasked)


async def _collect(model: ChatOpenAI) -> str:
    return "".join([str(chunk.content) async for chunk in model.astream("hi")])


def test_async_stream_is_the_same(chat: Any) -> None:
    """The asynchronous client gets the same words."""
    assert asyncio.run(_collect(chat())) == "Hello there"


def test_candidates_are_as_many_as_asked(chat: Any) -> None:
    """`n=3` gives three candidates."""
    result = chat(n=3).generate([[HumanMessage("hi")]])
    assert [each.text for each in result.generations[0]] == ["Hello there"] * 3


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_tool_is_called_once_and_its_result_ends_it(chat: Any) -> None:
    """The model `tool` calls the first tool offered, and speaks once it has the result."""
    model = chat("tool").bind_tools([add])
    asked = model.invoke("1+1?")
    assert asked.tool_calls == [{"name": "add", "args": {"a": 1, "b": 1}, "id": "call_1", "type": "tool_call"}]
    assert asked.response_metadata["finish_reason"] == "tool_calls"
    told = model.invoke([HumanMessage("1+1?"), asked, ToolMessage("2", tool_call_id="call_1")])
    assert (told.content, told.tool_calls) == ("Hello there", [])


def test_tool_call_can_be_streamed_and_asked_for_in_words(chat: Any) -> None:
    """Any model calls the tool when the last message says so, in a stream too."""
    whole = None
    for chunk in chat().bind_tools([add]).stream("Please use the tool."):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("add", {"a": 1, "b": 1})]


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("err-400", openai.BadRequestError),
        ("err-401", openai.AuthenticationError),
        ("err-429", openai.RateLimitError),
        ("err-500", openai.InternalServerError),
    ],
)
def test_errors_are_the_real_clients_errors(model: str, error: type[Exception], chat: Any) -> None:
    """A model named `err-<status>` fails as OpenAI would, streamed or not."""
    with pytest.raises(error):
        chat(model).invoke("hi")
    with pytest.raises(error):
        list(chat(model).stream("hi"))


def test_cut_stream_breaks_in_the_middle(chat: Any) -> None:
    """The model `cut` says something, then the connection breaks."""
    heard: list[Any] = []
    with pytest.raises((httpx.HTTPError, openai.APIError)):
        heard.extend(chunk.content for chunk in chat("cut").stream("hi"))
    assert "".join(heard) == "Hello "


def test_slow_model_answers_all_the_same(chat: Any) -> None:
    """The model `slow` takes its few milliseconds and then says the same."""
    assert chat("slow").invoke("hi").content == "Hello there"


def test_completion_model_is_answered_and_streams(server: FakeOpenAI) -> None:
    """The old completion class works too: several prompts, usage, a stream."""
    model = OpenAI(model="gpt-3.5-turbo-instruct", base_url=server.url, api_key="sk-test", max_retries=0)
    result = model.generate(["one", "two"])
    assert [each[0].text for each in result.generations] == ["Hello there"] * 2
    assert result.llm_output["token_usage"]["total_tokens"] == 18
    assert list(model.stream("hi"))[:3] == ["Hel", "lo ", "there"]
    assert {call.path for call in server.requests} == {"/v1/completions"}


def test_unknown_path_is_not_found(server: FakeOpenAI) -> None:
    """What the server does not know it says so about, instead of inventing an answer."""
    answer = httpx.post(f"{server.url}/embeddings", json={"model": "m"})
    assert answer.status_code == 404


def test_tiny_model_is_the_same_every_time(tmp_path: Path) -> None:
    """Two files are equal byte for byte, and small."""
    first, second = tiny_gguf.make(tmp_path / "a.gguf"), tiny_gguf.make(tmp_path / "b.gguf")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 300_000


def test_tiny_model_talks_through_gpt4all(tmp_path: Path) -> None:
    """The real gpt4all backend loads the file and generates from it."""
    gpt4all = pytest.importorskip("gpt4all")
    path = tiny_gguf.make(tmp_path / "tiny.gguf")
    model = gpt4all.GPT4All(path.name, model_path=str(tmp_path), allow_download=False, device="cpu")
    try:
        assert isinstance(model.generate("hello", max_tokens=3), str)
    finally:
        model.close()

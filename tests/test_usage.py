"""Tokens and prices: what real models report, wherever they report it, is what is recorded; nothing is invented."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from fake_openai import FakeOpenAI
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.language_models.llms import BaseLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_openai import ChatOpenAI, OpenAI
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

import pltrack
from pltrack import pl_session
from pltrack._blueprint.usage import Usage, price, read_usage
from pltrack.testing import FakePromptLayer

# With more than one prompt langchain-openai adds up usage details that it cannot add up.
pytestmark = pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning")

SPOKEN = Usage(
    input_tokens=11,
    output_tokens=7,
    cached_tokens=4,
    reasoning_tokens=0,
    audio_input_tokens=3,
    audio_output_tokens=5,
)
TOLD = Usage(input_tokens=11, output_tokens=7, cached_tokens=4, reasoning_tokens=2)


@pytest.fixture
def model() -> Iterator[Any]:
    """Make models of OpenAI's real client, which ask a server on loopback."""
    with FakeOpenAI() as server, httpx.Client() as client:

        def make(name: str = "gpt-4o", kind: Any = ChatOpenAI, **more: Any) -> Any:
            given = {"api_key": "sk-test", "base_url": server.url, "http_client": client, "max_retries": 0}
            return kind(model=name, **given, **more)

        yield make


def used(call: Any) -> Usage | None:
    """Return the usage of the one call that is made."""
    with pl_session() as session:
        call()
    (request,) = session.requests
    assert request.outcome is not None
    return request.outcome.usage


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model().invoke("x"),
        lambda model: model(n=2).invoke("x"),
        lambda model: model(n=2).generate([[HumanMessage("x")]]),
        lambda model: list(model(stream_usage=True).stream("x")),
        lambda model: model(stream_usage=True, streaming=True).invoke("x"),
        lambda model: model(use_responses_api=True).invoke("x"),
        lambda model: model(use_responses_api=True, output_version="v1").invoke("x"),
    ],
    ids=["invoke", "candidates", "generate", "stream", "streaming", "responses", "v1"],
)
def test_usage_is_found_wherever_openai_puts_it(model: Any, call: Any) -> None:
    """Message, llm_output, response_metadata or chunks: the same tokens, once, with their parts. [74]"""
    assert used(lambda: call(model)) == TOLD


def test_a_completion_model_tells_totals_only(model: Any) -> None:
    """langchain-openai keeps the totals of a completion; the parts that it drops are not made up."""
    assert used(lambda: model("gpt-3.5-turbo-instruct", OpenAI).invoke("x")) == Usage(input_tokens=11, output_tokens=7)


def test_sound_is_counted(model: Any) -> None:
    """Audio tokens of input and output are told apart, and cost what sound costs."""
    assert used(lambda: model("spoken").invoke("x")) == SPOKEN
    million = Usage(input_tokens=1_000_000, output_tokens=0, audio_input_tokens=1_000_000)
    assert price("openai", "gpt-audio", million) == pytest.approx(32)
    assert price("openai", "gpt-audio", Usage(input_tokens=1_000_000, output_tokens=0)) == pytest.approx(2.5)


def test_sound_is_not_sold_as_text() -> None:
    """Where the list knows what a model's text costs and not its sound, a call with sound has no price."""
    sound = Usage(input_tokens=1_000_000, output_tokens=0, audio_input_tokens=1)
    assert price("openai", "gpt-4o-audio-preview", sound) is None
    assert price("openai", "gpt-4o-audio-preview", Usage(input_tokens=1_000_000, output_tokens=0)) is not None


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_service_tiers_hide_nothing(model: Any, tier: str) -> None:
    """LangChain renames the parts of a call in another tier; cached and reasoning tokens are found all the same."""
    found = used(lambda: model(tier).invoke("x"))
    assert found == Usage(input_tokens=11, output_tokens=7, cached_tokens=4, reasoning_tokens=2, tier=tier)


def test_a_tier_has_its_own_price_or_none() -> None:
    """Flex costs less than the standard tier and priority more; where a tier's price is not known none is told."""

    def cost(tier: str | None, year: int = 2027, model: str = "gpt-5") -> float | None:
        tokens = Usage(input_tokens=1_000_000, output_tokens=0, tier=tier)
        return price("openai", model, tokens, datetime(year, 1, 1, tzinfo=UTC))

    assert [cost("flex"), cost(None), cost("priority")] == [0.625, 1.25, 2.5]
    assert cost("flex", year=2026) is None
    assert cost("flex", model="gpt-3.5-turbo") is None


def test_written_cache_tokens() -> None:
    """OpenAI's own spelling of tokens written to its cache is understood, raw and in a tier."""
    raw = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 5}}
    assert read_usage(raw) == Usage(input_tokens=9, output_tokens=1, cache_write_tokens=5)
    tier = {"input_tokens": 9, "output_tokens": 1, "input_token_details": {"flex_cache_creation": 5, "flex": 9}}
    assert read_usage(tier) == Usage(input_tokens=9, output_tokens=1, cache_write_tokens=5, tier="flex")


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


def test_streams_without_usage_have_none(promptlayer: FakePromptLayer, model: Any) -> None:
    """Behind a URL of its own, ChatOpenAI streams no usage: none is told, and `stream_usage=True` is the remedy.

    A graph's `stream_mode="messages"` turns an `invoke` in a node into such a stream. [59] [73]"""

    def graph(asked: Any) -> Any:
        built: Any = StateGraph(State)
        built.add_node("n", lambda state: {"messages": [asked.invoke(state["messages"])]})
        built.add_edge(START, "n")
        return built.compile()

    given = {"messages": [HumanMessage("x")]}
    assert used(lambda: list(model().stream("x"))) is None
    assert used(lambda: list(graph(model()).stream(given, stream_mode="messages"))) is None
    assert used(lambda: graph(model()).invoke(given)) == TOLD
    assert used(lambda: list(graph(model(stream_usage=True)).stream(given, stream_mode="messages"))) == TOLD
    pltrack.flush(10)
    assert sorted(logged.body["input_tokens"] for logged in promptlayer.requests) == [0, 0, 11, 11]


def test_the_history_is_not_counted_again() -> None:
    """Answers of earlier turns carry their usage along; only this call's own counts. [87]"""
    earlier = AIMessage("a", usage_metadata={"input_tokens": 500, "output_tokens": 500, "total_tokens": 1000})
    own = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    speaking = GenericFakeChatModel(messages=iter([AIMessage("b", usage_metadata=own)]))  # type: ignore[arg-type]
    assert used(lambda: speaking.invoke([HumanMessage("x"), earlier])) == Usage(input_tokens=3, output_tokens=5)
    silent = FakeListChatModel(responses=["b"])
    assert used(lambda: silent.invoke([HumanMessage("x"), earlier])) is None


def test_a_batch_of_completions_is_counted_for_nobody() -> None:
    """A completion model tells one total for a whole batch, with its first run: it is not that run's own."""

    class Totalling(BaseLLM):
        @property
        def _llm_type(self) -> str:
            return "totalling"

        def _generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
            total = {"prompt_tokens": 3 * len(prompts), "completion_tokens": 7}
            answers = [[Generation(text="a")] for _ in prompts]
            return LLMResult(generations=answers, llm_output={"token_usage": total})

    with pl_session() as batch:
        Totalling().batch(["a", "b", "c"])
    with pl_session() as single:
        Totalling().invoke("a")
    assert (batch.usage.calls, batch.usage.input_tokens) == (3, 0)
    assert (single.usage.calls, single.usage.input_tokens) == (1, 3)


def test_what_a_cache_answers_costs_nothing(promptlayer: FakePromptLayer, model: Any) -> None:
    """LangChain's cache repeats the tokens of a call: the repetition is marked, costs 0 and is sent with 0 tokens."""
    pltrack.configure(send_price=True)
    cached = model(cache=InMemoryCache())
    with pl_session() as session:
        first, second = cached.invoke("x"), cached.invoke("x")
    assert first.content == second.content
    pltrack.flush(10)
    paid, free = (promptlayer.by_pltrack_id(own) for own in session.ids)
    assert paid.body["price"] == session.requests[0].usage.cost == pytest.approx(17.5e-6 + 5e-6 + 70e-6)
    assert (paid.body["input_tokens"], "cache_hit" in paid.metadata) == (11, False)
    assert (free.body["price"], session.requests[1].usage.cost) == (0, 0)
    assert (free.body["input_tokens"], free.body["output_tokens"], free.metadata["cache_hit"]) == (0, 0, "true")
    assert session.usage.cost == paid.body["price"]


def test_cached_tokens_cost_what_they_cost(model: Any) -> None:
    """The price of a real call: 7 fresh and 4 cached input tokens, 7 output tokens, at the model's list prices."""
    with pl_session() as session:
        model("gpt-4o").invoke("x")
    assert session.usage.cost == pytest.approx((7 * 2.5 + 4 * 1.25 + 7 * 10) / 1e6)


def test_no_price_is_made_up(promptlayer: FakePromptLayer, model: Any) -> None:
    """A model that no list knows has tokens and no price, and none is sent."""
    pltrack.configure(send_price=True)
    with pl_session() as session:
        model("my-own-finetune").invoke("x")
    pltrack.flush(10)
    assert session.usage.cost is None
    assert (session.usage.input_tokens, "price" in promptlayer.requests[0].body) == (11, False)

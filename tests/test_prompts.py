"""Prompts from the registry: what they become, how they link themselves, what serves when PromptLayer is away."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from journals import opened
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, convert_to_openai_messages
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from oldest import asks_first

import pltrack
from pltrack.errors import PromptError, PromptNotFoundError
from pltrack.testing import FakePromptLayer, Fault

Wait = Callable[[Callable[[], object]], None]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    """Return a chat blueprint; a text is a user's message."""
    made = [{"role": "user", "content": [text(each)]} if isinstance(each, str) else each for each in messages]
    return {"type": "chat", "messages": made, **more}


def completion(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "completion", "content": [text(words)], **more}


def model() -> FakeListChatModel:
    return FakeListChatModel(responses=["ok"])


def fetches(pl: FakePromptLayer) -> int:
    return sum(call.path.startswith("/prompt-templates/") for call in pl.calls)


def in_order(pl: FakePromptLayer) -> list[Any]:
    """Return the requests in the order of their calls: they are delivered several at a time."""
    return sorted(pl.requests, key=lambda logged: logged.body["request_start_time"])


def link(pl: FakePromptLayer, position: int = -1) -> tuple[Any, Any, Any]:
    """Deliver everything and return what a request is linked to: name, version, variables."""
    assert pltrack.flush(10).pending == 0
    prompt = in_order(pl)[position].prompt
    assert prompt is not None
    return prompt["name"], prompt["version"], prompt["variables"]


def said(template: Any, **variables: Any) -> list[Any]:
    return [message.content for message in template.format_messages(**variables)]


# -- links ----------------------------------------------------------------------------------------------------


def test_a_chat_prompt_links_itself(promptlayer: FakePromptLayer) -> None:
    """`prompt | llm` links the request to the version, with the variables that were rendered. [88]"""
    promptlayer.publish("example", chat("old"))
    promptlayer.publish("example", chat("Name a {product} firm in {place}"))
    prompt = pltrack.prompts.get("example", langchain=True).partial(place="Oslo")
    with pltrack.pl_session():
        (prompt | model()).invoke({"product": "toasters", "unused": "x"})
    assert link(promptlayer) == ("example", 2, {"product": "toasters", "place": "Oslo"})


async def test_a_chat_prompt_links_itself_in_async_code(promptlayer: FakePromptLayer) -> None:
    """`ainvoke` links like `invoke`."""
    promptlayer.publish("example", chat("Hi {name}"))
    prompt = await pltrack.prompts.aget("example", version=1)
    async with pltrack.pl_session():
        await (prompt | model()).ainvoke({"name": "Ada"})
    await pltrack.aflush(10)
    assert link(promptlayer) == ("example", 1, {"name": "Ada"})


def test_partial_functions_are_called_once_and_told_as_rendered(promptlayer: FakePromptLayer) -> None:
    """A partial that is a function is told with the value that the message shows."""
    promptlayer.publish("example", chat("At {time}"))
    numbers = iter(range(100))
    prompt = pltrack.prompts.get("example").partial(time=lambda: str(next(numbers)))
    with pltrack.pl_session():
        (prompt | model()).invoke({})
    assert link(promptlayer) == ("example", 1, {"time": "0"})
    assert promptlayer.requests[0].body["input"]["messages"][0]["content"] == [text("At 0")]


@pytest.mark.parametrize("call", ["format", "invoke", "chain", "achain"])
def test_a_completion_prompt_links_itself(promptlayer: FakePromptLayer, call: str) -> None:
    """Text made by `format()` or `invoke()`, then given to a completion model, is known to be the prompt's. [92]"""
    promptlayer.publish("example", completion("Name a {product} firm"))
    prompt = pltrack.prompts.get("example", version=1)
    assert isinstance(prompt, PromptTemplate)
    llm = FakeListLLM(responses=["ok"])
    with pltrack.pl_session():
        if call == "format":
            llm.invoke(prompt.format(product="toaster"))
        elif call == "invoke":
            llm.invoke(prompt.invoke({"product": "toaster"}))
        elif call == "chain":
            (prompt | llm).invoke({"product": "toaster"})
        else:
            asyncio.run((prompt | llm).ainvoke({"product": "toaster"}))
    assert link(promptlayer) == ("example", 1, {"product": "toaster"})


def test_a_completion_prompt_before_a_chat_model(promptlayer: FakePromptLayer) -> None:
    """A completion prompt links itself to a chat model's request too, and a chat prompt to a completion model's."""
    promptlayer.publish("c", completion("Name a {product} firm"))
    promptlayer.publish("t", chat("Name a {product} firm"))
    with pltrack.pl_session():
        (pltrack.prompts.get("c") | model()).invoke({"product": "a"})
        (pltrack.prompts.get("t") | FakeListLLM(responses=["ok"])).invoke({"product": "b"})
    assert link(promptlayer, 0) == ("c", 1, {"product": "a"})
    assert link(promptlayer, 1) == ("t", 1, {"product": "b"})


def test_two_prompts_in_parallel_are_never_mixed(promptlayer: FakePromptLayer) -> None:
    """Many threads with two prompts: each request tells its own prompt and variables. [89]"""
    for name in "ab":
        promptlayer.publish(name, chat(f"{name} {{n}}"))
    prompts = {name: pltrack.prompts.get(name, version=1) for name in "ab"}

    def run(n: int) -> None:
        with pltrack.pl_session():
            (prompts["ab"[n % 2]] | model()).invoke({"n": str(n)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(40)))
    assert pltrack.flush(10).pending == 0
    for logged in promptlayer.requests:
        assert logged.prompt is not None
        name, n = logged.prompt["name"], logged.prompt["variables"]["n"]
        assert logged.body["input"]["messages"][0]["content"] == [text(f"{name} {n}")]
        assert name == "ab"[int(n) % 2]
    assert len(promptlayer.requests) == 40


def test_other_peoples_messages_are_left_alone(promptlayer: FakePromptLayer) -> None:
    """What comes through a placeholder carries no link of ours, not even after a call. [90]"""
    history = [HumanMessage("before"), AIMessage("yes")]
    promptlayer.publish("example", chat({"role": "placeholder", "name": "history"}, "Now {q}"))
    prompt = pltrack.prompts.get("example")
    made = prompt.format_messages(history=history, q="1")
    assert made[0] is history[0]
    assert made[1] is history[1]
    with pltrack.pl_session():
        model().invoke(history)
        model().invoke(made)
    pltrack.flush(10)
    assert in_order(promptlayer)[0].prompt is None
    before = [
        {"role": "user", "content": [text("before")]},
        {"role": "assistant", "content": [text("yes")]},
    ]
    assert link(promptlayer, 1) == ("example", 1, {"history": before, "q": "1"})


def test_the_history_of_an_earlier_turn_does_not_win(promptlayer: FakePromptLayer) -> None:
    """Messages that an earlier turn made, given again as history, do not hide this turn's variables."""
    promptlayer.publish("example", chat({"role": "placeholder", "name": "history"}, "Now {q}"))
    prompt = pltrack.prompts.get("example")
    first = prompt.format_messages(history=[], q="1")
    with pltrack.pl_session():
        model().invoke(prompt.format_messages(history=[*first, AIMessage("a")], q="2"))
        model().invoke(first)
    assert link(promptlayer, 0)[2]["q"] == "2"
    assert link(promptlayer, 1)[2]["q"] == "1"


def test_a_history_at_the_end_does_not_win_either(promptlayer: FakePromptLayer) -> None:
    """Messages of an earlier turn that come last tell this turn's link, on copies: their own stays as it was. [90]"""
    promptlayer.publish("example", chat("Now {q}", {"role": "placeholder", "name": "history"}))
    prompt = pltrack.prompts.get("example")
    first = prompt.format_messages(history=[], q="1")
    with pltrack.pl_session():
        model().invoke(prompt.format_messages(history=first, q="2"))
        model().invoke(first)
    assert link(promptlayer, 0)[2]["q"] == "2"
    assert link(promptlayer, 1)[2]["q"] == "1"


def test_static_messages_are_never_stamped(promptlayer: FakePromptLayer) -> None:
    """A template of literal messages only links through a copy: the literal itself stays clean. [90]"""
    promptlayer.publish("example", chat("{q}"))
    literal = SystemMessage("static")
    prompt = pltrack.prompts.get("example")
    prompt.messages[:] = [literal]
    prompt.input_variables = []
    with pltrack.pl_session():
        model().invoke(prompt.format_messages())
        model().invoke([literal])
    assert link(promptlayer, 0) == ("example", 1, {})
    assert in_order(promptlayer)[1].prompt is None


@pytest.mark.parametrize(
    "derive",
    [
        lambda prompt: prompt.partial(a="1"),
        lambda prompt: prompt.model_copy(),
        copy.deepcopy,
        lambda prompt: pickle.loads(pickle.dumps(prompt)),
        lambda prompt: prompt + HumanMessage("more"),
        lambda prompt: prompt + MessagesPlaceholder("h", optional=True),
    ],
    ids=["partial", "copy", "deepcopy", "pickle", "message", "placeholder"],
)
def test_derived_templates_keep_the_link(promptlayer: FakePromptLayer, derive: Any) -> None:
    """Partial, copied, pickled and lengthened templates link like the one they came from. [91]"""
    promptlayer.publish("example", chat("{a} {b}"))
    prompt = derive(pltrack.prompts.get("example"))
    assert prompt.metadata == {"prompt_name": "example", "prompt_version": 1}
    with pltrack.pl_session():
        (prompt | model()).invoke({"a": "1", "b": "2"})
    name, version, variables = link(promptlayer)
    assert (name, version, variables["a"], variables["b"]) == ("example", 1, "1", "2")


def linked(pl: FakePromptLayer) -> dict[str, Any]:
    """Deliver everything and return, for each request by what it was asked, what it is linked to."""
    assert pltrack.flush(10).pending == 0
    found: dict[str, Any] = {}
    for logged in pl.requests:
        given = logged.body["input"]
        last = given["messages"][-1] if given["type"] == "chat" else given
        prompt = logged.prompt
        found[last["content"][0]["text"]] = prompt and (prompt["name"], prompt["variables"])
    return found


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_the_same_words_of_two_prompts(promptlayer: FakePromptLayer, kind: str) -> None:
    """Two prompts that come to the same words, called in the other order, are not taken for each other. [92]"""
    for name in "ab":
        promptlayer.publish(name, completion("Hi {x}"))
    first, second = (pltrack.prompts.get(name).format(x="1") for name in "ab")
    asked: Any = FakeListLLM(responses=["ok"]) if kind == "completion" else model()
    with pltrack.pl_session():
        for each in (second, first):
            asked.invoke(each)
    assert [link(promptlayer, position)[0] for position in (0, 1)] == ["b", "a"]


def test_words_of_somebody_elses(promptlayer: FakePromptLayer) -> None:
    """A text that only equals what a prompt rendered is not the prompt's, nor is the variable in it. [92]"""
    promptlayer.publish("a", completion("{question}"))
    question = "What is the capital of Norway?"
    rendered = pltrack.prompts.get("a").format(question=question)
    assert rendered == question
    with pltrack.pl_session():
        FakeListLLM(responses=["ok"]).invoke(question)
        model().invoke("".join(question.partition(" ")))
    pltrack.flush(10)
    assert [logged.prompt for logged in promptlayer.requests] == [None, None]
    with pltrack.pl_session():
        FakeListLLM(responses=["ok"]).invoke(rendered)
    assert link(promptlayer)[0] == "a"


def test_a_formatted_text_among_messages(promptlayer: FakePromptLayer) -> None:
    """`format()` of a completion or a chat prompt links where its text is given as one message of several. [92]"""
    promptlayer.publish("c", completion("Completion {x}"))
    promptlayer.publish("t", chat("Chat {x}"))
    with pltrack.pl_session():
        for name in "ct":
            text_of = pltrack.prompts.get(name).format(x="1")
            model().invoke([SystemMessage("s"), HumanMessage(text_of)])
            model().invoke([("system", "s"), ("user", text_of)])
    pltrack.flush(10)
    assert [link(promptlayer, position)[0] for position in range(4)] == ["c", "c", "t", "t"]


async def test_two_prompts_in_many_tasks(promptlayer: FakePromptLayer) -> None:
    """Tasks that format, wait and call in any order: each request tells its own prompt, chat or completion. [89]"""
    promptlayer.publish("a", chat("Q {n}"))
    promptlayer.publish("b", completion("Q {n}"))
    prompts = {name: await pltrack.prompts.aget(name) for name in "ab"}

    async def run(name: str, n: int) -> tuple[str, str]:
        async with pltrack.pl_session() as session:
            given = prompts[name].format(n=str(n)) if n % 2 else await prompts[name].ainvoke({"n": str(n)})
            await asyncio.sleep(0)
            asked: Any = FakeListLLM(responses=["ok"]) if n % 3 else model()
            await asked.ainvoke(given)
        return session.ids[0], name

    made = await asyncio.gather(*(run(name, n) for n in range(12) for name in "ab"))
    assert (await pltrack.aflush(10)).pending == 0
    for own, name in made:
        logged = promptlayer.by_pltrack_id(own)
        assert logged.prompt is not None
        assert logged.prompt["name"] == name


def test_prompts_through_graphs(promptlayer: FakePromptLayer) -> None:
    """A prompt in a node, one whose messages a graph carries in its state, and one that is an agent's own."""
    for name in ("node", "state", "system"):
        promptlayer.publish(name, chat(f"{name} {{x}}"))
    prompts = {name: pltrack.prompts.get(name) for name in ("node", "state", "system")}
    graph: Any = StateGraph(MessagesState)
    graph.add_node("a", lambda _: {"messages": [(prompts["node"] | model()).invoke({"x": "1"})]})
    graph.add_node("b", lambda state: {"messages": [model().invoke(state["messages"][:1])]})
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    given = prompts["state"].format_messages(x="2")
    (system,) = prompts["system"].format_messages(x="3")
    with pltrack.pl_session():
        graph.compile(checkpointer=InMemorySaver()).invoke({"messages": given}, {"configurable": {"thread_id": "1"}})
        create_agent(model(), [], system_prompt=SystemMessage(system.content)).invoke({"messages": [("user", "own")]})
        create_agent(model(), []).invoke({"messages": [system, HumanMessage("agent")]})
    assert linked(promptlayer) == {
        "node 1": ("node", {"x": "1"}),
        "state 2": ("state", {"x": "2"}),
        "own": None,
        "agent": ("system", {"x": "3"}),
    }


def test_a_checkpoint_forgets_the_link(promptlayer: FakePromptLayer) -> None:
    """The turn in which a prompt was rendered is linked; a later turn, whose history was stored, is not. [89]"""
    promptlayer.publish("example", chat("Hi {x}"))
    agent = create_agent(model(), [], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    with pltrack.pl_session():
        agent.invoke({"messages": pltrack.prompts.get("example").format_messages(x="1")}, config)
        agent.invoke({"messages": [("user", "more")]}, config)
    assert linked(promptlayer) == {"Hi 1": ("example", {"x": "1"}), "more": None}


def few_shot() -> FewShotChatMessagePromptTemplate:
    pair = ChatPromptTemplate.from_messages([("human", "{i}"), ("ai", "{o}")])
    return FewShotChatMessagePromptTemplate(examples=[{"i": "1", "o": "2"}], example_prompt=pair)


@pytest.mark.parametrize(
    "combine",
    [
        lambda prompt: prompt,
        lambda prompt: ChatPromptTemplate.from_messages([few_shot(), prompt]),
        lambda prompt: prompt + few_shot(),
        lambda prompt: ChatPromptTemplate.from_messages([("system", "s"), prompt, MessagesPlaceholder("h")]),
        lambda prompt: ChatPromptTemplate.from_messages([("system", "s {y}")]) + prompt,
        lambda prompt: (ChatPromptTemplate.from_messages([("system", "s")]) + prompt).partial(y="2"),
        lambda prompt: RunnableLambda(lambda given: given) | prompt | RunnableLambda(lambda made: made.to_messages()),
        lambda prompt: prompt.with_config(tags=["t"]),
    ],
    ids=["alone", "few-shot around", "few-shot", "nested", "before", "partial", "lambdas", "config"],
)
def test_what_a_prompt_is_put_into(promptlayer: FakePromptLayer, combine: Any) -> None:
    """Few-shot examples, templates of one's own around it, lambdas: the request is still the prompt's. [90] [91]"""
    promptlayer.publish("example", chat("Hi {x}"))
    with pltrack.pl_session():
        (combine(pltrack.prompts.get("example")) | model()).invoke({"x": "1", "y": "2", "h": []})
    name, version, variables = link(promptlayer)
    assert (name, version, variables["x"]) == ("example", 1, "1")


@pytest.mark.parametrize(
    "part",
    [
        lambda prompt: prompt[:1],
        lambda prompt: ChatPromptTemplate.from_messages(prompt.messages),
        pytest.param(lambda prompt: SystemMessage("s") + prompt, marks=asks_first),
        pytest.param(lambda prompt: SystemMessagePromptTemplate.from_template("s") + prompt, marks=asks_first),
        lambda prompt: prompt | RunnableLambda(lambda made: convert_to_openai_messages(made.to_messages())),
    ],
    ids=["slice", "parts", "behind a message", "behind a template", "rebuilt"],
)
def test_what_is_not_the_prompt_any_more(promptlayer: FakePromptLayer, part: Any) -> None:
    """A slice, a template built of its parts, `message + prompt` and messages built anew carry no link.

    It can be given by hand. [89] [91]
    """
    promptlayer.publish("example", chat("Hi {x}"))
    with pltrack.pl_session() as session:
        (part(pltrack.prompts.get("example")) | model()).invoke({"x": "1"})
        session.link_prompt("example", {"x": "1"}, version=1)
    assert session.last.linked is False
    assert link(promptlayer) == ("example", 1, {"x": "1"})


def test_attempts_and_fallbacks_link_each(promptlayer: FakePromptLayer) -> None:
    """One rendering that several models are asked with links each of the requests. [88] [89]"""

    class Failing(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            raise ConnectionError("no")

    promptlayer.publish("example", chat("Hi {x}"))
    failing = Failing(responses=[]).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    with pltrack.pl_session():
        (pltrack.prompts.get("example") | failing.with_fallbacks([model()])).invoke({"x": "1"})
    assert [link(promptlayer, position) for position in range(3)] == [("example", 1, {"x": "1"})] * 3


def test_a_picture_does_not_lose_the_link(promptlayer: FakePromptLayer) -> None:
    """LangChain copies messages with pictures before handlers see them; the copy is the prompt's, too. [91]"""
    picture = {"type": "image_url", "image_url": {"url": "http://x/{id}.png"}}
    promptlayer.publish("example", chat({"role": "user", "content": [text("Look"), picture]}))
    photo = {"type": "image", "url": "http://x/9.png"}
    prompt = pltrack.prompts.get("example")
    (made,) = prompt.format_messages(id="7")
    made.content.append(photo)
    with pltrack.pl_session():
        model().invoke([made])
    assert link(promptlayer) == ("example", 1, {"id": "7"})


def test_a_link_by_hand_wins(promptlayer: FakePromptLayer) -> None:
    """On the request itself a link by hand replaces the prompt's own; on the session it leaves linked ones alone."""
    for name in ("auto", "hand"):
        promptlayer.publish(name, chat("Hi {x}"))
    chain = pltrack.prompts.get("auto") | model()
    with pltrack.pl_session() as session:
        chain.invoke({"x": "1"})
        chain.invoke({"x": "2"})
        model().invoke("own")
        session.requests[0].link_prompt("hand", {"x": "by hand"}, version=1)
        assert session.link_prompt("hand", {"x": "all"}, version=1) == 1
    assert link(promptlayer, 0) == ("hand", 1, {"x": "by hand"})
    assert link(promptlayer, 1) == ("auto", 1, {"x": "2"})
    assert link(promptlayer, 2) == ("hand", 1, {"x": "all"})


def test_a_prompt_rendered_before_the_session(promptlayer: FakePromptLayer) -> None:
    """Rendered outside any session, in another thread: the call in the session is linked. [88]"""
    promptlayer.publish("example", chat("Hi {x}"))
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(pltrack.prompts.get("example").invoke, {"x": "1", "unused": "y"}).result(10)
    with pltrack.pl_session():
        model().invoke("something else")
        model().invoke(made)
    assert linked(promptlayer) == {"something else": None, "Hi 1": ("example", {"x": "1"})}


# -- templates ------------------------------------------------------------------------------------------------


def test_formats_are_per_message(promptlayer: FakePromptLayer) -> None:
    """f-string and Jinja2 stand side by side in one prompt."""
    jinja = {
        "role": "system",
        "content": [text("{% for x in items %}<{{ x }}>{% endfor %} {a}")],
        "template_format": "jinja2",
    }
    promptlayer.publish("example", chat(jinja, "{a} and {{a}}"))
    prompt = pltrack.prompts.get("example")
    assert sorted(prompt.input_variables) == ["a", "items"]
    assert said(prompt, a="1", items=["p", "q"]) == ["<p><q> {a}", "1 and {a}"]


def test_jinja2_completion(promptlayer: FakePromptLayer) -> None:
    """A Jinja2 completion is rendered as Jinja2."""
    promptlayer.publish("example", completion("Hi {{ name }} {x}", template_format="jinja2"))
    assert pltrack.prompts.get("example").format(name="Ada") == "Hi Ada {x}"


@pytest.mark.parametrize(
    ("template", "declared", "rendered"),
    [
        ('{"a": {"b": 1}} for {x}', ["x"], '{"a": {"b": 1}} for X'),
        ('{"a": "{x}"}', [], '{"a": "X"}'),
        ('{{"a": "{x}"}}', [], '{"a": "X"}'),
        ("{x} not {y}", ["x"], "X not {y}"),
        ("{x} {} {0} {a.b} {", [], "X {} {0} {a.b} {"),
        ("function() { return {x}; }", ["x"], "function() { return X; }"),
        ("{x!r:>5}", [], "  'X'"),
    ],
)
def test_braces_that_are_no_variables_are_literal(
    promptlayer: FakePromptLayer, template: str, declared: list[str], rendered: str
) -> None:
    """JSON and code in an f-string template are shown as they are written."""
    promptlayer.publish("example", chat(template, input_variables=declared))
    prompt = pltrack.prompts.get("example")
    assert prompt.input_variables == ["x"]
    assert said(prompt, x="X") == [rendered]


def test_roles_and_tools(promptlayer: FakePromptLayer) -> None:
    """Every role has its message, tool calls and answers included; the tools stay with the template."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    blueprint = chat(
        {"role": "developer", "content": [text("be {mood}")]},
        {"role": "assistant", "content": [], "tool_calls": [call]},
        {"role": "tool", "content": [text("it is {mood}")], "tool_call_id": "c1"},
        {"role": "user", "content": [text("so?")], "name": "Ada"},
        tools=tools,
        tool_choice="auto",
    )
    promptlayer.publish("example", blueprint)
    prompt = pltrack.prompts.get("example")
    system, assistant, tool, user = prompt.format_messages(mood="kind")
    assert system.additional_kwargs["__openai_role__"] == "developer"
    assert assistant.tool_calls == [{"name": "f", "args": {"a": 1}, "id": "c1", "type": "tool_call"}]
    assert tool == ToolMessage("it is kind", tool_call_id="c1")
    assert user.additional_kwargs["name"] == "Ada"
    assert (prompt.metadata["tools"], prompt.metadata["tool_choice"]) == (tools, "auto")


def test_images_and_media_variables(promptlayer: FakePromptLayer) -> None:
    """Images become blocks, a media variable takes one address or several, an unknown block is kept as text."""
    blocks = [
        text("Look: {q}"),
        {"type": "image_url", "image_url": {"url": "https://x/{id}.png", "detail": "low"}},
        {"type": "media_variable", "name": "photos"},
        {"type": "thinking", "thinking": "{hm}", "signature": None},
    ]
    promptlayer.publish("example", chat({"role": "user", "content": blocks}))
    prompt = pltrack.prompts.get("example")
    assert sorted(prompt.input_variables) == ["id", "photos", "q"]
    photos = ["https://x/1.png", "https://x/2.png"]
    (content,) = said(prompt, q="a", id="7", photos=photos)
    assert content[0] == text("Look: a")
    assert content[1] == {"type": "image_url", "image_url": {"url": "https://x/7.png", "detail": "low"}}
    assert [block["image_url"]["url"] for block in content[2:4]] == photos
    assert json.loads(content[4]["text"])["thinking"] == "{hm}"


def test_the_sdks_dict(promptlayer: FakePromptLayer) -> None:
    """`langchain=False` gives the SDK's dict, unrendered and the caller's own."""
    promptlayer.publish("example", chat("Hi {name}"), tags=["t"], commit_message="first")
    found = pltrack.prompts.get("example", langchain=False)
    assert (found["prompt_name"], found["version"], found["tags"]) == ("example", 1, ["t"])
    found["prompt_template"]["messages"].clear()
    again = pltrack.prompts.get("example", False)
    assert again["prompt_template"]["messages"][0]["content"] == [text("Hi {name}")]


def test_input_variables_are_filled_in(promptlayer: FakePromptLayer) -> None:
    """`input_variables` give a partial template, or a rendered dict."""
    promptlayer.publish("example", chat("Hi {name}"))
    given = {"name": "Ada"}
    assert said(pltrack.prompts.get("example", input_variables=given)) == ["Hi Ada"]
    rendered = pltrack.prompts.get("example", langchain=False, input_variables=given)
    assert rendered["prompt_template"]["messages"][0]["content"] == [text("Hi Ada")]
    promptlayer.fail(Fault(status=500))
    rendered = pltrack.prompts.get("example", langchain=False, input_variables=given)
    assert rendered["prompt_template"]["messages"][0]["content"] == [text("Hi Ada")]
    assert said(pltrack.prompts.get("example"), name="Bo") == ["Hi Bo"]


# -- fetching -------------------------------------------------------------------------------------------------


def test_a_pinned_version_is_fetched_once_for_ever(promptlayer: FakePromptLayer) -> None:
    """A version comes from the journal ever after, in a new runtime too."""
    promptlayer.publish("example", chat("one"))
    for _ in range(3):
        assert said(pltrack.prompts.get("example", version=1, max_age=0)) == ["one"]
    pltrack.shutdown(1)
    assert said(pltrack.prompts.get("example", version=1)) == ["one"]
    assert fetches(promptlayer) == 1


def test_a_label_is_served_and_refreshed_behind(promptlayer: FakePromptLayer, wait_until: Wait) -> None:
    """A young label needs no network; an older one serves at once and is asked for behind."""
    promptlayer.publish("example", chat("one"), labels=["prod"])
    for _ in range(2):
        assert said(pltrack.prompts.get("example", label="prod")) == ["one"]
    assert fetches(promptlayer) == 1
    promptlayer.publish("example", chat("two"), labels=["prod"])
    assert said(pltrack.prompts.get("example", label="prod")) == ["one"]
    assert said(pltrack.prompts.get("example", label="prod", max_age=1e-9)) == ["one"]
    wait_until(lambda: said(pltrack.prompts.get("example", label="prod")) == ["two"])
    assert fetches(promptlayer) == 2


def test_the_newest_is_a_label_too(promptlayer: FakePromptLayer) -> None:
    """Without version and label the newest is kept for `max_age`; `max_age=0` asks each time."""
    promptlayer.publish("example", chat("one"))
    assert said(pltrack.prompts.get("example")) == ["one"]
    promptlayer.publish("example", chat("two"))
    assert said(pltrack.prompts.get("example")) == ["one"]
    assert said(pltrack.prompts.get("example", max_age=0)) == ["two"]


def test_a_silent_server_does_not_hold_up_what_is_known(promptlayer: FakePromptLayer) -> None:
    """With something in the journal a silent PromptLayer costs the deadline at most."""
    promptlayer.publish("example", chat("one"), labels=["prod"])
    pltrack.prompts.get("example", label="prod")
    promptlayer.fail(Fault.silent(path="/prompt-templates"))
    started = time.monotonic()
    assert said(pltrack.prompts.get("example", label="prod", max_age=1e-9)) == ["one"]
    assert said(pltrack.prompts.get("example", label="prod", max_age=0, timeout=0.3)) == ["one"]
    assert said(pltrack.prompts.get("example", timeout=0.3)) == ["one"]
    assert time.monotonic() - started < 2


def test_a_silent_server_and_nothing_known(promptlayer: FakePromptLayer) -> None:
    """With nothing in the journal it is a PromptError, within the deadline; the fallback comes before it."""
    promptlayer.publish("example", chat("one"))
    promptlayer.fail(Fault.silent(path="/prompt-templates"))
    started = time.monotonic()
    with pytest.raises(PromptError, match=r"'example'.*did not answer within 0\.3 s"):
        pltrack.prompts.get("example", timeout=0.3)
    assert said(pltrack.prompts.get("example", timeout=0.3, fallback=chat("{q}")), q="x") == ["x"]
    assert time.monotonic() - started < 2


def test_many_gets_share_one_fetch_and_one_thread(promptlayer: FakePromptLayer) -> None:
    """A hundred threads that want the same of a silent server make one call; other prompts need no more threads."""
    promptlayer.fail(Fault.silent(path="/prompt-templates"))

    def get(n: int) -> str:
        with pytest.raises(PromptError):
            pltrack.prompts.get("example" if n else "other", timeout=0.5)
        return ",".join(each.name for each in threading.enumerate() if each.name == "pltrack-prompts")

    with ThreadPoolExecutor(100) as pool:
        assert set(pool.map(get, range(100))) == {"pltrack-prompts"}
    assert fetches(promptlayer) == 2


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault(status=500, body={"message": "boom"}), r"boom.*500"),
        (Fault(status=429, body={"message": "slow down"}), "slow down"),
        (Fault(status=401, body={"message": "no"}), r"refused the key \(401\)"),
        (Fault(status=404, body="<html>"), "does not seem to be PromptLayer"),
        (Fault.garbage(), "SDK failed|cannot be read"),
        (Fault(status=200, body={"hello": 1}), "is no prompt"),
        (Fault.drop(), "error while getting"),
    ],
)
def test_what_was_ever_fetched_serves(promptlayer: FakePromptLayer, fault: Fault, cause: str) -> None:
    """Whatever goes wrong at PromptLayer, the last known version serves; the error tells the cause at once."""
    promptlayer.publish("example", chat("one"), labels=["prod"])
    pltrack.prompts.get("example", label="prod")
    promptlayer.fail(fault)
    started = time.monotonic()
    assert said(pltrack.prompts.get("example", label="prod", max_age=0)) == ["one"]
    assert said(pltrack.prompts.get("example")) == ["one"]
    with pytest.raises(PromptError, match=cause) as caught:
        pltrack.prompts.get("example", version=7)
    assert not isinstance(caught.value, PromptNotFoundError)
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    "fallback", ["Hi {x}", completion("Hi {x}"), chat("Hi {x}"), PromptTemplate.from_template("Hi {x}")]
)
def test_the_fallback_serves_and_links_nothing(promptlayer: FakePromptLayer, fallback: Any) -> None:
    """A text, a blueprint or a template is returned as a template where there is nothing else."""
    promptlayer.fail(Fault(status=500, path="/prompt-templates"))
    prompt = pltrack.prompts.get("example", fallback=fallback)
    assert prompt.invoke({"x": "1"}).to_messages()[0].content == "Hi 1"
    as_dict = pltrack.prompts.get("example", langchain=False, fallback=fallback)
    assert as_dict["prompt_template"]["type"] in ("chat", "completion")
    with pltrack.pl_session():
        (prompt | model()).invoke({"x": "1"})
    pltrack.flush(10)
    assert promptlayer.requests[0].prompt is None


def test_no_such_prompt(promptlayer: FakePromptLayer) -> None:
    """A 404 is a PromptNotFoundError (a LookupError), unless there is a fallback."""
    promptlayer.publish("example", chat("one"))
    for wrong in ({"prompt_name": "nope"}, {"prompt_name": "example", "version": 9}):
        with pytest.raises(PromptNotFoundError, match=wrong["prompt_name"]):  # type: ignore[arg-type]
            pltrack.prompts.get(**wrong)  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="staging"):
        pltrack.prompts.get("example", label="staging")
    assert pltrack.prompts.get("nope", fallback="Hi").format() == "Hi"


def test_a_label_that_is_gone_is_noticed_behind(promptlayer: FakePromptLayer, wait_until: Wait) -> None:
    """What serves while it is asked for behind raises the next time when PromptLayer knows it no more."""
    promptlayer.publish("example", chat("one"), labels=["prod"])
    pltrack.prompts.get("example", label="prod")
    promptlayer.fail(Fault(status=404, path="/prompt-templates", body={"message": "gone"}))
    assert said(pltrack.prompts.get("example", label="prod", max_age=1e-9)) == ["one"]

    def is_gone() -> bool:
        try:
            pltrack.prompts.get("example", label="prod")
        except PromptNotFoundError:
            return True
        return False

    wait_until(is_gone)


async def test_aget_does_not_block_the_loop(promptlayer: FakePromptLayer) -> None:
    """While PromptLayer is silent the event loop goes on; here it is what ends the silence."""
    promptlayer.publish("example", chat("one"))
    promptlayer.fail(Fault.silent(path="/prompt-templates"))
    waiting = asyncio.create_task(pltrack.prompts.aget("example", timeout=20))
    await asyncio.to_thread(promptlayer.wait_for, lambda pl: fetches(pl) == 1)
    assert not waiting.done()
    promptlayer.heal()
    assert said(await waiting) == ["one"]
    promptlayer.fail(Fault.silent(path="/prompt-templates"))
    asked = [pltrack.prompts.aget(f"p{n}", timeout=0.5, fallback="x") for n in range(20)]
    started = time.monotonic()
    assert {each.format() for each in await asyncio.gather(*asked)} == {"x"}
    assert time.monotonic() - started < 10


def test_a_cancelled_aget_does_not_cancel_the_others(promptlayer: FakePromptLayer) -> None:
    """Who shares a fetch with a task that is cancelled still gets the prompt."""
    promptlayer.publish("example", chat("one"))
    promptlayer.fail(Fault.silent(path="/prompt-templates"))

    async def main() -> Any:
        one, two = (asyncio.create_task(pltrack.prompts.aget("example", timeout=20)) for _ in range(2))
        await asyncio.to_thread(promptlayer.wait_for, lambda pl: fetches(pl) == 1)
        one.cancel()
        promptlayer.heal()
        return await two

    assert said(asyncio.run(main())) == ["one"]


def test_every_workspace_has_prompts_of_its_own(promptlayer: FakePromptLayer) -> None:
    """`api_key=`, or the session's key, chooses the workspace, in the journal too."""
    promptlayer.accept("pl_other")
    promptlayer.publish("example", chat("mine"))
    promptlayer.publish("example", chat("theirs"), api_key="pl_other")
    for _ in range(2):
        assert said(pltrack.prompts.get("example", version=1)) == ["mine"]
        assert said(pltrack.prompts.get("example", version=1, api_key="pl_other")) == ["theirs"]
        with pltrack.pl_session(api_key="pl_other"):
            assert said(pltrack.prompts.get("example", version=1)) == ["theirs"]
    assert fetches(promptlayer) == 2


def test_disabled(promptlayer: FakePromptLayer) -> None:
    """With pltrack disabled prompts still come, straight from PromptLayer."""
    promptlayer.publish("example", chat("one"))
    pltrack.configure(enabled=False)
    for _ in range(2):
        assert said(pltrack.prompts.get("example", version=1)) == ["one"]
    assert fetches(promptlayer) == 2


# -- publishing and listing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        ChatPromptTemplate.from_messages(
            [("system", 'Say {{"a": 1}} to {name}'), SystemMessage("{literal}"), MessagesPlaceholder("h")]
        ),
        ChatPromptTemplate.from_messages(
            [("human", [{"type": "text", "text": "{name}"}, {"type": "image_url", "image_url": "http://x/{h}"}])]
        ),
        ChatPromptTemplate.from_messages([("human", "{{ name }} {h}")], template_format="jinja2"),
        PromptTemplate.from_template("Hi {name}"),
    ],
)
def test_a_published_template_comes_back(promptlayer: FakePromptLayer, template: Any) -> None:
    """What a LangChain template renders, the published one renders too."""
    published = pltrack.prompts.publish("example", prompt_template=template, tags=["t"], labels=["prod"])
    assert (published["prompt_name"], published["version"]) == ("example", 1)
    variables = {"name": "Ada", "h": "x" if "h" not in str(getattr(template, "input_types", {})) else []}
    back = pltrack.prompts.get("example", label="prod")
    assert back.invoke(variables).to_messages() == template.invoke(variables).to_messages()


def test_publishing_is_seen_at_once(promptlayer: FakePromptLayer) -> None:
    """A text is a completion, a blueprint is itself; the newest and the labels are asked for anew."""
    assert pltrack.prompts.publish("example", "Hi {name}", labels=["prod"])["version"] == 1
    assert pltrack.prompts.get("example", label="prod").format(name="Ada") == "Hi Ada"
    assert pltrack.prompts.get("example").format(name="Ada") == "Hi Ada"
    published = pltrack.prompts.publish("example", chat("two"), labels=["prod"], commit_message="better")
    assert published["version"] == 2
    assert said(pltrack.prompts.get("example", label="prod")) == ["two"]
    assert said(pltrack.prompts.get("example")) == ["two"]


def test_publishing_fails_loudly_and_once(promptlayer: FakePromptLayer) -> None:
    """A publish is sent once; a refusal, an error and silence are PromptErrors."""
    for fault, cause in (
        (Fault(status=500, body={"message": "boom"}), "boom"),
        (Fault(status=401, body={"message": "no"}), "401"),
        (Fault.drop(), "error while publishing"),
        (Fault.silent(), r"within 0\.5 s"),
    ):
        promptlayer.fail(fault)
        before = len(promptlayer.calls)
        with pytest.raises(PromptError, match=cause):
            pltrack.prompts.publish("example", "Hi", timeout=0.5)
        assert len(promptlayer.calls) == before + 1
        promptlayer.heal()


def test_all(promptlayer: FakePromptLayer) -> None:
    """`all` lists prompts page by page, by label too."""
    for name in "abc":
        promptlayer.publish(name, chat("x"), labels=["prod"] if name == "b" else [])
    assert [each["prompt_name"] for each in pltrack.prompts.all(page=1, per_page=2)] == ["a", "b"]
    assert [each["prompt_name"] for each in pltrack.prompts.all(label="prod")] == ["b"]
    promptlayer.fail(Fault(status=500))
    with pytest.raises(PromptError):
        pltrack.prompts.all()


# -- the local registry ---------------------------------------------------------------------------------------


def test_the_local_registry(pltrack_journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key versions count up, labels move, and everything is found again."""
    monkeypatch.delenv("PROMPTLAYER_API_KEY", raising=False)
    assert pltrack.prompts.publish("example", chat("one"), labels=["prod"])["version"] == 1
    assert pltrack.prompts.publish("example", chat("two"), labels=["dev"], tags=["t"])["version"] == 2
    pltrack.shutdown(1)
    assert said(pltrack.prompts.get("example", version=1)) == ["one"]
    assert said(pltrack.prompts.get("example", label="prod")) == ["one"]
    assert said(pltrack.prompts.get("example")) == ["two"]
    pltrack.prompts.publish("example", chat("three"), labels=["prod"])
    assert said(pltrack.prompts.get("example", label="prod")) == ["three"]
    assert pltrack.prompts.get("example", langchain=False, version=2)["tags"] == ["t"]
    assert [each["version"] for each in pltrack.prompts.all()] == [3]
    assert [each["version"] for each in pltrack.prompts.all(label="dev")] == [2]
    for wrong in ({"version": 9}, {"label": "nope"}):
        with pytest.raises(PromptNotFoundError, match="local registry"):
            pltrack.prompts.get("example", **wrong)  # type: ignore[arg-type]
    assert pltrack.prompts.get("nope", fallback="Hi").format() == "Hi"


def test_local_links_stay_local(pltrack_journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request made by a local version is linked in the journal, and PromptLayer is never told."""
    monkeypatch.delenv("PROMPTLAYER_API_KEY", raising=False)
    pltrack.prompts.publish("example", chat("Hi {name}"))
    with pltrack.pl_session():
        (pltrack.prompts.get("example") | model()).invoke({"name": "Ada"})
    pltrack.flush(10)
    with opened(pltrack_journal) as db:
        ((linked, payload),) = db.execute("select local_link, payload from requests join bodies using (seq)").fetchall()
    assert json.loads(linked) == {
        "prompt_name": "example",
        "prompt_input_variables": {"name": "Ada"},
        "version": 1,
    }
    assert "prompt_name" not in json.loads(payload)


# -- arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"version": 1, "label": "x"}, "version, label"),
        ({"version": "1"}, "version"),
        ({"version": 0}, "version"),
        ({"label": ""}, "label"),
        ({"langchain": 3}, "langchain"),
        ({"max_age": -1}, "max_age"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"fallback": 3}, "fallback"),
        ({"input_variables": ["a"]}, "input_variables"),
        ({"metadata_filters": "a"}, "metadata_filters"),
        ({"provider": 1}, "provider"),
        ({"prompt_name": ""}, "prompt_name"),
    ],
)
def test_arguments_of_get(promptlayer: FakePromptLayer, arguments: dict[str, Any], named: str) -> None:
    """A wrong argument raises at once and is named; nothing is asked."""
    arguments = {"prompt_name": "example", **arguments}
    with pytest.raises((TypeError, ValueError), match=named):
        pltrack.prompts.get(**arguments)
    with pytest.raises((TypeError, ValueError), match=named):
        asyncio.run(pltrack.prompts.aget(**arguments))
    assert fetches(promptlayer) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "prompt_template"),
        ({"prompt_template": {"type": "chat"}}, "prompt_template"),
        ({"prompt_template": PromptTemplate.from_template("{{x}}", template_format="mustache")}, "mustache"),
        ({"prompt_template": "x", "tags": "prod"}, "tags"),
        ({"prompt_template": "x", "labels": "prod"}, "labels"),
        ({"prompt_template": "x", "commit_message": "x" * 73}, "commit_message"),
        ({"prompt_template": "x", "metadata": "m"}, "metadata"),
        ({"prompt_template": "x", "timeout": 0}, "timeout"),
    ],
)
def test_arguments_of_publish(promptlayer: FakePromptLayer, arguments: dict[str, Any], named: str) -> None:
    """A wrong argument raises at once and is named; nothing is published."""
    with pytest.raises((TypeError, ValueError), match=named):
        pltrack.prompts.publish("example", **arguments)
    assert not promptlayer.calls


def test_arguments_of_all(promptlayer: FakePromptLayer) -> None:
    """Pages count from 1."""
    for wrong in ({"page": 0}, {"per_page": 0}, {"page": "1"}, {"label": ""}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            pltrack.prompts.all(**wrong)  # type: ignore[arg-type]

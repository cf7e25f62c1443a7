"""Every example runs as a program of its own; what counts is what the fake PromptLayer holds afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_gguf
from fake_openai import FakeOpenAI
from programs import environment
from wire import in_call_order

from pltrack.testing import FakePromptLayer, Logged

EXAMPLES = Path(__file__).parent.parent / "examples"
SYNC = "import sys; from pltrack.cli import main; sys.argv = ['pltrack', 'sync', '--timeout', '30']; main()"
SERVED = """
import sys, uvicorn
sys.path.insert(0, sys.argv[1])
config = uvicorn.Config("05_fastapi_sessions:app", port=0, log_level="warning")
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
Server(config).run()
"""


@pytest.fixture
def openai() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def env(tmp_path: Path, promptlayer: FakePromptLayer, openai: FakeOpenAI) -> dict[str, str]:
    own = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": openai.url, "OPENAI_API_BASE": openai.url}
    return environment(tmp_path / "example.db", promptlayer, **own)


def run(name: str, env: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(message: dict[str, Any]) -> str:
    return "".join(block["text"] for block in message["content"])


def asked(logged: Logged) -> list[str]:
    return [said(message) for message in logged.body["input"]["messages"]]


def test_every_example_is_short() -> None:
    """A reader takes an example in at a glance: at most 40 lines each."""
    numbered = sorted(EXAMPLES.glob("0*.py"))
    assert len(numbered) == 7
    for each in numbered:
        assert len(each.read_text().splitlines()) <= 40, each.name


def test_chatopenai_with_a_tag(promptlayer: FakePromptLayer, env: dict[str, str]) -> None:
    """The guide's first example logs both user messages and the tag."""
    run("01_chatopenai_tag.py", env)
    (logged,) = promptlayer.requests
    assert asked(logged) == ["What comes after 1,2,3 ?", "Tell me another joke?"]
    assert [message["role"] for message in logged.body["input"]["messages"]] == ["user", "user"]
    assert logged.tags == ["chatopenai"]
    assert logged.body["provider"] == "openai"
    assert said(logged.body["output"]["messages"][0]) == "Hello there"


@pytest.mark.slow
def test_gpt4all(promptlayer: FakePromptLayer, env: dict[str, str], tmp_path: Path) -> None:
    """The guide's second example runs on a real local model and logs its prompt, its answer and the tags."""
    model = tiny_gguf.make(tmp_path / "tiny.gguf")
    printed = run("02_gpt4all.py", env | {"GPT4ALL_MODEL": str(model), "GPT4ALL_THREADS": "1"})
    (logged,) = promptlayer.requests
    assert logged.body["input"]["type"] == "completion"
    assert said(logged.body["input"]) == "Once upon a time, "
    assert said(logged.body["output"]).split() == printed.split()
    assert logged.tags == ["langchain", "gpt4all"]
    assert logged.body["model"] == "tiny.gguf"


def test_gpt4all_refuses_n_ctx_today() -> None:
    """Why the example leaves the guide's `n_ctx` out: today's class takes no such argument."""
    gpt4all = pytest.importorskip("langchain_community.llms.gpt4all")
    assert "n_ctx" not in gpt4all.GPT4All.model_fields
    assert gpt4all.GPT4All.model_config["extra"] == "forbid"


def test_the_full_guide(promptlayer: FakePromptLayer, env: dict[str, str]) -> None:
    """The guide's full example: its score, metadata and prompt link are on the one request."""
    template = {
        "type": "completion",
        "content": [{"type": "text", "text": "Tell me about {product}"}],
        "input_variables": ["product"],
        "template_format": "f-string",
    }
    assert promptlayer.publish("example", template) == 1
    run("03_full_guide.py", env)
    (logged,) = promptlayer.requests
    assert said(logged.body["input"]) == "Tell me about toasters"
    assert set(logged.scores.values()) == {100}
    assert logged.metadata["foo"] == "bar"
    assert logged.prompt is not None
    assert (logged.prompt["name"], logged.prompt["version"]) == ("example", 1)
    assert logged.prompt["variables"] == {"product": "toasters"}


def test_the_tracked_app(promptlayer: FakePromptLayer, env: dict[str, str]) -> None:
    """Each call of a tracked function has its tags, its metadata and its score; so has a stream."""
    printed = run("04_tracked_app.py", env)
    assert printed == "Hello there\nHello there\n"
    first, second = in_call_order(promptlayer)
    assert asked(first) == ["You answer in one line.", "What comes after 1,2,3?"]
    assert first.tags == ["qa"]
    assert (first.metadata["length"], first.metadata["words"]) == ("23", "2")
    assert first.scores == {"approved": 80}
    assert asked(second)[-1] == "And after that?"
    assert second.tags == ["qa", "stream"]
    assert second.scores == {}


def test_sessions_in_request_handlers(promptlayer: FakePromptLayer, env: dict[str, str]) -> None:
    """Under real uvicorn each request has its session, streams too, and a client may score by id later."""
    server = subprocess.Popen([sys.executable, "-c", SERVED, str(EXAMPLES)], env=env, text=True, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with httpx.Client(base_url=base, timeout=30) as client:
            answer = client.get("/ask", params={"question": "one"}).json()
            streamed = client.get("/stream", params={"question": "two"}).text
            (own_id,) = answer["ids"]
            assert client.post(f"/score/{own_id}", params={"value": 95}).json() == 1
        # SIGTERM ends uvicorn without Python's exit: what is on its way then is left to the next process.
        promptlayer.wait_for(lambda pl: len(pl.requests) == 2 and pl.by_pltrack_id(own_id).scores)
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert (answer["answer"], streamed) == ("Hello there", "Hello there")
    first = promptlayer.by_pltrack_id(own_id)
    assert asked(first) == ["one"]
    assert (first.tags, first.metadata["path"]) == (["web"], "/ask")
    assert set(first.scores.values()) == {95}
    (second,) = (each for each in promptlayer.requests if each.id != first.id)
    assert (asked(second), second.tags, second.metadata["path"]) == (["two"], ["web"], "/stream")
    assert said(second.body["output"]["messages"][0]) == "Hello there"


@pytest.mark.parametrize("delivery", ["background", "external"])
def test_scoring_from_another_process(
    promptlayer: FakePromptLayer, env: dict[str, str], tmp_path: Path, delivery: str
) -> None:
    """A second process scores by the ids that the first wrote down, delivered by then or not."""
    ids = tmp_path / "ids.txt"
    run("06_score_later.py", env | {"PLTRACK_DELIVERY": delivery}, "ask", str(ids))
    assert len(promptlayer.requests) == (2 if delivery == "background" else 0)
    run("06_score_later.py", env, "score", str(ids))
    if delivery == "external":  # nobody but `pltrack sync` has to send what another process left
        subprocess.run([sys.executable, "-c", SYNC], env=env, check=True, capture_output=True, timeout=60)
    own_ids = ids.read_text().split()
    assert len(own_ids) == len(promptlayer.requests) == 2
    for own_id in own_ids:
        logged = promptlayer.by_pltrack_id(own_id)
        assert logged.scores == {"human": 95}
        assert (logged.metadata["judge"], logged.tags) == ("ann", ["later"])


def test_sessions(promptlayer: FakePromptLayer, env: dict[str, str]) -> None:
    """Nested sessions, batches, async batches and an agent's calls are all gathered, each with its tags."""
    printed = run("07_sessions.py", env)
    found = {asked(each)[0]: each for each in in_call_order(promptlayer)[:5]}
    assert set(found) == {"red", "green", "one", "two", "three"}
    assert all(found[color].tags == ["demo", "batch"] for color in ("red", "green"))
    for number in ("one", "two", "three"):
        assert found[number].tags == ["demo", "async"]
        assert found[number].scores["default"] == 70
    agent = in_call_order(promptlayer)[5:]
    assert [len(each.body["input"]["messages"]) for each in agent] == [1, 3]
    assert all(each.tags == ["demo"] for each in agent)
    assert all(each.scores["day"] == 90 and each.metadata["release"] == "42" for each in promptlayer.requests)
    assert [each.id for each in promptlayer.requests if each.scores.get("last") == 100] == [agent[-1].id]
    usage, ids = printed.splitlines()
    assert usage == "7 calls, 77 tokens in, 49 out"
    assert sorted(map(int, re.findall(r"\d+", ids))) == sorted(each.id for each in promptlayer.requests)


def test_the_environment_is_ours(env: dict[str, str]) -> None:
    """No example can reach a real PromptLayer or OpenAI, whatever the developer's own environment says."""
    assert env["PROMPTLAYER_BASE_URL"].startswith("http://127.0.0.1:")
    assert env["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")
    assert env["PLTRACK_JOURNAL"] != os.environ.get("PLTRACK_JOURNAL")

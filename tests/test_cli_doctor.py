"""`pltrack doctor`: what is wrong is found, and each failure comes with what to do."""

from __future__ import annotations

import email.utils
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import cli, settings
from programs import run

from pltrack.testing import FakePromptLayer, Fault

CHECKS = ["settings", "network", "key", "clock", "journal", "LangChain", "old handler"]


def checks(env: dict[str, str], *paths: Path, code: int = 0) -> dict[str, dict[str, Any]]:
    """Run the command with --json; return its checks by name. A failure has a remedy, nothing else has."""
    found = json.loads(cli("doctor", "--json", *map(str, paths), env=env, code=code).out)
    assert found["ok"] == (code == 0)
    for each in found["checks"]:
        assert bool(each["remedy"]) == (each["ok"] is False), each
    return {each["name"]: each for each in found["checks"]}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with a program that uses nothing old."""
    found = tmp_path / "code"
    found.mkdir()
    (found / "app.py").write_text("from pltrack import PromptLayerCallbackHandler\nimport pltrack as promptlayer\n")
    return found


@pytest.fixture
def env(tmp_path: Path, promptlayer: FakePromptLayer) -> dict[str, str]:
    """An environment in which all is well."""
    return settings(tmp_path / "state" / "journal.db", promptlayer)


def test_all_is_well(env: dict[str, str], promptlayer: FakePromptLayer, code: Path) -> None:
    """Every check is made and passes; nothing is logged at PromptLayer, no journal is made, and no key is shown."""
    found = checks(env, code)
    assert list(found) == CHECKS
    assert {each["ok"] for each in found.values()} == {True}
    told = cli("doctor", str(code), env=env).out
    assert told.count("ok  ") == len(CHECKS)
    assert promptlayer.api_key not in told
    assert [call.method for call in promptlayer.calls] == ["GET", "GET"]
    assert not Path(env["PLTRACK_JOURNAL"]).exists()


def test_with_a_journal_in_use(env: dict[str, str], code: Path) -> None:
    """The journal is opened, its size told; the call that checks LangChain is not in it."""
    run("with pltrack.pl_session():\n    model.invoke('hi')\npltrack.flush(20)", env)
    assert "can be written" in checks(env, code)["journal"]["words"]
    assert len(json.loads(cli("ls", "--json", env=env).out)) == 1


def test_there_is_no_key(tmp_path: Path, promptlayer: FakePromptLayer, code: Path) -> None:
    """The variable to set is named; the rest is checked all the same."""
    found = checks(settings(tmp_path / "journal.db") | {"PROMPTLAYER_BASE_URL": promptlayer.url}, code, code=1)
    assert "PROMPTLAYER_API_KEY" in found["key"]["remedy"]
    assert [name for name, each in found.items() if not each["ok"]] == ["key"]


def test_a_key_that_is_refused(env: dict[str, str], promptlayer: FakePromptLayer, code: Path) -> None:
    """PromptLayer's words, the fingerprint, what to do; never the key, which the server repeats."""
    promptlayer.fail(Fault(status=401, body={"message": f"who is {promptlayer.api_key}?"}))
    found = checks(env, code, code=1)
    assert "who is ***?" in found["key"]["words"]
    assert [name for name, each in found.items() if not each["ok"]] == ["key"]


def test_no_network(env: dict[str, str], code: Path) -> None:
    """A port where nobody listens, and a server that says nothing, end in time; key and clock are not guessed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for place in ("http://127.0.0.1:1", f"http://127.0.0.1:{silent.getsockname()[1]}"):
            began = time.monotonic()
            found = checks(env | {"PROMPTLAYER_BASE_URL": place}, code, code=1)
            assert time.monotonic() - began < 30
            assert place in found["network"]["words"]
            assert [found[name]["ok"] for name in ("network", "key", "clock")] == [False, None, None]


def test_promptlayer_has_a_problem(env: dict[str, str], promptlayer: FakePromptLayer, code: Path) -> None:
    """A 5xx is told as PromptLayer's, and says nothing about the key."""
    promptlayer.fail(Fault(status=503))
    found = checks(env, code, code=1)
    assert (found["network"]["ok"], found["key"]["ok"]) == (False, None)


@contextmanager
def another_time(ahead: float) -> Iterator[str]:
    """Serve an empty page of prompts at another time of day."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def date_time_string(self, timestamp: float | None = None) -> str:
            return email.utils.formatdate(time.time() + ahead, usegmt=True)

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("ahead", "words"), [(3600, "behind"), (-3600, "ahead of")])
def test_the_clock_is_wrong(env: dict[str, str], code: Path, ahead: float, words: str) -> None:
    """By how much, and in which direction, by the Date header of PromptLayer's answer."""
    with another_time(ahead) as place:
        found = checks(env | {"PROMPTLAYER_BASE_URL": place}, code, code=1)
    assert words in found["clock"]["words"]
    assert [name for name, each in found.items() if not each["ok"]] == ["clock"]


def test_a_setting_that_cannot_be_used(env: dict[str, str], code: Path) -> None:
    """It is a failed check with the variable's name, not a failed command; pltrack switched off is one, too."""
    found = checks(env | {"PLTRACK_CAPTURE": "some"}, code, code=1)
    assert "PLTRACK_CAPTURE" in found["settings"]["words"]
    found = checks(env | {"PLTRACK_DISABLED": "1"}, code, code=1)
    assert (found["settings"]["ok"], found["LangChain"]["ok"]) == (False, None)


def test_what_is_wrong_with_the_journal(env: dict[str, str], promptlayer: FakePromptLayer, code: Path) -> None:
    """Damaged, readable by others, paused, with refused records: each is told, one at a time."""
    journal = Path(env["PLTRACK_JOURNAL"])
    promptlayer.fail(Fault(status=422, path="/log-request", body={"message": "no way"}))
    run("with pltrack.pl_session():\n    model.invoke('hi')\npltrack.flush(20)", env)
    found = checks(env, code, code=1)["journal"]
    assert "422 no way" in found["words"]
    assert "pltrack retry" in found["remedy"]
    cli("pause", env=env)
    assert "resume" in checks(env, code, code=1)["journal"]["remedy"]
    journal.chmod(0o644)
    assert "chmod 600" in checks(env, code, code=1)["journal"]["remedy"]
    journal.write_bytes(b"this is no database, " * 100)
    assert str(journal) in checks(env, code, code=1)["journal"]["words"]


def test_langchain_does_not_call_us(env: dict[str, str], code: Path, tmp_path: Path) -> None:
    """Where LangChain has changed under us, the check of a real call finds it, and says which version it is."""
    (tmp_path / "sitecustomize.py").write_text(
        "import langchain_core.tracers.context as context\ncontext.register_configure_hook = lambda *_, **__: None\n"
    )
    found = checks(env | {"PYTHONPATH": str(tmp_path)}, code, code=1)
    assert "langchain-core" in found["LangChain"]["words"]
    assert [name for name, each in found.items() if not each["ok"]] == ["LangChain"]


OLD = {
    "from langchain_community.callbacks.promptlayer_callback import PromptLayerCallbackHandler": "from pltrack import "
    "PromptLayerCallbackHandler",
    "from langchain_community.callbacks import PromptLayerCallbackHandler as Tracker": "from pltrack import "
    "PromptLayerCallbackHandler as Tracker",
    "from langchain.callbacks import StdOutCallbackHandler, PromptLayerCallbackHandler": "from pltrack import "
    "PromptLayerCallbackHandler",
    "import langchain_community.callbacks.promptlayer_callback": "from pltrack import PromptLayerCallbackHandler",
    "from langchain_community.llms import PromptLayerOpenAI": "from pltrack.openai import PromptLayerOpenAI",
    "from langchain.chat_models import PromptLayerChatOpenAI": "from pltrack.openai import PromptLayerChatOpenAI",
    "import promptlayer as pl; pl.track.score(request_id=1, score=1)": "import pltrack as pl",
    "import promptlayer; promptlayer.api_key = 'x'": "import pltrack as promptlayer",
    "def late():\n    import promptlayer\n    return promptlayer.prompts.get('x')": "import pltrack as promptlayer",
    "from promptlayer import track": "from pltrack import track",
}
FINE = """
import pltrack as promptlayer
from pltrack import PromptLayerCallbackHandler
from pltrack.openai import PromptLayerOpenAI
from promptlayer import PromptLayer
import promptlayer.utils
from .langchain_community import PromptLayerChatOpenAI
client = PromptLayer(); client.track.score(request_id=1, score=1)
promptlayer.track.score(request_id=1, score=1)
'from langchain_community.callbacks import PromptLayerCallbackHandler'
"""


@pytest.mark.parametrize("line", OLD)
def test_the_old_handler(tmp_path: Path, line: str) -> None:
    """Every form of the import, and the module's old functions, with the line to write instead."""
    from pltrack.cli._dead import search

    (tmp_path / "old.py").write_text(f"# a program\n{line}\n")
    found = search([tmp_path / "old.py"])
    assert {use.instead for use in found.uses} == {OLD[line]}
    assert found.uses[0].line in (2, 3, 4)


def test_what_is_not_the_old_handler(tmp_path: Path) -> None:
    """pltrack's own names, PromptLayer's client of today, and texts are left alone."""
    from pltrack.cli._dead import search

    (tmp_path / "fine.py").write_text(FINE)
    assert search([tmp_path]).uses == []


def test_where_the_old_handler_is_looked_for(env: dict[str, str], tmp_path: Path) -> None:
    """In folders, in notebooks, not in installed packages; what cannot be read stops nothing, and nothing is run."""
    old = next(iter(OLD))
    code = tmp_path / "project"
    for folder in ("app", "venv/lib/site-packages", ".git", "other"):
        (code / folder).mkdir(parents=True)
        (code / folder / "old.py").write_text(f"raise SystemExit('this was run')\n{old}\n")
    (code / "other" / "pyvenv.cfg").touch()
    (code / "broken.py").write_text(f"{old}\nthis is no Python")
    (code / "binary.py").write_bytes(b"promptlayer\x00\xff\xfe")
    (code / "\x1b[31mevil.py").write_text(old)
    cells = [
        {"cell_type": "markdown", "source": [old]},
        {"cell_type": "code", "source": ["%pip install promptlayer\n", "x = 1"]},
        {"cell_type": "code", "source": [old, "\n!ls"]},
    ]
    (code / "guide.ipynb").write_text(json.dumps({"cells": cells}))
    told = cli("doctor", str(code), env=env, code=1).out
    assert "app/old.py:2: from pltrack import PromptLayerCallbackHandler" in told
    assert "guide.ipynb:3: from pltrack import PromptLayerCallbackHandler" in told
    assert told.count("-> ") == 3
    assert "\x1b" not in told
    done = subprocess.run(
        [sys.executable, "-m", "pltrack", "doctor"], cwd=code / "app", env=env, capture_output=True, text=True
    )
    assert "old.py:2" in done.stdout
    assert "there is no" in checks(env, tmp_path / "nowhere", code=1)["old handler"]["words"]

"""The pytest plugin, in test runs of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PROMPTLAYER_API_KEY": "pl_of_the_developer"}

UNASKED = """
import os
from pltrack import _runtime

def test_run_is_on_its_own():
    status = _runtime.status()
    assert status.delivery == "off"
    assert "pltrack-pytest-" in status.journal
    print("JOURNAL", status.journal)
    assert os.environ["PROMPTLAYER_API_KEY"] == "pl_of_the_developer"
    assert not [name for name in os.environ if name.startswith("PLTRACK_")]

def test_who_configures_gets_it(tmp_path):
    _runtime.configure(journal=tmp_path / "mine.db", delivery="external")
    assert _runtime.status().journal == str(tmp_path / "mine.db")
    assert _runtime.status().delivery == "external"
"""
FIXTURES = """
from pltrack import _runtime

def test_server(promptlayer, tmp_path):
    settings = _runtime.get().settings
    assert (settings.base_url, settings.api_key) == (promptlayer.url, promptlayer.api_key)
    assert settings.delivery == "background"
    assert _runtime.status().journal.startswith(str(tmp_path))

def test_journal(pltrack_journal):
    assert _runtime.status().journal == str(pltrack_journal)
    assert _runtime.get().settings.delivery == "off"

def test_afterwards():
    assert "pltrack-pytest-" in _runtime.status().journal
"""


def run(source: str, tmp_path: Path, *options: str) -> str:
    """Run pytest with nothing but our plugin over `source` and return what it printed."""
    (tmp_path / "test_inner.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command += ["-p", "pltrack.testing.plugin", "-p", "no:cacheprovider", *options, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLTRACK_")}
    done = subprocess.run(
        command,
        env=environment | ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_run_has_a_journal_of_its_own_and_sends_nothing(tmp_path: Path) -> None:
    """Unasked, a run records into a temporary journal that is gone afterwards; who configures is obeyed."""
    printed = run(UNASKED, tmp_path)
    journal = Path(printed.split("JOURNAL ")[1].split()[0])
    assert not journal.parent.exists()


def test_fixtures_configure_and_clean_up(tmp_path: Path) -> None:
    """`promptlayer` and `pltrack_journal` hold for their test only."""
    run(FIXTURES, tmp_path)


@pytest.mark.parametrize("module", ["langchain_core", "promptlayer", "sqlalchemy", "aiohttp", "pltrack._runtime"])
def test_plugin_is_light_to_import(module: str) -> None:
    """Every pytest run of the user's imports the plugin, so it loads nothing heavy."""
    program = f"import sys, pltrack.testing.plugin; sys.exit({module!r} in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False)
    assert done.returncode == 0

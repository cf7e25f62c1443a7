"""Settings: where they come from, what wins, and what happens to a value that cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from programs import environment, run

import pltrack
from pltrack import _runtime


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PLTRACK_SAMPLE_RATE", "abc"),
        ("PLTRACK_SAMPLE_RATE", "2"),
        ("PLTRACK_DELIVERY", "sometimes"),
        ("PLTRACK_ENABLED", "perhaps"),
        ("PROMPTLAYER_BASE_URL", "api.promptlayer.com"),
        ("PLTRACK_CONCURRENCY", "0"),
        ("PLTRACK_FOLD", "score,everything"),
    ],
)
def test_a_broken_environment_value_is_an_error_at_configure(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """configure() names the variable and what came."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(pltrack.SettingError, match=variable):
        pltrack.configure()


def test_at_implicit_first_use_a_broken_value_is_logged_and_the_default_taken(tmp_path: Path) -> None:
    """Without configure() a broken value costs a log line, never the program; capture falls to the most private."""
    out = run(
        """
        import logging; logging.basicConfig(stream=sys.stdout, format="%(message)s")
        with pltrack.pl_session() as s:
            model.invoke("hi")
        from pltrack import _runtime
        print(_runtime.get().settings.sample_rate, _runtime.get().settings.capture, len(s.ids))
        """,
        environment(tmp_path / "journal.db", PLTRACK_SAMPLE_RATE="abc", PLTRACK_CAPTURE="nothing"),
    )
    assert "PLTRACK_SAMPLE_RATE: 'abc' cannot be used" in out
    assert out.strip().endswith("1.0 metadata 1")


@pytest.mark.parametrize(
    ("name", "value"),
    [("linger", "soon"), ("journal", 5), ("api_key", 7), ("previous_api_keys", 3), ("redact", "maybe"), ("nope", 1)],
)
def test_a_bad_argument_names_itself(name: str, value: object) -> None:
    """configure() refuses at once, and nothing of it is applied."""
    before = _runtime.get().settings
    with pytest.raises(ValueError, match=name):
        pltrack.configure(concurrency=3, **{name: value})
    assert _runtime.get().settings.concurrency == before.concurrency


def test_an_error_about_a_key_does_not_show_it() -> None:
    """The value of a key setting is never in an error's text."""
    with pytest.raises(pltrack.SettingError) as caught:
        pltrack.configure(api_key=["pl_secret_4711"])
    assert "4711" not in str(caught.value)


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What configure() was given beats what the environment says."""
    monkeypatch.setenv("PLTRACK_LINGER", "3")
    pltrack.configure(linger=0.25)
    assert _runtime.get().settings.linger == 0.25


def test_disabled_in_the_environment_always_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """PLTRACK_DISABLED=1 beats configure(enabled=True)."""
    monkeypatch.setenv("PLTRACK_DISABLED", "1")
    pltrack.configure(enabled=True)
    assert pltrack.status().enabled is False


def test_require_key_is_an_error_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """require_key=True without a key raises; an empty key is no key."""
    monkeypatch.delenv("PROMPTLAYER_API_KEY", raising=False)
    with pytest.raises(pltrack.NoKeyError, match="PROMPTLAYER_API_KEY"):
        pltrack.configure(require_key=True, api_key="  ")


def test_the_old_way_to_set_the_key() -> None:
    """`promptlayer.api_key = ...` on the package configures it."""
    pltrack.api_key = "pl_old_way"
    assert _runtime.get().settings.api_key == "pl_old_way"
    assert pltrack.api_key == "pl_old_way"


def test_no_repr_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Settings, destinations and status never show a key."""
    caplog.set_level(logging.DEBUG)
    pltrack.configure(api_key="pl_secret_4711", previous_api_keys=["pl_older_4711"], secret="s4711")
    settings = _runtime.get().settings
    shown = f"{settings!r} {settings.destinations!r} {pltrack.status()!r} {caplog.text}"
    assert "4711" not in shown

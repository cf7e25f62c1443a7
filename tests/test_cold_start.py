"""The first call of a process: what it needs is loaded while it runs, and nothing that it does not need."""

from __future__ import annotations

from pathlib import Path

from programs import environment, run

from pltrack.testing import FakePromptLayer


def test_a_session_has_the_journal_opened(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """Entering a session is enough: the journal is there before any call has ended."""
    journal = tmp_path / "own" / "journal.db"
    out = run(
        """
        from pathlib import Path
        with pltrack.pl_session():
            for _ in range(1000):
                if Path(os.environ["PLTRACK_JOURNAL"]).exists():
                    break
                threading.Event().wait(0.01)
            print(Path(os.environ["PLTRACK_JOURNAL"]).exists())
        """,
        environment(journal, promptlayer),
    )
    assert out.strip() == "True"


def test_what_a_first_call_does_not_load(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """A program without a hub loads nothing of PostgreSQL: that took a quarter of the time to the first row."""
    out = run(
        """
        with pltrack.pl_session():
            model.invoke("hi")
        print(pltrack.flush(20).pending)
        print([each for each in sys.modules if "postgresql" in each or "psycopg" in each])
        """,
        environment(tmp_path / "journal.db", promptlayer),
    )
    assert out.split("\n")[:2] == ["0", "[]"]

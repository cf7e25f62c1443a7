"""Benchmarks are run seldom, and must not rot meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_table_is_made(tmp_path: Path) -> None:
    """`python benchmarks` measures what it is asked for; what is not installed to compare with is left out."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, "benchmarks", "blocks", "delivery", "--quick", "--json", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=110)
    said = json.loads(figures.read_text())
    assert [note for note in said["notes"] if "is not in the table" not in note] == []
    assert all("pltrack" in row["values"] for row in said["rows"])
    assert "| `@tracked` on an empty function" in done.stdout


@pytest.mark.slow
def test_rows_are_as_the_writer_makes_them() -> None:
    """The journal takes the rows that benchmarks/rows.py makes, and delivers them."""
    command = [sys.executable, "benchmarks/rows.py", "2000", "backlog"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=110)
    assert "mark delivered" in done.stdout


@pytest.mark.slow
def test_the_page_is_looked_at() -> None:
    """benchmarks/page.py makes a journal that every view of the page can show."""
    command = [sys.executable, "benchmarks/page.py", "2000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=110)
    assert "| charts of a month, by model |" in done.stdout

"""docs/langchain.md names every case that was observed, and the tests that run it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAST = 94  # of the cases that the document has tables for
CASE = re.compile(r"^\| (\d+) ", re.MULTILINE)
TEST = re.compile(r"(test_\w+\.py)::(test_\w+)")


def rows() -> dict[int, str]:
    """Return the rows of the tables by their number."""
    found: dict[int, str] = {}
    for line in (ROOT / "docs" / "langchain.md").read_text().splitlines():
        if number := CASE.match(line):
            assert int(number[1]) not in found, f"{number[1]} is told twice"
            found[int(number[1])] = line
    return found


ROWS = rows()


def named(file: str) -> dict[str, str]:
    """Return the docstrings of a file's tests by their names."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, kinds)}


def test_every_case_is_told() -> None:
    """Each number stands in exactly one row."""
    assert sorted(ROWS) == list(range(1, LAST + 1))


@pytest.mark.parametrize("number", ROWS)
def test_the_tests_of_a_case_exist(number: int) -> None:
    """Each row names tests that are there, and whose docstrings name its number."""
    tests = TEST.findall(ROWS[number])
    assert tests
    for file, name in tests:
        told = re.findall(r"\[(\d+(?:, \d+)*)\]", named(file)[name])
        assert str(number) in ", ".join(told).split(", "), f"{file}::{name} does not name [{number}]"

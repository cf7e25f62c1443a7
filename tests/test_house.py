"""What keeps the house in order: the front door, sizes, weights, and documents that say what is."""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pltrack
from pltrack._settings import Settings

ROOT = Path(__file__).parent.parent
PACKAGE = Path(pltrack.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
HEAVY = {"langchain_core", "promptlayer", "sqlalchemy", "aiohttp", "httptools", "wrapt"}


def _typed_names() -> set[str]:
    """Return the names that type checkers see in the front door."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            imports = [each for each in node.body if isinstance(each, ast.ImportFrom)]
            return {alias.asname or alias.name for each in imports for alias in each.names}
    raise AssertionError("no TYPE_CHECKING block")


def test_public_means_listed() -> None:
    """`__all__`, the lazy table and what type checkers see are the same names."""
    assert sorted(pltrack.__all__) == sorted(pltrack._HOME)
    assert set(pltrack.__all__) == _typed_names()


@pytest.mark.parametrize("name", sorted(pltrack._HOME))
def test_every_public_name_is_there(name: str) -> None:
    """Every public name can be had, and speaks of itself."""
    assert getattr(pltrack, name).__doc__
    assert name in dir(pltrack)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name is told as of any module."""
    with pytest.raises(AttributeError, match="pl_sesion"):
        pltrack.pl_sesion  # noqa: B018 -- the look-up is the test


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_one_idea(module: Path) -> None:
    """No module has more than 400 lines, and each says what it is for."""
    text = module.read_text()
    assert len(text.splitlines()) <= 400
    assert not text or ast.get_docstring(ast.parse(text))


def test_import_is_light() -> None:
    """`import pltrack` loads nothing that costs. [94]"""
    code = f"import sys, pltrack; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_changelog_knows_this_version() -> None:
    """The newest version of the changelog is the package's."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d[^\]]*)\]", text, re.MULTILINE)
    assert versions[0] == importlib.metadata.version("pltrack")


def test_every_setting_is_documented() -> None:
    """docs/settings.md has a row for each setting, with its environment variable and its default."""
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", text, re.MULTILINE))
    assert sorted(rows) == sorted(each.name for each in dataclasses.fields(Settings))
    for name, row in rows.items():
        variable = f"PROMPTLAYER_{name.upper()}" if name in {"api_key", "base_url"} else f"PLTRACK_{name.upper()}"
        assert f"`{variable}`" in row


@pytest.mark.parametrize("document", ["README.md", "docs/testing.md"])
def test_examples_in_documents_are_python(document: str) -> None:
    """Every Python block of a document compiles, and imports only names that pltrack has."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
        tree = compile(block, document, "exec", flags)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "pltrack":
                assert {alias.name for alias in node.names} <= set(pltrack.__all__)


def test_the_readme_is_short() -> None:
    """It fits a few screens: more belongs in docs/."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.name)
def test_tests_wait_for_events(test: Path) -> None:
    """No test sleeps until something has surely happened; programs that tests start may be slow on purpose."""
    names = {"sleep"}
    for node in ast.walk(ast.parse(test.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            zero = node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            assert called not in names or zero, f"line {node.lineno}"

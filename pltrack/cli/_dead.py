"""Finding PromptLayer's old LangChain classes in programs: what still uses them runs, and records nothing."""

from __future__ import annotations

import ast
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import PltrackError

_SECONDS = 10.0
_BYTES_MOST = 4_000_000
_KINDS = (".py", ".ipynb")
_NOT_OURS = {"node_modules", "site-packages", "dist-packages", "__pycache__"}
_OLD_PACKAGES = ("langchain", "langchain_community", "langchain_classic")
_INSTEAD = {
    "PromptLayerCallbackHandler": "from pltrack import PromptLayerCallbackHandler",
    "PromptLayerOpenAI": "from pltrack.openai import PromptLayerOpenAI",
    "PromptLayerChatOpenAI": "from pltrack.openai import PromptLayerChatOpenAI",
}
_OLD_MODULES = {
    "promptlayer_callback": _INSTEAD["PromptLayerCallbackHandler"],
    "promptlayer_openai": "from pltrack.openai import PromptLayerOpenAI, PromptLayerChatOpenAI",
}
_OLD_ATTRIBUTES = {"track", "prompts", "api_key", "openai"}  # of the module `promptlayer`, up to 1.0


class Use(NamedTuple):
    """A place where something dead is used, and the line to write instead."""

    path: Path
    line: int  # of a notebook: of the code cells one after the other
    what: str
    instead: str


class Search(NamedTuple):
    """What came of a search."""

    uses: list[Use]
    files: int
    complete: bool  # False: time was up


def search(paths: list[Path]) -> Search:
    """Look into Python files and notebooks, and into folders for them; for so many seconds at most."""
    deadline = time.monotonic() + _SECONDS
    uses: list[Use] = []
    files = 0
    for path in paths:
        if not path.exists():
            raise PltrackError(f"there is no {path}")
        for file in _files(path, deadline):
            files += 1
            uses += _uses(file)
    return Search(uses, files, time.monotonic() < deadline)


def _files(path: Path, deadline: float) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, inside, names in os.walk(path):
        if "pyvenv.cfg" in names:
            inside.clear()
            continue
        inside[:] = sorted(each for each in inside if each not in _NOT_OURS and not each.startswith("."))
        for name in sorted(names):
            if time.monotonic() >= deadline:
                return
            if name.endswith(_KINDS):
                yield Path(folder, name)


def _uses(path: Path) -> Iterator[Use]:
    try:
        if not path.is_file() or path.stat().st_size > _BYTES_MOST:
            return
        raw = path.read_bytes()
        if b"promptlayer" not in raw.lower():
            return
        code = _cells(raw) if path.suffix == ".ipynb" else raw
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in other people's texts
            tree = ast.parse(code)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return  # nothing that Python could run
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "promptlayer"
    }
    for node in ast.walk(tree):
        for what, instead in _dead(node, modules):
            yield Use(path, getattr(node, "lineno", 0), what, instead)


def _cells(raw: bytes) -> str:
    """Return the code of a notebook; its magics are no Python."""
    cells = json.loads(raw).get("cells") or ()
    sources = ["".join(each.get("source") or ()) for each in cells if each.get("cell_type") == "code"]
    lines = "\n".join(sources).split("\n")
    return "\n".join("" if each.lstrip().startswith(("%", "!", "?")) else each for each in lines)


def _dead(node: ast.AST, modules: set[str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        package, _, module = node.module.partition(".")
        for alias in node.names:
            dead = _INSTEAD.get(alias.name) or _OLD_MODULES.get(alias.name)
            if package in _OLD_PACKAGES and dead:
                yield f"{node.module}.{alias.name}", _as(dead, alias)
            elif package == "promptlayer" and not module and alias.name in _OLD_ATTRIBUTES:
                yield f"promptlayer.{alias.name}", _as(f"from pltrack import {alias.name}", alias)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            package, _, module = alias.name.partition(".")
            if package in _OLD_PACKAGES and (dead := _OLD_MODULES.get(module.rpartition(".")[2])):
                yield alias.name, dead
    elif isinstance(node, ast.Attribute) and _base(node) in modules and node.attr in _OLD_ATTRIBUTES:
        yield f"{_base(node)}.{node.attr}", f"import pltrack as {_base(node)}"


def _base(node: ast.Attribute) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ""


def _as(instead: str, alias: ast.alias) -> str:
    return f"{instead} as {alias.asname}" if alias.asname else instead

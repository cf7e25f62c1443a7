"""`pltrack prompts`: the registry, PromptLayer's or without a key the local one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import PromptError
from . import _place
from ._options import Json
from ._screen import clean, complain, console, line, print_json

_PAGE = 30

app = typer.Typer(
    no_args_is_help=True, help="Look at prompts and publish them: PromptLayer's, or without a key the local ones."
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The prompt's name.")]


@app.command()
def ls(
    label: Annotated[str | None, typer.Option("--label", help="Only those with this release label.")] = None,
    as_json: Json = False,
) -> None:
    """List the prompts with their newest version.

    Example: pltrack prompts ls --label prod
    """
    from .. import prompts

    found: list[dict[str, Any]] = []
    while _there() and len(found) % _PAGE == 0:
        page = prompts.all(len(found) // _PAGE + 1, _PAGE, label)
        found += page
        if not page:
            break
    if as_json:
        print_json(found)
    elif not found:
        print("There are no prompts.")
    for each in () if as_json else found:
        labels = ", ".join(map(str, each.get("release_labels") or each.get("labels") or ()))
        about = f"{each.get('prompt_name', '?')}  version {each.get('version', '?')}"
        print(line(f"{about}  {labels}"))


@app.command()
def get(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", min=1, help="This version; else the newest.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Or the version that this label points at.")] = None,
    as_json: Json = False,
) -> None:
    """Print a prompt's text.

    Exit code 1 when there is no such prompt or it cannot be had.

    Example: pltrack prompts get checkout-answer --version 3
    """
    payload = _fetched(name, version, label)
    if as_json:
        print_json(payload)
        return
    print(line(f"{payload.get('prompt_name', name)}  version {payload['version']}"))
    print("\n".join(_text(payload)))


@app.command()
def publish(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="A Prompt Blueprint as JSON; - reads stdin.")],
    *,
    label: Annotated[list[str] | None, typer.Option("--label", help="Move this release label to it.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Tag the prompt.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What changed, in 72 characters.")] = None,
    as_json: Json = False,
) -> None:
    """Publish a new version of a prompt; what `prompts get --json` prints can be published.

    Exit code 1 when PromptLayer does not take it, 2 when the file is no prompt.

    Example: pltrack prompts publish checkout-answer prompt.json --label prod -m "shorter"
    """
    from .. import prompts

    _place.check_settings()
    try:
        given = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
        done = prompts.publish(name, given, labels=label, tags=tag, commit_message=message)
    except (OSError, ValueError, TypeError) as error:
        complain(f"{file}: {error}")
        raise typer.Exit(2) from None
    if as_json:
        print_json(done)
        return
    print(line(f"Published {name} version {done['version']}."))


@app.command()
def diff(
    name: Name,
    old: Annotated[str, typer.Argument(metavar="A", help="A version's number, or a label.")],
    new: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
) -> None:
    """Print how the texts of two versions of a prompt differ.

    Exit code 0 when they are alike, 1 when they differ, 2 when one cannot be had.

    Example: pltrack prompts diff checkout-answer 2 prod
    """
    import difflib

    try:
        payloads = [_fetched(name, *_which(each)) for each in (old, new)]
    except PromptError as error:
        complain(error)
        raise typer.Exit(2) from None
    one, other = payloads
    titles = [line(f"{name} version {each['version']}") for each in payloads]
    changed = list(difflib.unified_diff(_text(one), _text(other), titles[0], titles[1], lineterm=""))
    screen = console()
    for each in changed:
        screen.print(_coloured(each), soft_wrap=True)
    raise typer.Exit(int(bool(changed)))


def _there() -> bool:
    """Tell whether there is anything to ask: without a key that is the journal."""
    from .. import _runtime

    _place.check_settings()
    return bool(_runtime.get().settings.api_key) or _place.journal() is not None


def _which(text: str) -> tuple[int | None, str | None]:
    return (int(text), None) if text.isdigit() and int(text) else (None, text)


def _fetched(name: str, version: int | None, label: str | None) -> dict[str, Any]:
    from .. import prompts
    from ..errors import PromptNotFoundError

    if not _there():
        raise PromptNotFoundError(f"the prompt {name!r} is not in the local registry (there is no PromptLayer key)")
    if version is not None and label is not None:
        raise typer.BadParameter("give --version or --label, not both")
    found: dict[str, Any] = prompts.get(name, langchain=False, version=version, label=label, max_age=0.0)
    return found


def _text(payload: Mapping[str, Any]) -> list[str]:
    from .._entries import text_of

    lines: list[str] = []
    for who, what in text_of(payload.get("prompt_template")):
        lines += [f"[{line(who, 40)}]", *clean(what).split("\n")]
    return lines


def _coloured(changed: str) -> Any:
    from rich.text import Text

    return Text(changed, style={"+": "green", "-": "red", "@": "cyan"}.get(changed[:1], ""))

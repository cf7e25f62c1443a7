"""Citations of any provider -> the blueprint's annotations, where all that they require is known."""

from __future__ import annotations

from .._plain import Json
from .media import Block

# type: (required strings, required integers, optional strings, optional integers)
_FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "url_citation": (("title", "url"), ("start_index", "end_index"), ("cited_text", "encrypted_index"), ()),
    "map_citation": (("title", "url"), ("start_index", "end_index"), ("cited_text", "place_id"), ()),
    "file_citation": (("file_id", "filename"), ("index",), (), ()),
    "container_file_citation": (("container_id",), (), ("filename", "file_id"), ("start_index", "end_index")),
}
_WEB = ("url_citation", "citation", "web_search_result_location")


def cited(rest: Block, field: str, length: int) -> list[Block]:
    """Take from a text block's field the citations that fit the blueprint; leave the others there.

    One with no range speaks about the whole text of `length` characters: so do Anthropic's.
    """
    notes = rest.get(field)
    if not isinstance(notes, list):
        return []
    fitting: list[Block] = []
    left: list[Json] = []
    for note in notes:
        found = _annotation(note, length) if isinstance(note, dict) else None
        if found is None:
            left.append(note)
        else:
            fitting.append(found)
    rest[field] = left
    return fitting


def _annotation(note: Block, length: int) -> Block | None:
    flat = _flat(note)
    if flat.get("type") in _WEB:
        flat["type"] = "url_citation"
        flat.setdefault("title", flat.get("url"))
        if flat.get("start_index") is None and flat.get("end_index") is None:
            flat |= {"start_index": 0, "end_index": length}
    form = _FORMS.get(str(flat.get("type")))
    if form is None:
        return None
    strings, integers, more_strings, more_integers = form
    found = {name: value for name, value in flat.items() if value is not None}
    known = {*strings, *integers, *more_strings, *more_integers, "type"}
    if not known.issuperset(found) or not {*strings, *integers} <= found.keys():
        return None
    fits = all(isinstance(found.get(name, ""), str) for name in (*strings, *more_strings))
    return found if fits and all(_whole(found.get(name, 0)) for name in (*integers, *more_integers)) else None


def _flat(note: Block) -> Block:
    """Return a copy with the nesting of OpenAI's chat API and of LangChain's citations undone."""
    flat = {name: value for name, value in note.items() if name not in ("id", "index_in_block")}
    name = "value" if flat.get("type") == "non_standard_annotation" else str(flat.get("type"))
    nested = flat.get(name)
    if isinstance(nested, dict) and not (nested.keys() & flat.keys()) - {"type"}:
        del flat[name]
        flat |= nested
    extras = flat.get("extras")
    if isinstance(extras, dict) and not extras.keys() & flat.keys():
        flat = {**{key: value for key, value in flat.items() if key != "extras"}, **extras}
    return flat


def _whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

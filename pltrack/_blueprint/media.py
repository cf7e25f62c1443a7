"""Images, sound, films and files of any provider's block format -> the blueprint's media blocks."""

from __future__ import annotations

from typing import NamedTuple

from .._plain import Json

Block = dict[str, Json]

# Where providers nest what LangChain's own formats keep flat.
_NESTED = ("source", "image_url", "video_url", "audio_url", "input_audio", "audio", "file", "extras")
_DEFAULT_MIME = {"image": "image/jpeg", "audio": "audio/wav", "video": "video/mp4"}
KINDS = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
    "text-plain": "file",
    "media": "file",
}


class _Reference(NamedTuple):
    """Where the bytes are: one of `url`, `data` (base64) and `file_id`."""

    mime: str
    url: str | None
    data: str | None
    file_id: str | None


def take(rest: Block, *names: str) -> str | None:
    """Remove and return the first of the fields that holds a non-empty string."""
    for name in names:
        value = rest.get(name)
        if isinstance(value, str) and value:
            del rest[name]
            return value
    return None


def media(rest: Block, from_model: bool) -> list[Block] | None:
    """Return the blueprint block of a media block, taking from `rest` what it tells; None if it has no bytes.

    Pictures of a user are `image_url`, media made by a model `output_media`, everything else `media`.
    """
    kind = KINDS.get(str(rest.get("type")), "file")
    _flatten(rest)
    found = _reference(rest, kind)
    if found is None:
        return None
    if kind == "file":
        kind = found.mime.partition("/")[0]
    link = found.url or (f"data:{found.mime};base64,{found.data}" if found.data else None)
    if link and from_model and kind in _DEFAULT_MIME:
        block: Block = {"type": "output_media", "url": link, "mime_type": found.mime, "media_type": kind}
        identity = take(rest, "id")
        return [block | ({"id": identity} if identity else {})]
    if link and kind == "image":
        detail = take(rest, "detail")
        return [{"type": "image_url", "image_url": {"url": link} | ({"detail": detail} if detail else {})}]
    title = take(rest, "filename", "title", "name") or "media"
    how = "base64" if found.data else "url" if found.url else "neither"
    where = found.data or found.url or found.file_id
    return [{"type": "media", "media": {"title": title, "type": found.mime, "url": where, "format": how}}]


def _flatten(rest: Block) -> None:
    """Lift nested fields up, unless one of that name is there already."""
    for name in _NESTED:
        nested = rest.get(name)
        if isinstance(nested, str) and name != "extras" and "url" not in rest:
            rest["url"] = rest.pop(name)
        elif isinstance(nested, dict) and not (nested.keys() & rest.keys()) - {"type"}:
            del rest[name]
            rest.update({key: value for key, value in nested.items() if key != "type"})


def _reference(rest: Block, kind: str) -> _Reference | None:
    url, data, file_id = take(rest, "url", "file_url", "file_uri"), None, None
    if url is None:
        data = take(rest, "base64", "data", "file_data")
    if url is None and data is None:
        file_id = take(rest, "file_id") or (take(rest, "id") if rest.get("source_type") == "id" else None)
        if file_id is None:
            return None
    rest.pop("source_type", None)
    mime = take(rest, "mime_type", "media_type")
    if data is not None and data.startswith("data:"):
        head, comma, body = data.partition(",")
        if comma and body:
            mime, data = mime or head[5:].partition(";")[0] or None, body
    if mime is None:
        form = take(rest, "format")
        mime = f"{kind}/{form}" if form else _DEFAULT_MIME.get(kind, "application/octet-stream")
    return _Reference(mime, url, data, file_id)

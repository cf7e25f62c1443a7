"""Prompts in the journal: versions that were fetched once, where labels pointed, and the local registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, and_, func, select, update
from sqlalchemy.dialects.sqlite import insert

from .schema import prompt_labels, prompts
from .store import Store

Payload = dict[str, Any]
LOCAL = ""  # the destination of the registry that needs no key
NEWEST = ""  # the label that always points at the newest version


class Pointed(NamedTuple):
    """The version that a label pointed at, and when that was asked; never (0) once it must be asked again."""

    payload: Payload
    fetched_at: float


class PromptStore:
    """Read and write prompts; times are given, transactions are one per method."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def version(self, destination: str, name: str, version: int) -> Payload | None:
        """Return a version as it was fetched or published."""
        wanted = and_(_named(destination, name), prompts.c.version == version)
        with self._store._reading() as db:
            found = db.scalar(select(prompts.c.payload).where(wanted))
        return None if found is None else orjson.loads(found)

    def newest(self, destination: str, name: str) -> Payload | None:
        """Return the highest version known here, whatever pointed at it."""
        by_version = select(prompts.c.payload).where(_named(destination, name))
        with self._store._reading() as db:
            found = db.scalar(by_version.order_by(prompts.c.version.desc()).limit(1))
        return None if found is None else orjson.loads(found)

    def label(self, destination: str, name: str, label: str) -> Pointed | None:
        """Return what a label (or NEWEST) pointed at when it was last asked."""
        here = and_(_named(destination, name), prompts.c.version == prompt_labels.c.version)
        pointing = select(prompts.c.payload, prompt_labels.c.fetched_at).join(prompts, here)
        with self._store._reading() as db:
            found = db.execute(pointing.where(_labelled(destination, name, [label]))).one_or_none()
        return None if found is None else Pointed(orjson.loads(found.payload), found.fetched_at)

    def keep(self, destination: str, name: str, payload: Payload, label: str | None, now: float) -> None:
        """Keep a version for ever and, unless `label` is None, that the label points at it."""
        with self._store._writing() as db:
            _put(db, destination, name, payload, now)
            if label is not None:
                _point(db, [label], _moved(payload, now), destination=destination, name=name)

    def distrust(self, destination: str, name: str, labels: Iterable[str]) -> None:
        """Have these labels asked for again before they serve, unless nobody answers."""
        changed = update(prompt_labels).where(_labelled(destination, name, list(labels)))
        with self._store._writing() as db:
            db.execute(changed.values(fetched_at=0.0))

    def publish(self, name: str, build: Callable[[int], Payload], labels: Iterable[str], now: float) -> Payload:
        """Add the next version to the local registry, move the labels to it, and return it."""
        with self._store._writing() as db:
            newest = db.scalar(select(func.max(prompts.c.version)).where(_named(LOCAL, name)))
            payload = build((newest or 0) + 1)
            _put(db, LOCAL, name, payload, now)
            _point(db, {NEWEST, *labels}, _moved(payload, now), destination=LOCAL, name=name)
        return payload

    def all(self, destination: str, label: str, *, limit: int, offset: int) -> list[Payload]:
        """Return the version of each prompt that the label (or NEWEST) points at, by name."""
        here = and_(
            prompts.c.destination == prompt_labels.c.destination,
            prompts.c.name == prompt_labels.c.name,
            prompts.c.version == prompt_labels.c.version,
        )
        pointing = select(prompts.c.payload).join(prompt_labels, here)
        mine = and_(prompt_labels.c.destination == destination, prompt_labels.c.label == label)
        page = pointing.where(mine).order_by(prompts.c.name).limit(limit).offset(offset)
        with self._store._reading() as db:
            return [orjson.loads(payload) for payload in db.scalars(page)]


def _named(destination: str, name: str) -> ColumnElement[bool]:
    return and_(prompts.c.destination == destination, prompts.c.name == name)


def _labelled(destination: str, name: str, labels: list[str]) -> ColumnElement[bool]:
    return and_(
        prompt_labels.c.destination == destination,
        prompt_labels.c.name == name,
        prompt_labels.c.label.in_(labels),
    )


def _put(db: Connection, destination: str, name: str, payload: Mapping[str, Any], now: float) -> None:
    row = {"destination": destination, "name": name, "version": payload["version"]}
    kept = insert(prompts).values(**row, payload=orjson.dumps(payload), created_at=now)
    db.execute(kept.on_conflict_do_nothing())


def _point(db: Connection, labels: Iterable[str], moved: Mapping[str, Any], **key: str) -> None:
    for label in labels:
        new = insert(prompt_labels).values(**key, label=label, **moved)
        db.execute(new.on_conflict_do_update(index_elements=["destination", "name", "label"], set_=dict(moved)))


def _moved(payload: Payload, now: float) -> dict[str, Any]:
    return {"version": payload["version"], "fetched_at": now}

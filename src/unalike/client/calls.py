"""Requests to the service, and how their answers are read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from unalike.client.images import Part, encode_image, field_parts, image_parts
from unalike.errors import UnreadableImage
from unalike.recognition.attributes import Attributes, Where, check_attributes, check_where
from unalike.recognition.identification import Identification, Neighbor

PAGE = 100  # entries of a list that are fetched at once

T = TypeVar("T")


@dataclass(frozen=True)
class Reference:
    """One enrolled image.

    Attributes:
        id: its number, which is never used again.
        label: its class.
        name: what it was enrolled as: ``sha256:HASH/TOKEN``, or a path.
        attributes: such as its site, by which searches are filtered.
    """

    id: int
    label: str
    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read. It may be sent again: it reads, or has an Idempotency-Key.

    Attributes:
        method, path: of the request.
        parse: makes the result from the JSON of the answer.
        parameters: of the query.
        body: JSON of the request.
        parts: files and fields of a multipart body.
        headers: further ones.
    """

    method: str
    path: str
    parse: Callable[[Any], T]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    parts: Sequence[Part] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``httpx.Client.request``."""
        values: dict[str, Any] = {"headers": dict(self.headers)}
        if parameters := {name: value for name, value in self.parameters.items() if value is not None}:
            values["params"] = parameters
        if self.parts:
            values["files"] = list(self.parts)
        if self.body is not None:
            values["json"] = self.body
        return values


def scoped_path(kind: str, name: str | None, path: str) -> str:
    """Path of an endpoint of a named gallery, inspector or set of assets; of the default one where the name is None."""
    return f"/v1{path}" if name is None else f"/v1/{kind}/{quote(name, safe='')}{path}"


def identify_call(
    images: Sequence[Any], k: int, rule: str | None, gallery: str | None, where: Where | None = None
) -> Call[list[Any]]:
    """Label images; an Identification each, or the UnreadableImage of one that cannot be decoded, in order."""
    parts = [*image_parts(images), *field_parts({"k": k, "rule": rule, "where": _json_filter(where)})]
    return Call(
        "POST", scoped_path("galleries", gallery, "/identify"), _in_order(len(images), _identification), parts=parts
    )


def _json_filter(where: Where | None) -> str | None:
    values = check_where(where)
    return None if values is None else json.dumps(values)


def embed_call(images: Sequence[Any], gallery: str | None) -> Call[list[Any]]:
    """Compute embeddings: a list of numbers each, or the UnreadableImage of one that cannot be decoded, in order."""
    parse = _in_order(len(images), lambda row: row["vector"], "vectors")
    return Call("POST", scoped_path("galleries", gallery, "/embed"), parse, parts=image_parts(images))


def image_call(
    kind: str, name: str | None, path: str, images: Mapping[str, Any], values: Mapping[str, Any]
) -> Call[dict[str, Any]]:
    """An endpoint that takes named images and parameters and answers JSON."""
    parts = [(key, encode_image(image)) for key, image in images.items()] + field_parts(values)
    return Call("POST", scoped_path(kind, name, path), dict, parts=parts)


def classes_call(gallery: str | None, after: str | None) -> Call[dict[str, Any]]:
    """One page of the classes."""
    return Call("GET", scoped_path("galleries", gallery, "/classes"), dict, {"after": after, "limit": PAGE})


def references_call(
    gallery: str | None, label: str | None, after: str | None, where: Where | None = None
) -> Call[dict[str, Any]]:
    """One page of the references."""
    parameters = {"label": label, "after": after, "limit": PAGE, "where": _json_filter(where)}
    return Call("GET", scoped_path("galleries", gallery, "/references"), dict, parameters)


def enrol_call(
    images: Sequence[Any], label: str, gallery: str | None, attributes: Attributes | None = None
) -> Call[list[Reference]]:
    """Enroll images of one class."""
    values = {"label": label, "attributes": json.dumps(check_attributes(attributes)) if attributes else None}
    parts = [*image_parts(images), *field_parts(values)]
    return _change("POST", scoped_path("galleries", gallery, "/references"), read_references, parts=parts)


def remove_reference_call(reference_id: int, gallery: str | None) -> Call[int]:
    """Remove one reference."""
    return _change("DELETE", scoped_path("galleries", gallery, f"/references/{int(reference_id)}"), _count)


def remove_class_call(label: str, gallery: str | None) -> Call[int]:
    """Remove a class."""
    return _change("DELETE", scoped_path("galleries", gallery, "/classes"), _count, parameters={"label": label})


def rename_call(label: str, new: str, gallery: str | None) -> Call[int]:
    """Rename a class."""
    return _change(
        "POST", scoped_path("galleries", gallery, "/classes/rename"), _count, body={"label": label, "new": new}
    )


def merge_call(labels: Sequence[str], into: str, gallery: str | None) -> Call[int]:
    """Merge classes."""
    body = {"labels": list(labels), "into": into}
    return _change("POST", scoped_path("galleries", gallery, "/classes/merge"), _count, body=body)


def calibrate_call(
    rate: float | None, max_refused: float | None, rule: str | None, gallery: str | None
) -> Call[dict[str, Any]]:
    """Set the threshold of "unknown"."""
    values = {"rate": rate, "max_refused": max_refused, "rule": rule}
    body = {name: value for name, value in values.items() if value is not None}
    return _change("POST", scoped_path("galleries", gallery, "/calibration"), dict, body=body)


def decisions_call(filters: Mapping[str, Any], after: str | None) -> Call[dict[str, Any]]:
    """One page of the decisions."""
    return Call("GET", "/v1/decisions", dict, {**filters, "after": after, "limit": PAGE})


def feedback_call(decision_id: str, verdict: str, label: str | None, note: str) -> Call[dict[str, Any]]:
    """Say whether a decision was right."""
    body = {"verdict": verdict, "label": label, "note": note}
    path = f"/v1/decisions/{quote(decision_id, safe='')}/feedback"
    return _change("POST", path, dict, body=body)


def get_call(path: str) -> Call[dict[str, Any]]:
    """What an address answers, as plain data."""
    return Call("GET", path, dict)


def _change(method: str, path: str, parse: Callable[[Any], T], **values: Any) -> Call[T]:
    """A change that the service carries out once, however often it is sent."""
    return Call(method, path, parse, headers={"Idempotency-Key": uuid.uuid4().hex}, **values)


def read_references(document: Mapping[str, Any]) -> list[Reference]:
    """The references of an answer."""
    return [
        Reference(row["id"], row["label"], row["name"], row.get("attributes", {})) for row in document["references"]
    ]


def _count(document: Mapping[str, Any]) -> int:
    return int(document["images"])


def _in_order(
    count: int, parse: Callable[[Mapping[str, Any]], Any], key: str = "answers"
) -> Callable[[Any], list[Any]]:
    """Put the answers and the unreadable images of an answer in the order of the request.

    An answer names its image by ``index``, the place in the request.
    """

    def read(document: Mapping[str, Any]) -> list[Any]:
        results: list[Any] = [None] * count
        for row in document[key]:
            results[row["index"]] = parse(row)
        for row in document["unreadable"]:
            results[row["index"]] = UnreadableImage(row["reason"])
        return results

    return read


def _identification(row: Mapping[str, Any]) -> Identification:
    names = Identification.__dataclass_fields__
    values = {name: value for name, value in row.items() if name in names}
    values["neighbours"] = tuple(
        Neighbor(**{name: entry[name] for name in Neighbor.__dataclass_fields__}) for entry in row["neighbours"]
    )
    return Identification(**values)

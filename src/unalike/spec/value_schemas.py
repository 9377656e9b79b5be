"""JSON Schema of values that may be written in several ways: lists of names or numbers, sizes, ranges, boxes, pairs.

They hold what ``declare`` reads into each form, so that a schema accepts what a spec may hold and nothing else.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
_TEXT: Schema = {"type": "string"}
_WHOLE = r"0*[1-9][0-9]*"  # at least 1
_DECIMAL = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_FOUR = r"\s*[0-9]+\s*(?:,\s*[0-9]+\s*){3}"


def any_of(*schemas: Schema) -> Schema:
    """A value that one of these describes."""
    return {"anyOf": list(schemas)}


def pattern(text: str) -> Schema:
    """A text that matches a regular expression from its beginning to its end."""
    return {"type": "string", "pattern": f"^{text}$"}


def list_of(item: Schema, least: int = 0, most: int | None = None) -> Schema:
    """A list of so many items."""
    bounds = {"minItems": least} if least else {}
    return {"type": "array", "items": item, **bounds, **({} if most is None else {"maxItems": most})}


def separated(item: str) -> Schema:
    """A text of one item or several, with commas between them."""
    return pattern(rf"[,\s]*{item}\s*(?:,[,\s]*{item}\s*)*[,\s]*")


_AT_LEAST_1, _AT_LEAST_0 = {"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 0}
NAMES = any_of(list_of(_TEXT), _TEXT)
_ITEM = any_of(_AT_LEAST_1, pattern(_WHOLE))
# With type and items: those of the field's own type would stand beside the alternatives.
NUMBERS = any_of(list_of(_ITEM, 1), _AT_LEAST_1, separated(_WHOLE)) | {
    "type": ["array", "integer", "string"],
    "items": _ITEM,
}
CORES = any_of(list_of(any_of(_AT_LEAST_0, pattern("[0-9]+")), 1), _AT_LEAST_0, separated("[0-9]+"))
SIZE = any_of(list_of(_AT_LEAST_1, 1, 2), _AT_LEAST_1, pattern(rf"\s*{_WHOLE}\s*(?:[xX]\s*{_WHOLE}\s*)?"))
STAGES = any_of(list_of({"type": ["integer", "string"]}), {"type": ["integer", "string"]})
_BOUND = {"type": "number", "exclusiveMinimum": -1e30, "exclusiveMaximum": 1e30}
RANGE = any_of(list_of(any_of(_BOUND, pattern(rf"\s*{_DECIMAL}\s*")), 2, 2),
               pattern(rf"[,\s]*{_DECIMAL}\s*,[,\s]*{_DECIMAL}[,\s]*"), NULL)  # fmt: skip
BOXES = any_of(
    list_of(any_of(list_of(any_of(_AT_LEAST_0, pattern("[0-9]+")), 4, 4), pattern(_FOUR))),
    list_of(_AT_LEAST_0, 4, 4),
    pattern(rf"(?:\s*;)*\s*(?:{_FOUR}(?:;\s*{_FOUR})*)?(?:;\s*)*"),
    NULL,
)
REGION_BOX = any_of(list_of(any_of(_AT_LEAST_0, pattern("[0-9]+")), 4, 4), pattern(_FOUR), NULL)
# One folder where TAO's examples write a text and its table a list.
# A name that is not empty: an empty one would count as unset.
CLASS_NAME = any_of(pattern(r"[\s\S]*\S[\s\S]*"), NULL)
PATHS = any_of(list_of(_TEXT), _TEXT, NULL)
_VALUE = {"type": ["string", "integer"]}
PAIRS = any_of(
    list_of(_TEXT), _TEXT, {"type": "object", "additionalProperties": any_of(_VALUE, list_of(_VALUE, 1))}, NULL
)
NOT_ZERO: Schema = {"not": {"const": 0}}
# A path of this machine: the result of a run is uploaded as a whole.
LOCAL_PATH: Schema = {"pattern": "^(?!.*://)"}

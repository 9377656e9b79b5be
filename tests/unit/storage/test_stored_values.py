"""Fields of another type than declared are refused; whole numbers stand for floating point."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from unalike.storage.stored_values import require_types


@dataclass(frozen=True)
class Inner:
    share: float


@dataclass(frozen=True)
class Stored:
    count: int = 1
    share: float = 0.5
    name: str = "a"
    on: bool = True
    box: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    word: Literal["a", "b"] = "a"
    inner: Inner | None = None
    anything: Any = None


@pytest.mark.parametrize(
    "changed",
    [{}, {"share": 3}, {"names": ("a", "b")}, {"shares": {"a": 1, "b": 2.5}}, {"word": "b"}, {"inner": Inner(1)},
     {"anything": [object()]}],
)  # fmt: skip
def test_values_of_the_declared_types(changed: dict[str, Any]) -> None:
    value = replace(Stored(), **changed)
    assert require_types(value, "thing") is value


@pytest.mark.parametrize(
    "changed",
    [{"count": 1.5}, {"count": True}, {"count": None}, {"share": "x"}, {"share": None}, {"share": True}, {"name": 1}, {"on": 1},
     {"box": (1,)}, {"box": [1, 2]}, {"box": (1, "x")}, {"names": "ab"}, {"names": (1,)}, {"shares": {"a": "x"}}, {"shares": {1: 1.0}},
     {"shares": []}, {"word": "c"}, {"inner": {"share": 1}}],
)  # fmt: skip
def test_values_of_other_types(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changed))} of the thing does not fit"):
        require_types(replace(Stored(), **changed), "thing")


def test_dataclasses_in_dataclasses() -> None:
    with pytest.raises(ValueError, match="share of the thing does not fit: a str"):
        require_types(Stored(inner=Inner("x")), "thing")  # type: ignore[arg-type]

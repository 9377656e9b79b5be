"""Results in one line and as plain data."""

from __future__ import annotations

import json

from unalike.verification.regions import AlteredRegion
from unalike.verification.result import VerificationResult


def test_one_line_names_the_main_reason() -> None:
    def line(is_global: bool = False, **reasons: float) -> str:
        return str(VerificationResult("altered", "logo", 0.1, 0.5, 0.9, reasons, is_global=is_global))

    assert line(parts=3.0) == "altered logo: parts differ (score 0.100, same from 0.500)"
    assert "stretched" in line(parts=3.0, distortion=1.5)
    assert "recolored" in line(is_global=True, parts=3.0, colour=2.0)
    assert "parts differ" in line(is_global=True, parts=3.0, colour=2.0, edges=1.5)
    assert "differs a little" in line()
    assert str(VerificationResult("same", "logo", 0.75, 0.5, 0.9)) == "same as logo (score 0.750)"
    assert str(VerificationResult("different", "logo", 0.1, 0.5, 0.9)) == "different from logo"
    assert str(VerificationResult("not in the set", "logo", 0.1, 0.5, 0.2)) == "not in the set (nearest logo)"


def test_plain_data_has_the_keys_of_verdicts_jsonl() -> None:
    result = VerificationResult("altered", "logo", 0.1, 0.5, 0.9, regions=(AlteredRegion((1, 2, 3, 4), 0.5),))
    values = json.loads(json.dumps(result.to_dict()))
    assert list(values) == ["answer", "asset", "score", "threshold", "likeness", "reasons", "spots", "outline", "whole",
                            "turn", "scale", "twins", "size"]  # fmt: skip
    assert values["spots"] == [{"box": [1, 2, 3, 4], "score": 0.5}]

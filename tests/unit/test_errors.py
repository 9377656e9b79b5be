"""What gives access to anything is never shown."""

from __future__ import annotations

import pytest

from unalike.errors import DataError, redact, redact_all
from unalike.progress import say

SIGNED = "https://h.org/b/a.tar.gz?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=s3cr3t&X-Amz-Expires=60"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:s3cr3t@h.org/a.zip", "https://***@h.org/a.zip"),
        ("https://user:s3cr3t/with@both@h.org/a", "https://***@h.org/a"),
        ("https://s3cr3t@h.org/a", "https://***@h.org/a"),
        ("mysql://root:s3cr3t@base:3306/study", "mysql://***@base:3306/study"),
        (SIGNED, "https://h.org/b/a.tar.gz?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Expires=60"),
        ("https://h/a?s3cr3t", "https://h/a?***"),
        (
            "https://h/a?sig=s3cr3t: not there (see https://h/b?sig=s3cr3t)",
            "https://h/a?sig=***: not there (see https://h/b?sig=***)",
        ),
        ("az://c/a.tar?sv=1;sig=s3cr3t", "az://c/a.tar?sv=***;sig=***"),
        (
            "found 'https://h/a?sig=s3cr3t', then https://u:s3cr3t@h/b (twice)",
            "found 'https://h/a?sig=***', then https://***@h/b (twice)",
        ),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a/b.tar.gz",
        "abfss://container@account.dfs.core.windows.net/a",
        "http://localhost:8080/a@b/c.zip",
        "https://h/a.zip?download=1&rev=main",
        "is it https://h/a? or s3://b/c?",
        "a:b@c is no address",
    ],
)
def test_the_rest_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_messages_lines_and_data_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert "s3cr3t" not in str(DataError(f"{SIGNED}: not there", remedy=f"look at {SIGNED}"))
    say(f"fetching {SIGNED}")
    assert "s3cr3t" not in capsys.readouterr().err
    assert "s3cr3t" not in repr(redact_all({"a": [SIGNED, {"b": (SIGNED, 1, None)}]}))
    assert redact_all({"a": [1, None, "x"]}) == {"a": [1, None, "x"]}

"""Credentials are hidden, control characters escaped, formulas quoted."""

from __future__ import annotations

import time

import pytest
import yaml

from unalike.errors import DataError
from unalike.progress import say
from unalike.sanitize import csv_cell, from_csv_cell, one_line, redact, redact_all

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
        ('Invalid bucket name "AKIA:s3cr3t@bucket": bad', 'Invalid bucket name "***@bucket": bad'),
        ("//user:s3cr3t@h/x", "//***@h/x"),
        ("https:\\/\\/user:s3cr3t@h\\/x", "https:\\/\\/***@h\\/x"),
        ("https%3A%2F%2Fuser%3As3cr3t%40h%2Fx", "https%3A%2F%2F***%40h%2Fx"),
        ("hf://s3cr3t@me/m", "hf://***@me/m"),
        ("https://h/x.tar;token=s3cr3t", "https://h/x.tar;token=***"),
        ("https://h/x.tar#access_token=s3cr3t", "https://h/x.tar#access_token=***"),
        ("https://h/x?sig='s3cr3t'", "https://h/x?sig=***"),
        ("AWS_SECRET_ACCESS_KEY=s3cr3t AWS_REGION=eu", "AWS_SECRET_ACCESS_KEY=*** AWS_REGION=eu"),
        ("{'token': 's3cr3t', 'a': 1}", "{'token': '***', 'a': 1}"),
        ('{"api_key": "s3cr3t"}', '{"api_key": "***"}'),
        ("Authorization: Bearer s3cr3ts3cr3ts3cr3t", "Authorization: Bearer ***"),
        ("AccountKey=s3cr3t==;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
        (f"a key unalike_0123abcd_{'s3cr3t' * 7}- was", "a key unalike_0123abcd_*** was"),
        (f"unalike_0123abcd_{'s3cr3t' * 7}-", "unalike_0123abcd_***"),
        ("train --api-key s3cr3t -v", "train --api-key *** -v"),
        ("{'password': b's3cr3t'}", "{'password': b'***'}"),
        ('{\\"token\\": \\"s3cr3t\\", \\"a\\": 1}', '{\\"token\\": \\"***\\", \\"a\\": 1}'),
        ('{"password": "ab\\"s3cr3t", "a": 1}', '{"password": "***", "a": 1}'),
        ("{'token': 'it\"s3cr3t'}", "{'token': '***'}"),
        ('{"password": "s3cr3t and the rest was cut', '{"password": "***'),
        ("password=ab\\cds3cr3t next", "password=*** next"),
        ("https%3A//u%3As3cr3t%40h/x", "https%3A//***%40h/x"),
        ("https%253A%252F%252Fu%253As3cr3t%2540h", "https%253A%252F%252F***%2540h"),
        ("encryption_key: s3cr3t", "encryption_key: ***"),
        ("DB_PASS=s3cr3t api key: s3cr3t", "DB_PASS=*** api key: ***"),
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
        "C:\\photos\\icon@2x.png",
        "the token: see wandb; ViT has 196 tokens: 14 x 14; at 12:30:45 someone@example.org wrote",
        "2 faults; signature of the model; train.token is null; password: none",
        "class-a: 12@3x",
        "unalike_0123abcd_export",
    ],
)
def test_the_rest_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    ["a:" * 50_000, "://" * 40_000, "%3A%2F%2F" * 15_000, "-" * 100_000 + "=", "+" * 100_000, "https://h/?" + "a=b&" * 20_000,
     "a:b@" * 30_000, "token='" * 15_000, 'token=\\"' * 15_000, "token_" * 15_000 + "=", ":" * 100_000 + "@"],
)  # fmt: skip
def test_a_long_text_of_others_takes_little_time(text: str) -> None:
    start = time.process_time()
    redact(text)
    assert time.process_time() - start < 5.0  # in linear time a tenth of it; in quadratic time some minutes


def test_messages_lines_and_data_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert "s3cr3t" not in str(DataError(f"{SIGNED}: not there", remedy=f"look at {SIGNED}"))
    say(f"fetching {SIGNED}")
    assert "s3cr3t" not in capsys.readouterr().err
    assert "s3cr3t" not in repr(redact_all({"a": [SIGNED, {"b": (SIGNED, 1, None)}]}))
    assert redact_all({"a": [1, None, "x"]}) == {"a": [1, None, "x"]}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("grün 猫 👩‍👩‍👧", "grün 猫 👩‍👩‍👧"),
        ("\x1b[31mX\nSUCCESS: fake", "\\x1b[31mX\\nSUCCESS: fake"),
        ("a\rb\tc\x00\x7f\x9b", "a\\rb\\tc\\x00\\x7f\\x9b"),
        ("\u202egnp.exe\u2028next", "\\u202egnp.exe\\u2028next"),
        ("name \udce9", "name \\xe9"),
    ],
)
def test_a_text_becomes_one_line_of_a_terminal(text: str, line: str) -> None:
    assert one_line(text) == line
    line.encode("utf-8")


def test_messages_are_one_line_and_details_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    error = DataError("\x1b[31mk\nok: fake", details=["a\nb", "c"])
    assert str(error) == "\\x1b[31mk\\nok: fake\n  a\\nb\n  c"
    say("\x1b[31mk\nok: fake")
    assert capsys.readouterr().err == "\\x1b[31mk\\nok: fake\n"


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+x", "-x", "@SUM(1)", "\tx", "'=x", "''=x", "-", "\n=x", "\uff1d1+1"]
)
def test_formulas_are_quoted_in_csv_and_read_back(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert from_csv_cell(csv_cell(text)) == text


@pytest.mark.parametrize("value", ["x", "-1.5", "+3", "1e-5", "'x", "", 3, -0.5, None, "a=b"])
def test_numbers_and_plain_texts_stay_as_they_are_in_csv(value: object) -> None:
    assert csv_cell(value) == value
    assert not isinstance(value, str) or from_csv_cell(value) == value


def test_plain_data_is_hidden_by_its_keys_so_that_yaml_of_it_stays_yaml() -> None:
    data = {
        "encryption_key": "tlt_encode",
        "store": {"password": "s3cr3t", "place": "s3://K:S@b/x"},
        "sort_key": "a",
        "token": None,
        "api_key": 5,
    }
    hidden = redact_all(data)
    assert hidden == {
        "encryption_key": "***", "store": {"password": "***", "place": "s3://***@b/x"}, "sort_key": "a", "token": None, "api_key": 5,
    }  # fmt: skip
    assert yaml.safe_load(yaml.safe_dump(hidden)) == hidden

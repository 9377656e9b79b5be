"""Make text safe to print and to store: hide credentials, escape control characters, quote spreadsheet formulas."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

HIDDEN = "***"
# Parts of a query that select what is read and give no access to it; every other value of a query is hidden.
PLAIN_QUERY_KEYS = frozenset(
    (
        "dl",
        "download",
        "raw",
        "format",
        "version",
        "versionid",
        "ref",
        "rev",
        "revision",
        "expires",
        "x-amz-expires",
        "gallery",
        "host",
        "port",
        "sslmode",
    )
)
SLASHES = r":(?:\\?/){2}"  # also as JSON escapes them
# Texts may be of others and megabytes long. Where the end that is looked for is missing, a pattern therefore takes all in which
# it could stand, and changes nothing: trying again from each place would take quadratic time.
# The last "@" of a word counts: passwords are often written with an "@" or a "/" of their own.
_PASSWORD = re.compile(rf"({SLASHES})[^\s/?#:@]*:(?!\d+[/?#])(?:\S*(@)|\S+)")
_ENCODED = re.compile(r"(%(?:25)*3A(?:%(?:25)*2F|/){2})(?:\S*(%(?:25)*40)|\S+)", re.IGNORECASE)
# A name alone is a token in these; in others (abfs, sftp) it is a container or an account.
_TOKEN = re.compile(rf"\b((?:https?|ftp|hf|s3|gs|gcs|postgresql|milvus){SLASHES})[^\s/?#:@]+@", re.IGNORECASE)
# USER:PASSWORD@HOST without a scheme, as libraries quote a part of an address. "C:\icon@2x.png" is a file.
_BARE = re.compile(r"(?<![\w.+%-])(?<!://)[\w.+%-]+:(?![/\\])(?!\d+[/?#])(?:[^\s\"']*(@)(?=[\w\[])|[^\s\"']+)")
_QUERY = re.compile(r"(://[^\s?'\"]*)(?:\?((?:=['\"][^'\"\s]*['\"]|[^\s'\"#<>])+))?")
_PAIR = re.compile(r"([^&;=]+)(?:=([^&;]*))?")
_SECRET_NAME = (
    r"[\w-]*(?:secret|token|password|passwd|pwd|[_-]pass|passphrase|credentials?|signature|session[_-]?id|api[ _-]?key"
    r"|(?:access|account|private|encryption|decryption)[_-]?key)(?:[_-]?(?:id|key))?|sig|authorization"
)
_NAMED = re.compile(
    rf"(?<![\w-])((?:{_SECRET_NAME})\\{{0,3}}['\"]?\s*[=:]\s*(?:bearer\s+|basic\s+)?b?)"
    # A quoted value, the quotes escaped where it stands in a text of JSON; a text that was cut off lacks the second one.
    r"(?:(\\{0,3}['\"])((?:(?!\2)\\.|(?!\2)[^\n])*)(\2)?|((?:[^\s'\"&;,()\[\]{}\\]|\\(?!['\"]))+))",
    re.IGNORECASE,
)
_SECRET_KEY = re.compile(_SECRET_NAME, re.IGNORECASE)
_OPTION = re.compile(rf"(?<![\w-])(--(?:{_SECRET_NAME})\s+)(?!-)\S+", re.IGNORECASE)
_BEARER = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{16,}", re.IGNORECASE)
# Secrets of API keys (``serve.store.keys``); the id in the middle stays, by which a key is revoked.
_API_KEY = re.compile(r"\b(unalike_[0-9a-f]{8}_)[\w-]{20,}")
SHORTEST_SECRET = 6  # characters, behind "name: "; shorter ones are words of a sentence
_NOT_SECRET = frozenset(("none", "null", "true", "false", "", HIDDEN))
# Text that a spreadsheet reads as a formula, also behind quotes that were put before it.
# Full-width signs count too in East Asian settings.
_FORMULA_SIGN = r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_FORMULA, _ESCAPED_FORMULA = re.compile(f"'*{_FORMULA_SIGN}"), re.compile(f"'+{_FORMULA_SIGN}")


def redact(text: str) -> str:
    """Hide passwords, tokens and signed query strings in a text; what is hidden becomes ``***``.

    Applied to all that is printed or written: messages, ``status.json``, ``run.json``, ``experiment.yaml``. Known forms are
    user information of an address (with or without its scheme, percent-encoded too), queries, API keys of ``unalike serve``,
    and values that stand behind a name such as ``token`` or ``AWS_SECRET_ACCESS_KEY``.
    """
    text = _API_KEY.sub(rf"\1{HIDDEN}", text) if "unalike_" in text else text
    if not any(character in text for character in "@=:%") and "--" not in text:
        return text
    text = _PASSWORD.sub(lambda match: f"{match[1]}{HIDDEN}@" if match[2] else match[0], text)
    text = _ENCODED.sub(lambda match: f"{match[1]}{HIDDEN}{match[2]}" if match[2] else match[0], text)
    text = _TOKEN.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(lambda match: f"{match[1]}?{_PAIR.sub(_hide_value, match[2])}" if match[2] else match[0], text)
    text = _NAMED.sub(_hide_named, _BARE.sub(lambda match: f"{HIDDEN}@" if match[1] else match[0], text))
    return _BEARER.sub(rf"\1{HIDDEN}", _OPTION.sub(rf"\1{HIDDEN}", text))


def _hide_value(pair: re.Match[str]) -> str:
    name, value = pair[1], pair[2]
    if value is None:
        return name if name.lower() in PLAIN_QUERY_KEYS or not name.strip(".,;:!?)") else HIDDEN
    after = value[len(value.rstrip(".,:!)")) :]  # of the sentence, not of the address
    return pair[0] if name.lower() in PLAIN_QUERY_KEYS else f"{name}={HIDDEN}{after}"


def _hide_named(match: re.Match[str]) -> str:
    quote, value = match[2] or "", match[3] if match[2] else match[5]
    is_prose = match[1].endswith(": ") and not quote and len(value) < SHORTEST_SECRET
    if is_prose or value.lower().strip(".") in _NOT_SECRET or value.startswith(HIDDEN):
        return match[0]
    return f"{match[1]}{quote}{HIDDEN}{match[4] or ''}"


def redact_all(value: Any) -> Any:
    """A copy of plain data (dicts, lists) in which every text is redacted, and hidden where its key says that it is a secret."""
    if isinstance(value, dict):
        return {key: HIDDEN if _is_secret(key, item) else redact_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(redact_all(item) for item in value)
    return redact(value) if isinstance(value, str) else value


def _is_secret(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, str) and bool(value) and bool(_SECRET_KEY.fullmatch(key))


def one_line(text: str) -> str:
    r"""The text with control characters as Python writes them (``\x1b``, ``\n``), so that it is one line of a terminal.

    Control and format characters are escaped (Unicode categories Cc, Cf, Zl, Zp; among Cf are those that turn the direction
    of writing), and halves of surrogate pairs, which stand for bytes of a file name that are not UTF-8. Zero-width joiners
    stay: scripts and emoji need them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _escape(character) for character in text)


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\u200c\u200d"


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # the byte of a name that is not UTF-8
    return character.encode("unicode_escape").decode("ascii")


def valid_unicode(value: Any) -> Any:
    """Text, or lists of it, with the bytes of names that are not UTF-8 as escapes: JSON reads them back as they were."""
    if isinstance(value, list):
        return [valid_unicode(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def csv_cell(value: Any) -> Any:
    """A cell of a CSV file: a text that a spreadsheet would take for a formula gets a ``'`` in front, numbers none."""
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def from_csv_cell(text: str) -> str:
    """What ``csv_cell`` was given."""
    return text[1:] if _ESCAPED_FORMULA.match(text) and csv_cell(text[1:]) == text else text

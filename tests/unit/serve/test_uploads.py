"""Bodies of requests: what is read, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from tests.support.serving import files, picture, run
from unalike.serve.problems import Problem
from unalike.serve.uploads import MAX_FILE, MAX_JSON_VALUES, Form, Limits, Parameters, file_name, read_form

LIMITS = Limits(max_bytes=20_000, max_files=3)
FIELDS = ("image", "reference")


def read(request: httpx.Request, limits: Limits = LIMITS, chunk: int = 7, *, keep_length: bool = True) -> Form:
    """Read a request of httpx, in chunks of a few bytes."""
    content = request.read()
    pieces = [content[i : i + chunk] for i in range(0, len(content), chunk)] or [b""]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]
    headers = [
        (name.lower(), value) for name, value in request.headers.raw if keep_length or name.lower() != b"content-length"
    ]

    async def receive() -> Any:
        return messages.pop(0)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/identify",
        "query_string": request.url.query,
        "headers": headers,
    }
    return run(read_form(Request(scope, receive), limits, FIELDS))


def post(**values: Any) -> httpx.Request:
    return httpx.Request("POST", "http://127.0.0.1/v1/identify", **values)


def refusal(request: httpx.Request, **values: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        read(request, **values)
    return caught.value


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_multipart_gives_images_and_parameters_however_it_is_cut(chunk: int) -> None:
    red, blue = picture("red"), picture("blue") + b"\r\n--x\r\n"
    form = read(post(files=files(red, blue), data={"k": "2", "note": "zwölf"}), chunk=chunk)
    assert [(upload.name, upload.content) for upload in form.images] == [("0.png", red), ("1.png", blue)]
    assert form.values == {"k": "2", "note": "zwölf"}


def test_json_gives_images_in_each_form() -> None:
    red = picture("red")
    text = base64.b64encode(red).decode()
    images = [text, {"content": text, "name": "a"}, {"url": "https://h/b.png?x=1"}]
    form = read(post(json={"image": images, "k": 3}))
    assert [(upload.name, upload.content, upload.url) for upload in form.images] == [
        ("", red, ""), ("a", red, ""), ("https://h/b.png", b"", "https://h/b.png?x=1"),
    ]  # fmt: skip
    assert form.values == {"k": 3}
    assert read(post(json={"image": f"data:image/png;base64,{text}"})).images[0].content == red


def test_an_image_may_be_the_body_with_parameters_in_the_address() -> None:
    red = picture("red")
    request = httpx.Request("POST", "http://h/v1/identify?k=4", content=red, headers={"content-type": "image/png"})
    form = read(request)
    assert form.images[0].content == red and form.values == {"k": "4"}


@pytest.mark.parametrize("keep_length", [True, False])
@pytest.mark.parametrize("kind", ["files", "content"])
def test_a_body_beyond_the_limit_is_refused_also_without_a_length(kind: str, keep_length: bool) -> None:
    large = b"x" * 20_001
    request = (
        post(files=files(large)) if kind == "files" else post(content=large, headers={"content-type": "image/png"})
    )
    assert refusal(request, keep_length=keep_length, chunk=1000).status == 413


def test_too_many_images_are_refused() -> None:
    assert refusal(post(files=files(*[b"x"] * 4))).kind == "too-many-files"
    assert refusal(post(json={"image": [""] * 4})).kind == "too-many-files"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(content=b"--x\r\n", headers={"content-type": "multipart/form-data"}), 400),
        (post(content=b"garbage", headers={"content-type": "multipart/form-data; boundary=x"}), 400),
        (post(content=b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nhalf',
              headers={"content-type": "multipart/form-data; boundary=x"}), 400),
        (post(content=b"{", headers={"content-type": "application/json"}), 400),
        (post(content=b"[" * 1000, headers={"content-type": "application/json"}), 400),
        (post(json=[1]), 422),
        (post(json={"image": 5}), 422),
        (post(json={"image": {"content": "??"}}), 422),
        (post(json={"image": {"content": "", "url": "http://h"}}), 422),
        (post(json={"image": {"path": "/etc/passwd"}}), 422),
        (post(content=b"a=b", headers={"content-type": "application/x-www-form-urlencoded"}), 415),
        (post(files=[("picture", ("a.png", b"x", "image/png"))]), 422),
    ],
)  # fmt: skip
def test_other_bodies_are_refused_with_what_was_expected(request_: httpx.Request, status: int) -> None:
    problem = refusal(request_)
    assert problem.status == status and problem.expected


def test_a_long_parameter_is_refused() -> None:
    assert refusal(post(data={"note": "x" * 70_000}, files=files(b"x")), limits=Limits(10**6, 3)).status == 400


def test_parameters_are_read_by_type() -> None:
    parameters = Parameters(
        json.loads('{"k": "4", "score": "0.5", "rule": "vote", "b": true, "t": "x", "l": ["a"], "e": ""}')
    )
    assert parameters.integer("k", 1, 1, 9) == 4 and parameters.number("score", None, 0, 1) == 0.5
    assert parameters.choice("rule", ("vote", "nearest")) == "vote" and parameters.boolean("b")
    assert parameters.text("t") == "x" and parameters.texts("l") == ["a"] and parameters.integer("e", 7, 1, 9) == 7
    parameters.finish()


@pytest.mark.parametrize(
    ("values", "read_one", "expected"),
    [
        ({"k": "0"}, lambda p: p.integer("k", 1, 1, 9), "a whole number of 1 to 9"),
        ({"k": True}, lambda p: p.integer("k", 1, 1, 9), "a whole number of 1 to 9"),
        ({"k": "1e3"}, lambda p: p.integer("k", 1, 1, 9), "a whole number of 1 to 9"),
        ({"s": "nan"}, lambda p: p.number("s", None, 0, 1), "a number of 0 to 1"),
        ({"s": [1]}, lambda p: p.number("s", None, 0, 1), "a number of 0 to 1"),
        ({"r": "votes"}, lambda p: p.choice("r", ("vote",)), "one of vote"),
        ({"b": "maybe"}, lambda p: p.boolean("b"), "true or false"),
        ({"t": 5}, lambda p: p.text("t"), "one text of at most 1000 characters"),
        ({"l": [5]}, lambda p: p.texts("l"), "a list of at most 1000 texts"),
    ],
)
def test_values_of_another_type_are_refused(values: dict[str, Any], read_one: Any, expected: str) -> None:
    with pytest.raises(Problem) as caught:
        read_one(Parameters(values))
    assert caught.value.expected == expected and caught.value.status == 422


def test_a_parameter_that_nobody_reads_is_refused_with_a_close_spelling() -> None:
    parameters = Parameters({"rul": "vote"})
    parameters.choice("rule", ("vote",))
    with pytest.raises(Problem) as caught:
        parameters.finish()
    assert "rule" in caught.value.remedy


@pytest.mark.parametrize("text", ["+-5", "--5", "+", "5" * 20, "\u0665", "1_0"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        Parameters({"k": text}).integer("k", 3, 1, 1000)
    assert caught.value.status == 422


def test_a_parameter_that_is_given_twice_is_a_list_and_never_silently_the_last_one() -> None:
    form = read(post(files=files(picture("red"), picture("blue")), data={"label": ["mug", "cup"]}))
    assert Parameters(form.values).texts("label") == ["mug", "cup"]
    with pytest.raises(Problem, match="mug") as caught:
        Parameters(form.values).text("label")
    assert "one text" in caught.value.expected


def test_a_parameter_that_is_given_in_two_places_is_never_silently_one_of_them() -> None:
    """A filter in the address and another one in the body: neither is taken for both."""
    one, other = '{"site": "berlin"}', '{"site": "rome"}'
    forms = [
        read(post(files=files(picture("red")), data={"where": one}, params={"where": other})),
        read(post(json={"image": base64.b64encode(picture("red")).decode(), "where": json.loads(one)}, params={"where": other})),
        read(post(files=files(picture("red")), params=[("where", one), ("where", other)])),
    ]  # fmt: skip
    for form in forms:
        with pytest.raises(Problem) as caught:
            Parameters(form.values).mapping("where")
        assert caught.value.status == 422 and "JSON object" in caught.value.expected
    request = Request({"type": "http", "query_string": b"limit=1&limit=2&label=a"})
    with pytest.raises(Problem, match="limit"):
        Parameters.of_query(request).integer("limit", 1, 1, 9)
    assert Parameters.of_query(request).text("label") == "a"


def test_a_name_that_comes_twice_in_json_is_refused() -> None:
    text = '{"site": "berlin", "site": "rome"}'
    with pytest.raises(Problem) as caught:
        Parameters({"where": text}).mapping("where")
    assert caught.value.expected == "a JSON object, with each name once"
    assert refusal(post(content=f'{{"where": {text}}}', headers={"content-type": "application/json"})).status == 400


def test_json_of_countless_values_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(max_bytes=10**7, max_files=3)
    many = post(json={"image": [""] * (MAX_JSON_VALUES + 1)})
    deep = post(content=b'{"x": ' + b"[" * (MAX_JSON_VALUES + 1), headers={"content-type": "application/json"})
    monkeypatch.setattr(json, "loads", None)
    assert refusal(many, limits=limits, chunk=10**6).status == refusal(deep, limits=limits, chunk=10**6).status == 413


def test_more_images_in_json_than_may_be_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base64, "b64decode", None)
    assert refusal(post(json={"image": ["aaaa"] * 4})).status == 413


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("photo.jpg", "photo.jpg"),
        ("C:\\Users\\Ann\\photo 1.jpg", "photo 1.jpg"),
        ("/home/ann/photo.jpg", "photo.jpg"),
        ("https://cdn.example/a/b/photo.jpg", "photo.jpg"),
        ("folder/", "folder"),
        ("a\x1b[31m\nb\x00\x85\u2028.png", "a[31mb.png"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("äpfel 🍏.png", "äpfel 🍏.png"),
        ("<b>&amp;", "<b>&amp;"),
        ("half \ud800", "half \\ud800"),
        ("", None),
        ("/\\/", None),
        (" \t", None),
    ],
)
def test_of_a_files_name_the_last_part_is_kept_in_one_line(name: str, kept: str | None) -> None:
    assert file_name(name) == kept


def test_a_long_file_name_is_shortened() -> None:
    assert file_name("a" * MAX_FILE) == "a" * MAX_FILE
    for name in ("a" * (MAX_FILE + 1), "a" * 100_000, "\u202e" * 1000):
        kept = file_name(name)
        assert kept is not None and len(kept) == MAX_FILE and kept.endswith("…")

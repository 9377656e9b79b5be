"""Static files: the vendored ones unmodified, a fixed list, revalidated by browsers."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.serving import run, running
from unalike.serve.pages.static_files import static_table

VENDOR = files("unalike.serve") / "static" / "vendor"


def test_vendored_files_are_those_of_their_packages() -> None:
    folders = list(VENDOR.iterdir())
    assert [folder.name for folder in folders] == ["htmx"]
    for folder in folders:
        sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
        assert {entry.name for entry in folder.iterdir()} == {*sums, "SHA256SUMS"} and "LICENSE" in sums
        for name, digest in sums.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    # htmx.org 2.0.11, dist/htmx.min.js of the npm package.
    assert sums["htmx.min.js"] == "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
    assert b'version:"2.0.11"' in (VENDOR / "htmx" / "htmx.min.js").read_bytes()


def test_files_have_their_type_and_are_asked_for_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            it.service.store.keys.add("a", "view")  # no key is needed for them
            it.service.access.refresh()
            for name, kind in (("api.js", "text/javascript"), ("workbench.css", "text/css"), ("style.css", "text/css"),
                               ("icon.svg", "image/svg+xml"), ("vendor/htmx/LICENSE", "text/plain")):  # fmt: skip
                response = await it.client.get(f"/static/{name}")
                assert response.status_code == 200 and response.headers["content-type"].startswith(kind)
                assert response.headers["cache-control"] == "no-cache"
                validator = {"if-none-match": f'"other", W/{response.headers["etag"]}'}
                again = await it.client.get(f"/static/{name}", headers=validator)
                assert again.status_code == 304 and not again.content
            assert (await it.client.get("/static/api.js", headers={"if-none-match": '"other"'})).status_code == 200

    run(scenario())


@pytest.mark.parametrize("name", ["", "../app.py", "%2e%2e/app.py", "..%2f..%2fapp.py", "/etc/passwd", "vendor/htmx/SHA256SUMS",
                                  "vendor", "api.js/", "API.JS", "api.js%00.css"])  # fmt: skip
def test_nothing_else_is_served(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert (await it.client.get(f"/static/{name}")).status_code == 404

    run(scenario())


def test_scripts_write_no_markup_and_load_nothing_from_elsewhere() -> None:
    scripts = {
        name: entry.content.decode()
        for name, entry in static_table().items()
        if name.endswith(".js") and "vendor" not in name
    }
    assert len(scripts) >= 5
    for name, text in scripts.items():
        assert not re.search(
            r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), name
        assert not re.search(r"https?://", text), name
        for module in re.findall(r'from "([^"]+)"', text):
            assert module.removeprefix("./") in scripts, (name, module)

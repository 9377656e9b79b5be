"""The page Settings as the server renders it: for administrators, names as text, the audit log filtered and paged."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.serving import run, running
from unalike.serve.pages.settings import PAGE_SIZE

MARKUP = "<img src=x onerror=alert(1)>\"'&"


def test_keys_retention_and_files_are_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            text = (await it.client.get("/settings")).text
            assert "There is no key" in text and 'data-needs-key="no"' in text and "colors.gallery" in text
            store = it.service.store
            chief = {"x-api-key": store.keys.add("chief", "admin")[1]}
            store.keys.add(MARKUP, "view", "colors")
            store.keys.add("photo\u202egnp.exe", "view")
            old = store.keys.add("old", "admin")[0]
            store.keys.revoke(old.id)
            it.service.access.refresh()
            text = (await it.client.get("/settings", headers=chief)).text
            assert (
                text.count("data-revoke=") == 2
                and "the only admin key: it cannot be revoked" in text
                and "revoked 2" in text
            )
            assert "<img src=x" not in text and "\u202e" not in text and "&lt;img src=x" in text
            assert '<a href="/settings"' in text
            part = (await it.client.get("/settings/keys", headers=chief)).text
            assert part.count("data-revoke=") == 2 and "<html" not in part
            await it.client.put("/v1/settings", json={"retention_days": 3}, headers=chief)
            part = (await it.client.get("/settings/retention", headers=chief)).text
            assert 'value="3"' in part and "Changed; the service was started with 30." in part

    run(scenario())


def test_the_audit_log_is_filtered_and_paged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            audit = it.service.store.audit
            for number in range(PAGE_SIZE + 5):
                audit.finish(audit.begin(MARKUP, "test.act", "thing", {"number": number, "names": ["a", {"b": 1}]}))
            audit.finish(audit.begin("ann", "other.act", "thing"), "failed", "it failed")
            text = (await it.client.get("/settings?action=test.act")).text
            assert (
                text.count('class="what">test.act</td>') == PAGE_SIZE
                and "other.act" not in text
                and "<img src=x" not in text
            )
            assert "number: 29; names: a, b 1" in text
            (address,) = re.findall(r'href="(/settings\?[^"#]*after=[^"#]*)', text)
            text = (await it.client.get(address.replace("&amp;", "&"))).text
            assert text.count('class="what">test.act</td>') == 5 and "Newest" in text and "Older" not in text
            text = (await it.client.get("/settings?outcome=failed")).text
            assert "failed: it failed" in text and 'class="what">test.act</td>' not in text
            assert "No entries." in (await it.client.get("/settings?actor=nobody")).text
            for query in ("?outcome=x", "?after=x", "?other=1"):
                assert (await it.client.get(f"/settings{query}")).status_code == 422

    run(scenario())


def test_the_page_is_for_administrators_of_all_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            keys = {name: {"x-api-key": it.service.store.keys.add(name, role, gallery)[1]} for name, role, gallery in
                    (("chief", "admin", None), ("local", "admin", "colors"), ("till", "operate", None))}  # fmt: skip
            it.service.access.refresh()
            for name, status in (("chief", 200), ("local", 403), ("till", 403)):
                for path in ("/settings", "/settings/keys", "/settings/retention"):
                    assert (await it.client.get(path, headers=keys[name])).status_code == status
                page = (await it.client.get("/recognize", headers=keys[name])).text
                assert ('href="/settings' in page) == (status == 200)

    run(scenario())

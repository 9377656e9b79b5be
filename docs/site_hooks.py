"""Hooks of MkDocs for ``make docs``: generated pages are added, and a site that loads something from the network is refused."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from generate_specs import pages  # MkDocs puts the folder of its hooks on the import path while it loads them

NOTEBOOKS = "notebooks"
# Tag -> attribute that makes a browser fetch something on its own. Links that a reader clicks may lead anywhere.
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "link": "href",
    "object": "data",
}
# A link to another folder; a style sheet's file on the network.
OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)\)")
STYLES = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


class ExternalResources(HTMLParser):
    """Collects what a page would fetch from the network."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = dict(attrs)
        address = values.get(FETCHED.get(tag, "")) or ""
        if tag == "link" and values.get("rel") in ("canonical", "prev", "next"):
            return
        if address.startswith(("http:", "https:", "//")):
            self.found.append(f"<{tag}> {address}")


def external_resources(text: str, suffix: str) -> list[str]:
    """What a browser would fetch from the network for a page (``.html``) or a style sheet (``.css``)."""
    parser = ExternalResources()
    parser.feed(text if suffix == ".html" else "")
    return [*parser.found, *STYLES.findall(text if suffix == ".css" else "")]


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: text, code and the kept text outputs."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        text = "".join(line for output in cell["outputs"] for line in output.get("text", []))
        parts += [f"```text\n{text.rstrip()}\n```"] if text else []
    parts.insert(1, f"Download: [{path.name}]({path.name})")
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are generated: the keys of specs, and a page for each notebook."""
    from mkdocs.structure.files import File

    texts = pages()
    for notebook in sorted((Path(config.docs_dir) / NOTEBOOKS).glob("*.ipynb")):
        texts[f"{NOTEBOOKS}/{notebook.stem}.md"] = notebook_page(notebook)
    for address, text in texts.items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files of the repository outside ``docs/`` work where the repository is read; here their text is left."""
    docs = Path(config.docs_dir)
    folder = (docs / page.file.src_uri).parent

    def without_link(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        return match[1] if target.exists() and not target.is_relative_to(docs) else match[0]

    return OUTSIDE.sub(without_link, markdown)


def on_post_build(config: Any) -> None:
    """Refuse a site that loads something from the network."""
    from mkdocs.exceptions import PluginError

    site = Path(config.site_dir)
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        found = external_resources(path.read_text(encoding="utf-8"), path.suffix)
        if found:
            raise PluginError(f"{path.relative_to(site)} loads from the network: {', '.join(found)}")

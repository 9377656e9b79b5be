"""What tests of the workbench do on its pages: drop and paste pictures, wait for answers and messages, undo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PATIENCE_MS = 180_000  # on a machine in use everything takes longer, and work in the background longest
# A drop of pictures on an element, or a paste of them, as the browser would make it; contents are base64.
GIVE = """([kind, target, contents]) => {
  const data = new DataTransfer();
  contents.forEach((content, number) => data.items.add(new File(
    [Uint8Array.from(atob(content), letter => letter.charCodeAt(0))], `${kind}-${number}.png`, {type: 'image/png'})));
  const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
    : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
  document.querySelector(target).dispatchEvent(event);
}"""


def upload(page: Any, *contents: bytes, name: str = "", field: str = "#files") -> None:
    """Choose pictures in a field for files."""
    files = [
        {"name": name or f"{n}.png", "mimeType": "image/png", "buffer": content} for n, content in enumerate(contents)
    ]
    page.set_input_files(field, files)


def wait_for(page: Any, count: int) -> None:
    """Wait until there are so many answers."""
    from playwright.sync_api import expect

    expect(page.locator("article")).to_have_count(count, timeout=PATIENCE_MS)


def until(condition: Callable[[], bool], page: Any) -> None:
    """Wait for a condition; the pages' policy forbids the browser to evaluate one by itself."""
    for _ in range(PATIENCE_MS // 100):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it never became true")


def message(page: Any, text: str, patience_ms: int = PATIENCE_MS) -> Any:
    """Wait for a message with a text."""
    place = page.locator(".message", has_text=text).last
    place.wait_for(timeout=patience_ms)
    return place


def undo(page: Any, text: str) -> None:
    """Undo by the button of a message, and close what is said about it."""
    message(page, text).get_by_role("button", name="Undo").click()
    message(page, "Undone")
    page.evaluate("document.getElementById('messages').replaceChildren()")

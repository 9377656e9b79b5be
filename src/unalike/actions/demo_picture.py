"""Picture of answers: queries, each beside its nearest reference, framed by whether the class is the right one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unalike.sanitize import one_line
from unalike.storage.atomic import atomic_write

PAIRS, COLUMNS = 12, 4
# Side of an image, gap between images, height of a line of text, width of a frame; in pixels.
SIDE, GAP, LINE, FRAME = 96, 6, 18, 3
# Blue and orange are told apart by any kind of color vision; a cross marks wrong answers besides.
RIGHT, WRONG, INK, PAPER = (0, 96, 168), (213, 94, 0), (32, 32, 32), (255, 255, 255)


def write_answers(path: Path, predictions: Path) -> Path:
    """Write a PNG of PAIRS queries and their nearest references, drawn evenly from all answers.

    Args:
        path: The file.
        predictions: ``result.jsonl`` of an inference of class folders.
    """
    lines = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    rows = lines[:: max(1, len(lines) // PAIRS)][:PAIRS]
    with atomic_write(path) as partial:
        draw_answers(rows).quantize(128, dither=Image.Dither.NONE).save(partial, "PNG", optimize=True)
    return path


def draw_answers(lines: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Draw pairs of a query and its nearest reference, COLUMNS in a row, with the answer and its score below."""
    rows = -(-len(lines) // COLUMNS)
    width, height = 2 * SIDE + 2 * GAP, SIDE + 2 * LINE
    sheet = Image.new("RGB", (COLUMNS * width + GAP, rows * (height + GAP) + LINE + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((GAP, 2), "left: photograph; right: nearest reference", INK, font)
    for number, line in enumerate(lines):
        x, y = GAP + number % COLUMNS * width, LINE + number // COLUMNS * (height + GAP)
        truth, nearest = Path(line["path"]).parent.name, line["neighbours"][0]
        color = RIGHT if nearest["label"] == truth else WRONG
        for column, source in enumerate((line["path"], nearest["reference"])):
            with Image.open(source) as image:
                sheet.paste(image.convert("RGB").resize((SIDE, SIDE)), (x + column * SIDE, y))
        draw.rectangle((x, y, x + 2 * SIDE - 1, y + SIDE - 1), outline=color, width=FRAME)
        if color == WRONG:
            draw.line((x + SIDE, y, x + 2 * SIDE, y + SIDE), WRONG, FRAME)
        answer = f"{nearest['label']} {nearest['score']:.2f}"
        for offset, text in ((0, answer), (LINE - 4, "" if color == RIGHT else f"is {truth}")):
            draw.text((x, y + SIDE + 1 + offset), _fitted(text, draw, font, 2 * SIDE), color, font)
    return sheet


def _fitted(text: str, draw: ImageDraw.ImageDraw, font: Any, width: int) -> str:
    """The text in one line, shortened to a width in pixels."""
    text = one_line(text)
    while text and draw.textlength(text, font) > width:
        text = text[:-2] + "." if len(text) > 2 else ""
    return text

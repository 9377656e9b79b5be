"""The interfaces of `unalike serve` under generated, hostile and foreign clients, over a real socket.

    python benchmarks/service_protocols.py --model MODEL.onnx --gallery FILE --images DIR [--parts schema,hostile,triton]
        [--seed 0] [--requests 2000] [--max-examples 100] [--max-time 600] [--triton-python PYTHON] [--out FILE]

schema: schemathesis generates requests for every operation of the OpenAPI document; no answer may have a status of 500.
hostile: damaged and forged images, broken multipart bodies, JSON, filters and tensors, drawn by a seed, to every endpoint that
takes images; no status of 500, every connection answered or closed, and a good image is recognized afterwards. triton: the HTTP
client of Triton, in an environment of its own whose interpreter `--triton-python` names (tritonclient[http] needs another
ml-dtypes than ours), gets the vectors of `unalike embed`. The model computes with `--runtime` and `--precision`. Exits with 1
where any of this does not hold.
"""

from __future__ import annotations

import argparse
import base64
import collections
import http.client
import io
import json
import random
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from service_faults import image_files, own_gallery
from service_speed import free_port, serve_command, server

ENDPOINTS = ("identify", "embed", "explain", "references", "compare", "separation", "calibration", "classes", "review")
ARCHIVES = "/v1/training-data"  # schemathesis cannot write a zip: damaged ones are sent by the part ``hostile``
IMAGE_ENDPOINTS = ("identify", "embed", "explain", "references?label=a", "compare")
ODD_QUERIES = ("", "", "", "?k=-1", "?k=1e9", "?where=%7B", "?where=%5B%5D", "?rule=x", "?where=%7B%22a%22%3A%7B%7D%7D", "?%00=%ff")  # fmt: skip
PARAMETERS = ("where", "k", "label", "attributes", "rule")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
BOUNDARY = "boundary"
TRITON_IMAGES = 40


def encode(image: Image.Image, file_format: str) -> bytes:
    """An image as bytes of a format."""
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


def zip_of(content: bytes) -> bytes:
    """An archive of two classes with one image each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a/1.jpg", "b/2.jpg"):
            archive.writestr(name, content)
    return buffer.getvalue()


def damage(content: bytes, draw: random.Random) -> bytes:
    """The bytes of a file with one of nine kinds of damage."""
    place = draw.randrange(1, len(content))
    kind = draw.randrange(9)
    changed = bytearray(content)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[place:]
    if kind == 2:
        return content + draw.randbytes(draw.randrange(1, 5000))
    if kind == 3:  # zeros in the middle
        changed[place : place + 500] = bytes(len(changed[place : place + 500]))
    elif kind == 4:
        for _ in range(draw.randrange(1, 40)):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    elif kind == 5:  # the header, where sizes and counts are
        for _ in range(draw.randrange(1, 8)):
            changed[draw.randrange(min(64, len(changed)))] = draw.choice((0, 1, 127, 128, 255))
    elif kind == 6:
        return draw.randbytes(draw.randrange(0, 4000))
    elif kind == 7:
        return b""
    else:
        return bytes(changed[:32]) + draw.randbytes(len(content) - 32 if len(content) > 32 else 1)
    return bytes(changed)


def multipart(parts: list[tuple[str, bytes]], draw: random.Random) -> tuple[dict[str, str], bytes]:
    """A multipart body, in half of the cases broken."""
    lines = b"".join(
        b"--" + BOUNDARY.encode() + b"\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts
    )
    body = lines + b"--" + BOUNDARY.encode() + b"--\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    kind = draw.randrange(12)
    if kind == 0:
        headers["Content-Type"] = "multipart/form-data"
    elif kind == 1:
        body = body[: draw.randrange(len(body))]
    elif kind == 2:
        headers["Content-Type"] = f"multipart/form-data; boundary={'x' * draw.choice((1, 71, 3000))}"
    elif kind == 3:
        body = body.replace(b"\r\n", b"\n")
    elif kind == 4:
        headers["Content-Type"] = draw.choice(
            ("text/plain", "image/jpeg", "application/json", "application/x-www-form-urlencoded", "x" * 200)
        )
    elif kind == 5:
        body = damage(body, draw)
    return headers, body


def part_head(draw: random.Random) -> str:
    """The header of a part that should be an image."""
    name = draw.choice(
        ("image", "image", "image", "images", "reference", "scene", "mask", "", "a" * 3000, "where", "k")
    )
    file = draw.choice(
        ("a.jpg", "../../etc/passwd", "", "a\tb.png", "x" * 2000, "é\u202e.png", "a.jpg\x00.exe", "=cmd|' /C calc'!A0")
    )
    head = f'Content-Disposition: form-data; name="{name}"; filename="{file}"'
    return head + draw.choice(
        ("", "\r\nContent-Type: image/jpeg", "\r\nContent-Type: text/html", "\r\nContent-Transfer-Encoding: base64")
    )


def odd_value(draw: random.Random, depth: int = 0) -> Any:
    """A JSON value that a parameter should not have, nested at times."""
    plain = (
        None,
        True,
        -1,
        0,
        10**30,
        1e308,
        "",
        "x" * 5000,
        "\x00",
        "é",
        "nan",
        "../..",
        "http://169.254.169.254/",
        "\ud800",
    )
    if depth < 3 and draw.random() < 0.3:
        values = [odd_value(draw, depth + 1) for _ in range(draw.randrange(4))]
        return values if draw.random() < 0.5 else {str(key): value for key, value in enumerate(values)}
    return draw.choice(plain)


def json_request(content: bytes, draw: random.Random) -> tuple[dict[str, str], bytes]:
    """A JSON body with images as base64, of which parts are wrong."""
    text = base64.b64encode(content).decode()
    image = draw.choice(
        (
            text,
            text[:-3],
            text + "!",
            {"base64": text},
            {"url": "http://127.0.0.1:1/a.jpg"},
            {"path": "/etc/passwd"},
            odd_value(draw),
        )
    )
    body: dict[str, Any] = {
        draw.choice(("images", "image", "reference", "query")): draw.choice(([image], image, [image] * 200))
    }
    for name in draw.sample(
        ("k", "rule", "where", "label", "attributes", "regions", "ignore", "threshold", "decision", "name"), 3
    ):
        body[name] = odd_value(draw)
    written = json.dumps(body)
    kind = draw.randrange(11)
    if kind == 10:  # one of many names twice
        written = "{" + ",".join(f'"{number}":1' for number in (*range(30_000), 29_999)) + "}"
    elif kind == 0:
        written = "[" * 100_000
    elif kind == 1:
        written = written[: draw.randrange(len(written))]
    elif kind == 2:
        written = written.replace("null", "NaN").replace("true", "Infinity")
    elif kind == 3:
        written = '{"a":' * 5000 + "1" + "}" * 5000
    encoded = written.encode("utf-8", "surrogatepass")
    return {"Content-Type": "application/json"}, b"\xff\xfe" + encoded if kind == 4 else encoded


def tensor_request(content: bytes, draw: random.Random) -> tuple[dict[str, str], bytes]:
    """A request of the Open Inference Protocol, of which parts are wrong."""
    binary = len(content).to_bytes(4, "little") + content
    shape = draw.choice(([1], [0], [-1], [2], [1, 1], [10**12], ["1"], None, [], [1, 3, 224, 224], [1.5]))
    tensor: dict[str, Any] = {
        "name": draw.choice(("image", "input", "x", 3)),
        "shape": shape,
        "datatype": draw.choice(("BYTES", "FP32", "UINT8", "INT64", "?", None)),
    }
    if draw.random() < 0.5:
        tensor["parameters"] = {"binary_data_size": draw.choice((len(binary), 0, -1, 10**12, "4", None))}
    else:
        tensor["data"] = draw.choice(
            ([base64.b64encode(content).decode()], [], [1, 2, 3], [[[[]]]], "abc", odd_value(draw))
        )
    head = json.dumps(
        {"inputs": draw.choice(([tensor], tensor, [], [tensor] * 50)), "outputs": odd_value(draw)}
    ).encode("utf-8", "surrogatepass")
    length = draw.choice((len(head), len(head) - 1, 0, -5, 10**12, "abc"))
    return {"Inference-Header-Content-Length": str(length), "Content-Type": "application/octet-stream"}, head + binary


def hostile_request(files: list[bytes], draw: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, headers and body of one request."""
    content = draw.choice(files)
    if draw.random() < 0.8:
        content = damage(content, draw)
    kind = draw.random()
    if kind < 0.3:  # only the image is wrong
        names = ("reference", "image") if (endpoint := draw.choice(IMAGE_ENDPOINTS)) == "compare" else ("image",)
        parts = [(f'Content-Disposition: form-data; name="{name}"; filename="a.jpg"', content) for name in names]
        return "POST", f"/v1/{endpoint}", *multipart(parts, Whole())
    if kind < 0.45:
        path = draw.choice(
            ("/v2/models/embedding/infer", "/v2/models/embedding_tensor/infer", "/v2/models/embedding/versions/1/infer")
        )
        return "POST", path, *tensor_request(content, draw)
    if kind < 0.5:
        return "POST", ARCHIVES, {"Content-Type": "application/zip"}, damage(zip_of(content), draw)
    path = f"/v1/{draw.choice(ENDPOINTS)}{draw.choice(ODD_QUERIES)}"
    if kind < 0.75:
        parts = [(part_head(draw), content) for _ in range(draw.choice((1, 1, 1, 2, 40)))]
        if draw.random() < 0.5:
            name, value = draw.choice(PARAMETERS), json.dumps(odd_value(draw)).encode("utf-8", "surrogatepass")
            parts.append((f'Content-Disposition: form-data; name="{name}"', value))
        return "POST", path, *multipart(parts, draw)
    return draw.choice(("POST", "POST", "POST", "PUT", "PATCH", "DELETE")), path, *json_request(content, draw)


def send(port: int, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
    """The status of an answer; 0 where the server closed the connection without one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    except (ConnectionError, http.client.BadStatusLine):
        return 0
    finally:
        connection.close()


def test_hostile(arguments: argparse.Namespace, port: int) -> dict[str, Any]:
    """Statuses of hostile requests, and whether the service still recognizes."""
    draw = random.Random(arguments.seed)
    picture = Image.open(image_files(arguments.images)[0]).convert("RGB").resize((160, 120))
    files = [encode(picture, file_format) for file_format in FORMATS]
    statuses: collections.Counter[int] = collections.Counter()
    failures = []
    for number in range(arguments.requests):
        method, path, headers, body = hostile_request(files, draw)
        status = send(port, method, path, headers, body)
        statuses[status] += 1
        if status == 500:
            failures.append(
                {"number": number, "method": method, "path": path, "headers": headers, "body": repr(body[:300])}
            )
    form, good = multipart([('Content-Disposition: form-data; name="image"; filename="a.jpg"', files[0])], Whole())
    after = send(port, "POST", "/v1/identify", form, good)
    return {"part": "hostile", "seed": arguments.seed, "requests": arguments.requests, "statuses": dict(sorted(statuses.items())),
            "failures": failures[:10], "good image afterwards": after, "holds": not failures and after == 200}  # fmt: skip


class Whole(random.Random):
    """Draws what leaves a body whole."""

    def randrange(self, *_arguments: Any) -> int:
        return 11


def test_schema(arguments: argparse.Namespace, port: int) -> dict[str, Any]:
    """Run schemathesis over the OpenAPI document."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "not_a_server_error",
                   "--phases", "examples,coverage,fuzzing", "--max-examples", str(arguments.max_examples), "--seed", str(arguments.seed), "--max-time",
                   str(arguments.max_time), "--continue-on-failure", "--suppress-health-check", "all", "--report", "junit", "--report-junit-path", str(report),
                   "--warnings", "off", "--exclude-path", ARCHIVES]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    lines = [line.strip() for line in done.stdout.splitlines()]
    facts = [
        line
        for line in lines
        if re.search(r"\d+ (generated|operations|selected|tested)|Operations:|Test cases:|cases|Server error", line)
    ]
    return {"part": "schema", "seed": arguments.seed, "exit": done.returncode, "summary": facts[-12:],
            "failures": [] if done.returncode == 0 else lines[-80:], "holds": done.returncode == 0}  # fmt: skip


TRITON = """
import json, sys
import numpy as np
import tritonclient.http as triton
port, files = sys.argv[1], json.load(sys.stdin)
client = triton.InferenceServerClient(f"127.0.0.1:{port}")
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("embedding")
names = [client.get_model_metadata(name)["name"] for name in ("embedding", "embedding_tensor")]
vectors = []
for binary in (True, False):
    contents = np.array([open(file, "rb").read() for file in files], dtype=np.object_)
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(contents, binary_data=True)
    result = client.infer("embedding", [tensor], outputs=[triton.InferRequestedOutput("embedding", binary_data=binary)])
    vectors.append(result.as_numpy("embedding").astype(float).tolist())
print(json.dumps({"models": names, "vectors": vectors}))
"""


def test_triton(arguments: argparse.Namespace, port: int) -> dict[str, Any]:
    """Compare the vectors that Triton's client gets with those that `unalike embed` writes."""
    files = [str(file.resolve()) for file in image_files(arguments.images)[:TRITON_IMAGES]]
    done = subprocess.run(
        [arguments.triton_python, "-c", TRITON, str(port)],
        input=json.dumps(files),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return {"part": "triton", "error": done.stderr[-2000:], "holds": False}
    answers = json.loads(done.stdout.splitlines()[-1])
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for number, file in enumerate(files):
            (images / f"{number:03}.jpg").symlink_to(file)
        subprocess.run([sys.executable, "-m", "unalike", "embed", str(images), "-m", str(arguments.model), "-o", f"{folder}/vectors.npz", "--runtime",
                        arguments.runtime, "--precision", arguments.precision], check=True, capture_output=True)  # fmt: skip
        with np.load(f"{folder}/vectors.npz") as stored:
            (key,) = [name for name in stored.files if stored[name].ndim == 2]
            vectors_ND = stored[key]
    largest = [float(np.abs(np.asarray(got_ND) - vectors_ND).max()) for got_ND in answers["vectors"]]
    return {"part": "triton", "models": answers["models"], "images": len(files), "largest difference, binary and JSON": largest,
            "holds": max(largest) <= 1e-6}  # fmt: skip


def check_service_alive(port: int) -> None:
    """Raise where the service does not answer any more."""
    httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30).raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "gallery", "images"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--parts", default="schema,hostile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--max-examples", type=int, default=100)
    parser.add_argument("--max-time", type=int, default=600)
    parser.add_argument("--triton-python", default=sys.executable)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    parts: dict[str, Callable[[argparse.Namespace, int], dict[str, Any]]] = {
        "schema": test_schema,
        "hostile": test_hostile,
        "triton": test_triton,
    }
    results = []
    for part in arguments.parts.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder, port = Path(name), free_port()
            with server(serve_command(own_gallery(arguments, folder), port, folder), port, "/readyz", folder):
                results.append(parts[part](arguments, port))
                check_service_alive(port)
        print(json.dumps(results[-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))
    sys.exit(0 if all(result["holds"] for result in results) else 1)


if __name__ == "__main__":
    main()

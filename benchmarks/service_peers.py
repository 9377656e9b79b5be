"""Servers to measure `unalike serve` beside: see service_speed.py.

    python benchmarks/service_peers.py constant|plain|litserve|ray --model MODEL --gallery FILE --port PORT [--runtime R] [--precision P]

`constant` parses an upload and answers a constant; `plain` is what somebody writes first: a FastAPI handler that identifies the
uploaded image in a thread; `litserve` is a LitServe server with its batching (at most 16 images within 3 ms); `ray` is one
replica of Ray Serve, with its batching of the same size and wait. The last two need their packages, in an environment of their own.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile

import unalike


def serve_constant(arguments: argparse.Namespace) -> None:

    app = FastAPI()

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/identify")
    async def identify(image: UploadFile) -> dict[str, int]:
        return {"bytes": len(await image.read())}

    uvicorn.run(app, port=arguments.port, log_level="warning")


def serve_plain(arguments: argparse.Namespace) -> None:

    recognizer = load(arguments)
    app = FastAPI()

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/identify")
    def identify(image: UploadFile) -> dict[str, Any]:
        return recognizer.identify(image.file.read(), k=3)[0].to_dict()

    uvicorn.run(app, port=arguments.port, log_level="warning")


def serve_litserve(arguments: argparse.Namespace) -> None:
    import litserve
    from service_litserve import Api

    api = Api(arguments, max_batch_size=16, batch_timeout=0.003, api_path="/v1/identify")
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        port=arguments.port, generate_client_file=False
    )


def serve_ray(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # for its workers too
    import ray
    from ray import serve
    from service_ray import Identify

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
    serve.run(Identify.bind(arguments), blocking=True)


def load(arguments: argparse.Namespace) -> unalike.Recogniser:
    """The recognizer of the arguments."""
    return unalike.Recogniser.load(
        arguments.model, arguments.gallery, runtime=arguments.runtime, precision=arguments.precision
    )


SERVERS = {"constant": serve_constant, "plain": serve_plain, "litserve": serve_litserve, "ray": serve_ray}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=sorted(SERVERS))
    parser.add_argument("--model", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    SERVERS[arguments.server](arguments)


if __name__ == "__main__":
    main()

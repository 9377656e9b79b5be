"""The deployment that Ray's worker process imports: see service_peers.py."""

import argparse
import asyncio
from typing import Any

from fastapi import FastAPI, UploadFile
from ray import serve
from service_peers import load

app = FastAPI()


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
@serve.ingress(app)
class Identify:
    """Identifies uploaded images in batches.

    Args:
        arguments: of service_peers.py.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.recognizer = load(arguments)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.003)
    async def identify_batch(self, images: list[bytes]) -> list[dict[str, Any]]:
        """An answer for each image."""
        answers = await asyncio.to_thread(self.recognizer.identify, images, k=3)
        return [answer.to_dict() for answer in answers]

    @app.get("/readyz")
    async def ready(self) -> dict[str, str]:
        """Answers once the network is loaded."""
        return {"status": "ready"}

    @app.post("/v1/identify")
    async def identify(self, image: UploadFile) -> dict[str, Any]:
        """Identify one image."""
        answer: dict[str, Any] = await self.identify_batch(await image.read())
        return answer

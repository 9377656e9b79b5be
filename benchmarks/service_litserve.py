"""The class that LitServe's worker process imports: see service_peers.py."""

import argparse
from typing import Any

import litserve
from fastapi import Request
from service_peers import load


class Api(litserve.LitAPI):  # type: ignore[misc]
    """Identifies uploaded images in batches.

    Args:
        arguments: of service_peers.py.
        options: of LitServe.
    """

    def __init__(self, arguments: argparse.Namespace, **options: Any) -> None:
        super().__init__(**options)
        self.arguments = arguments

    def setup(self, device: str) -> None:
        """Load the network in the worker process."""
        self.recognizer = load(self.arguments)

    def decode_request(self, request: Request) -> bytes:
        """The uploaded file."""
        content: bytes = request["image"].file.read()  # type: ignore[index]  # LitServe gives the form
        return content

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Files of several requests."""
        return inputs

    def predict(self, inputs: list[bytes]) -> list[Any]:
        """Identify them."""
        return self.recognizer.identify(inputs, k=3)

    def unbatch(self, output: list[Any]) -> list[Any]:
        """An answer for each request."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """As JSON."""
        answer: dict[str, Any] = output.to_dict()
        return answer

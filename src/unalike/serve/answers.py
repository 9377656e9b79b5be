"""Models of answers for the OpenAPI document.

Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class NeighborModel(BaseModel):
    label: str = Field(description="Its class.")
    name: str = Field(description="The name under which it was enrolled.")
    score: float = Field(description="Cosine to the image, -1 to 1.")
    distance: float = Field(description="Squared L2 distance of the unit vectors, 0 to 4.")


class IdentificationModel(BaseModel):
    index: int = Field(description="Place of the image in the request, from 0.")
    path: str = Field(description="The client's name of the image.")
    id: str = Field(description="Id of the decision.")
    label: str | None = Field(description="The class where decision is label, else null.")
    score: float
    distance: float
    neighbours: list[NeighborModel]
    decision: str = Field(
        description="label, ambiguous or unknown.", json_schema_extra={"enum": ["label", "ambiguous", "unknown"]}
    )
    nearest: str = Field(
        description="The best class whatever the decision; empty where no reference passes the filter."
    )
    second: str | None
    margin: float | None
    calibrated: bool
    stale: bool
    threshold: float | None = Field(
        description="Lowest cosine of a known image: that of the gallery plus second_weight x the cosine of the second class."
    )
    second_weight: float = Field(
        default=0.0, description="Weight of the second class's cosine in the threshold, 0 to 1."
    )
    note: str
    where: dict[str, list[str]] | None = Field(default=None, description="The filter, where the request had one.")


class UnreadableModel(BaseModel):
    index: int
    path: str
    reason: str


class IdentifyModel(BaseModel):
    gallery: str
    engine: dict[str, Any]
    index: dict[str, Any] | None
    answers: list[IdentificationModel]
    unreadable: list[UnreadableModel]


class EmbeddingModel(BaseModel):
    index: int
    path: str
    vector: list[float] = Field(description="The network's output.")


class EmbedModel(BaseModel):
    model: str
    dim: int
    vectors: list[EmbeddingModel]
    unreadable: list[UnreadableModel]


class HealthModel(BaseModel):
    status: str

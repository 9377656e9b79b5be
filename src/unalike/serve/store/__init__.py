"""The store of the service: what was decided, who may ask, and the images, in SQLite or PostgreSQL and a folder or S3."""

from unalike.serve.store.images import ImageStore
from unalike.serve.store.records import (
    AuditEntry,
    Claim,
    Conflict,
    DecisionFilter,
    DecisionRecord,
    Feedback,
    InProgress,
    KeyRecord,
    New,
    Page,
    Replay,
    SessionRecord,
    TaskRecord,
    new_id,
)
from unalike.serve.store.store import Store, find_store, open_store

__all__ = [
    "AuditEntry", "Claim", "Conflict", "DecisionFilter", "DecisionRecord", "Feedback", "ImageStore", "InProgress",
    "KeyRecord", "New", "Page", "Replay", "SessionRecord", "Store", "TaskRecord", "find_store", "new_id", "open_store",
]  # fmt: skip

"""Models, comparisons and promotions: what goes in comes out, on SQLite and PostgreSQL."""

from __future__ import annotations

from unalike.serve.store import Store
from unalike.serve.store.learning import PROMOTE, ROLL_BACK, ComparisonRecord, ModelRecord, PromotionRecord


def model(gallery: str = "shop", name: str = "first") -> ModelRecord:
    return ModelRecord(gallery, name, "models/x/model.onnx", "0" * 64, "weights 1", None, {"figures": {"R@1": 0.9}})


def test_models_are_listed_by_gallery_the_newest_first(store: Store) -> None:
    first, second, other = model(), model(name="<b>second"), model("line")
    for record in (first, second, other):
        store.learning.add_model(record)
    assert [record.id for record in store.learning.models("shop")] == [second.id, first.id]
    assert len(store.learning.models()) == 3 and store.learning.model("nothing") is None
    assert store.learning.model(first.id) == first and first.to_dict()["facts"] == {"figures": {"R@1": 0.9}}


def test_the_latest_comparison_with_a_network_counts(store: Store) -> None:
    candidate = model()
    store.learning.add_model(candidate)
    for former, value in (("weights 1", 1), ("weights 2", 2), ("weights 1", 3)):
        store.learning.add_comparison(ComparisonRecord(candidate.id, former, {"value": value}))
    latest = store.learning.comparison(candidate.id)
    assert latest is not None and latest.result == {"value": 3}
    second = store.learning.comparison(candidate.id, "weights 2")
    assert second is not None and second.result == {"value": 2}
    assert store.learning.comparison(candidate.id, "weights 9") is None


def test_each_return_takes_back_one_promotion(store: Store) -> None:
    learning = store.learning

    def promote(kind: str, file: str, former: str) -> PromotionRecord:
        record = PromotionRecord(kind, "shop", None, file, former, "chief")
        learning.add_promotion(record)
        return record

    assert learning.standing_promotion("shop") is None
    first, second = promote(PROMOTE, "b", "a"), promote(PROMOTE, "c", "b")
    assert learning.standing_promotion("shop") == second
    promote(ROLL_BACK, "b", "c")
    assert learning.standing_promotion("shop") == first
    third = promote(PROMOTE, "d", "b")
    promote(ROLL_BACK, "b", "d")
    last = promote(ROLL_BACK, "a", "b")
    assert learning.standing_promotion("shop") is None and learning.standing_promotion("line") is None
    learning.remove_promotion(last.id)
    assert learning.standing_promotion("shop") == first
    assert [record.file for record in learning.promotions("shop")] == ["b", "d", "b", "c", "b"]
    assert third.to_dict()["kind"] == PROMOTE

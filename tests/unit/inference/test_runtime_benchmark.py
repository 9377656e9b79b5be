import threading

import pytest

from unalike.inference import runtime_benchmark


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("rates", "order", "winner"), [
    ({}, ["a", "b"], ""), ({"b": 3.0}, ["a", "b"], "b"), ({"a": 10.0, "b": 10.9}, ["a", "b"], "a"),
    ({"a": 10.0, "b": 11.1}, ["a", "b"], "b"), ({"a": 10.0, "b": 11.1, "c": 50.0}, ["a", "b"], "b"),
])  # fmt: skip
def test_the_first_keeps_its_place_within_the_margin(rates, order, winner):
    assert runtime_benchmark.fastest(rates, order) == winner


def test_rates_are_kept_by_machine_and_network_and_a_damaged_file_is_ignored(cache, monkeypatch):
    runtime_benchmark.save_rates("n1", {"openvino": 10.0})
    runtime_benchmark.save_rates("n2", {"openvino": 20.0})
    assert runtime_benchmark.load_rates("n1") == {"openvino": 10.0} and runtime_benchmark.load_rates("n3") == {}
    monkeypatch.setattr(runtime_benchmark, "machine_key", lambda: "another machine")
    assert runtime_benchmark.load_rates("n1") == {}
    (cache / "engines.json").write_text("{torn")
    assert runtime_benchmark.load_rates("n2") == {}
    runtime_benchmark.save_rates("n2", {"torch": 1.0})
    assert runtime_benchmark.load_rates("n2") == {"torch": 1.0}


def test_rates_that_threads_keep_at_one_moment_are_all_there(cache, monkeypatch):
    threads = [
        threading.Thread(target=runtime_benchmark.save_rates, args=(f"network {number}", {"openvino": number + 1.0}))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(12):
        assert runtime_benchmark.load_rates(f"network {number}") == {"openvino": number + 1.0}

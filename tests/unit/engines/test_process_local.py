import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.support import networks
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.openvino_engine import OpenVinoEngine
from unalike.engines.process_local import ModelSource, ProcessLocal
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import ModelError
from unalike.inference.engine_selection import RefreshableEngine

FORK = multiprocessing.get_context("fork")


def make(kind, model):
    if kind == "torch":
        return TorchEngine(networks.SmallEmbedder().eval(), networks.MEAN, networks.STD, networks.SIZE)
    if kind == "refreshable":
        return RefreshableEngine(make("openvino", model), None, len)
    return OpenVinoEngine(model, precision="fp32") if kind == "openvino" else OnnxEngine(model)


def in_child(function, *arguments, timeout=60):
    """What a function returns, or raises, in a forked process."""
    results = FORK.Queue()

    def run():
        try:
            results.put(function(*arguments))
        except Exception as error:  # noqa: BLE001 - the parent looks at it
            results.put(error)

    child = FORK.Process(target=run)
    child.start()
    try:
        return results.get(timeout=timeout)
    finally:
        child.kill()
        child.join()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(networks.exported_bytes())
    return path


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime", "torch", "refreshable"])
def test_an_engine_answers_in_a_forked_process(model, kind):
    engine, images = make(kind, model), networks.pictures(5)
    expected = engine(images)
    for _ in range(2):
        np.testing.assert_allclose(in_child(engine, images), expected, atol=1e-5)
    assert np.array_equal(engine(images), expected)


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime", "torch", "refreshable"])
def test_an_engine_can_be_pickled_and_carries_the_path_of_its_file(model, kind):
    engine, images = make(kind, model), networks.pictures(5)
    content = pickle.dumps(engine)
    np.testing.assert_allclose(pickle.loads(content)(images), engine(images), atol=1e-5)
    assert kind == "torch" or (str(model).encode() in content and len(content) < 1000)


def test_a_forked_process_that_ends_by_itself_ends_well(model):
    code = (
        "import os, sys\nimport numpy as np\nfrom unalike.engines.openvino_engine import OpenVinoEngine\n"
        f"engine = OpenVinoEngine({str(model)!r})\nimages = np.zeros((3, *engine.input_size, 3), np.uint8)\nengine(images)\n"
        "if os.fork() == 0:\n    engine(images)\n    del engine\n    sys.exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def replace_by_another(model):
    """Another network of the same size and time under the same name."""
    status = model.stat()
    model.write_bytes(networks.exported_bytes(seed=1))
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert model.stat().st_size == status.st_size


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
def test_a_forked_process_does_not_read_another_network(model, kind):
    engine, images = make(kind, model), networks.pictures(2)
    os.utime(model, (1, 1))  # the same content
    np.testing.assert_allclose(in_child(engine, images), engine(images), atol=1e-5)
    replace_by_another(model)
    failure = in_child(engine, images)
    assert isinstance(failure, ModelError) and "was changed since it was loaded" in str(failure)
    model.unlink()
    assert isinstance(in_child(engine, images), ModelError)
    source = ModelSource(b"content")
    assert source.read().graph == b"content" and source.name == "the model in memory"


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime", "refreshable"])
def test_a_pickled_engine_does_not_come_back_as_another_network(model, kind):
    content = pickle.dumps(make(kind, model))
    pickle.loads(content)
    replace_by_another(model)
    with pytest.raises(ModelError, match="was changed since it was loaded"):
        pickle.loads(content)


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
def test_many_callers_of_one_engine_get_their_own_answers(model, kind):
    engine, images = make(kind, model), networks.pictures(24)
    expected, faults = engine(images), []

    def call(start):
        for step in range(15):
            count = 1 if start % 2 else 1 + step  # some callers have one image, some many
            first = (start + step) % 8
            if np.abs(engine(images[first : first + count]) - expected[first : first + count]).max() > 1e-5:
                faults.append((start, step))

    threads = [threading.Thread(target=call, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_no_request_is_lost_when_a_call_fails(model):
    engine = OpenVinoEngine(model, precision="fp32")
    network = engine._network
    idle = [network.take(wait=False) for _ in range(network.requests)]
    assert network.take(wait=False) is None
    for request in idle[1:]:
        network.give_back(request)

    class Broken:
        def start_async(self, inputs):
            raise RuntimeError("no")

        def wait(self):
            pass

        def get_output_tensor(self, number):
            return idle[0].get_output_tensor(number)

    network.give_back(Broken())
    failures = 0
    for _ in range(network.requests):
        try:
            engine(networks.pictures(1))
        except RuntimeError:
            failures += 1
    assert failures == 1
    assert len(network.idle) == network.requests


def test_a_value_is_made_once_a_process():
    local, made = ProcessLocal(), []

    def create():
        made.append(os.getpid())
        return os.getpid()

    assert local.get(create) == local.get(create) == os.getpid() and len(made) == 1
    child = in_child(lambda: (local.get(create), local.get(create), os.getpid(), len(made)))
    assert child[0] == child[1] == child[2] != os.getpid() and child[3] == 2


def test_callers_get_requests_in_the_order_in_which_they_asked(model):
    """One that returns a request and asks for the next one at once comes after those that wait already."""
    network = OpenVinoEngine(model, precision="fp32")._network
    requests = [network.take(wait=False) for _ in range(network.requests)]
    order, threads = [], []

    def wait(number):
        request = network.take(wait=True)
        order.append(number)
        network.give_back(request)

    for number in range(6):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(network._waiting) <= number:
            time.sleep(0.001)
    assert network.take(wait=False) is None
    network.give_back(requests.pop())
    last = network.take(wait=True)  # the six were before
    assert sorted(order) == list(range(6)) and order == list(range(6))
    for request in [last, *requests]:
        network.give_back(request)
    for thread in threads:
        thread.join()
    assert len(network.idle) == network.requests and not network._waiting

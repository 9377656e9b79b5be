import numpy as np
import pytest

from unalike.errors import ModelError
from unalike.recognition.model_identity import ModelIdentity


def test_embeddings_of_another_network_or_view_are_refused():
    probe = np.arange(5.0)
    maker = ModelIdentity(probe, {"height": 4, "width": 6}, "m.onnx")
    maker.check_compatible(ModelIdentity(probe * 3 + 0.01, {"height": 4, "width": 6}))
    maker.check_compatible(ModelIdentity())
    with pytest.raises(ModelError, match=r"another network \(m.onnx\)"):
        maker.check_compatible(ModelIdentity(-probe))
    with pytest.raises(ModelError, match="another view: height 4, not 5"):
        maker.check_compatible(ModelIdentity(probe, {"height": 5, "width": 6}))


def test_a_networks_key_tells_more_than_its_answer_to_one_image():
    probe = np.arange(5.0)
    maker = ModelIdentity(probe, network="weights 1")
    maker.check_compatible(ModelIdentity(-probe, network="weights 1"))  # INT8 that rounds badly, of the same network
    with pytest.raises(ModelError, match="another network"):
        maker.check_compatible(ModelIdentity(probe, network="weights 2"))  # the next epoch: nearly the same vector
    maker.check_compatible(ModelIdentity(probe))  # a file of an earlier release
    ModelIdentity(probe, network="file 1").check_compatible(
        ModelIdentity(probe, network="file 2")
    )  # as exported twice: the answer decides
    with pytest.raises(ModelError, match="another network"):
        ModelIdentity(probe, network="file 1").check_compatible(ModelIdentity(-probe, network="file 2"))

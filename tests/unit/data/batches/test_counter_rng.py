import numpy as np

from unalike.data.batches import counter_rng


def test_numbers_are_uniform_and_independent_of_company():
    keys = counter_rng.keys((1, 2, 3), np.arange(20_000))
    table = counter_rng.uniforms(keys, 4)
    assert table.shape == (20_000, 4) and (0 <= table).all() and (table < 1).all()
    assert np.abs(table.mean(0) - 0.5).max() < 0.01 and np.abs(table.var(0) - 1 / 12).max() < 0.005
    assert np.abs(np.corrcoef(table.T) - np.eye(4)).max() < 0.03
    assert np.abs(np.corrcoef(table[:-1, 0], table[1:, 0])[0, 1]) < 0.03
    some = counter_rng.keys((1, 2, 3), np.array([17, 4]))
    assert np.array_equal(counter_rng.uniforms(some, 4), table[[17, 4]])


def test_every_part_of_the_key_matters():
    base = counter_rng.keys((1, 2, 3), np.array([5]), np.array([0]))[0]
    others = [
        counter_rng.keys((2, 2, 3), np.array([5]), np.array([0]))[0],
        counter_rng.keys((1, 3, 2), np.array([5]), np.array([0]))[0],
        counter_rng.keys((1, 2, 4), np.array([5]), np.array([0]))[0],
        counter_rng.keys((1, 2, 3), np.array([6]), np.array([0]))[0],
        counter_rng.keys((1, 2, 3), np.array([5]), np.array([1]))[0],
        counter_rng.keys((1, 2, 3), np.array([0]), np.array([5]))[0],
    ]
    assert len({int(k) for k in [base, *others]}) == 7


def test_matches_the_published_generator():
    # SplitMix64 from state 0 yields these first outputs (reference implementation, Vigna)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    got = counter_rng.uniforms(np.zeros(1, dtype=np.uint64), 3)[0]
    assert np.array_equal(got, [(v >> 11) * 2.0**-53 for v in expected])

"""A teacher's batches: every record once a pass, and a function of its own shard alone."""

import numpy as np

from teacher_server.training.shard_batches import ShardBatches


def test_each_pass_draws_every_record_once_in_a_new_order():
    records = np.arange(100, 130)
    batches = ShardBatches(records, batch=8, seed=0, teacher=3)
    drawn = np.concatenate([batches(step) for step in range(15)])  # 120 = 4 passes
    passes = drawn.reshape(4, 30)
    assert all(sorted(one) == records.tolist() for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_any_step_can_be_asked_for_first():
    records = np.arange(11)
    in_order = ShardBatches(records, 4, 0, 0)
    expected = [in_order(step) for step in range(20)]
    for step in (19, 3, 7):
        np.testing.assert_array_equal(ShardBatches(records, 4, 0, 0)(step), expected[step])


def test_seed_and_teacher_change_the_order():
    records = np.arange(50)
    orders = {
        tuple(ShardBatches(records, 50, seed, teacher)(0)) for seed in (0, 1) for teacher in (0, 1)
    }
    assert len(orders) == 4


def test_a_shard_smaller_than_a_batch_repeats_and_an_empty_one_gives_full_batches():
    assert sorted(ShardBatches(np.array([5, 6]), 6, 0, 0)(0)) == [5, 5, 5, 6, 6, 6]
    assert ShardBatches(np.array([], dtype=np.int64), 6, 0, 0)(9).tolist() == [0] * 6

"""Both kinds of split give the same examples; orders and cuts are functions of their seeds."""

import random

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.data import splits
from lotcal_tf.data.splits import (
    Dataset,
    ResidentSplit,
    StreamedSplit,
    shuffle_seed,
    validation_members,
)
from lotcal_tf.errors import LotcalError, UsageError

SEED = (11, 12)


def make_split(kind, count, buffer=1000):
    """Examples 0 … count − 1: inputs (n, −n), label n."""
    numbers = np.arange(count, dtype=np.float32)
    inputs, labels = np.stack([numbers, -numbers], 1), np.arange(count, dtype=np.int32)
    if kind == "resident":
        return ResidentSplit.of(inputs, labels)
    pairs = tf.data.Dataset.from_tensor_slices((inputs, labels))
    return StreamedSplit(pairs, labels, buffer)


def blocks_of(split, batch_size=4, most=2, seed=SEED, **share):
    """The labels of each block, after a look at whether inputs still belong to them."""
    blocks = []
    for inputs, labels in split.shuffled(batch_size, most, seed, **share):
        np.testing.assert_array_equal(inputs, np.stack([labels, -labels], 1))
        blocks.append(labels.numpy().tolist())
    return blocks


def order_of(split, most=2, seed=SEED):
    return [number for block in blocks_of(split, most=most, seed=seed) for number in block]


both_kinds = pytest.mark.parametrize("kind", ["resident", "streamed"])


@both_kinds
def test_count_and_shape(kind):
    split = make_split(kind, 7)
    assert (split.count, split.shape) == (7, (2,))


@both_kinds
@pytest.mark.parametrize("buffer", [8, 1000])
def test_other_labels_go_to_the_examples_by_their_number(kind, buffer):
    split = make_split(kind, 23, buffer)
    other = split.relabelled(np.arange(100, 123, dtype=np.int32))
    inputs, labels = (np.concatenate(parts) for parts in zip(*other.in_order(4), strict=True))
    np.testing.assert_array_equal(labels, inputs[:, 0] + 100)
    assert (other.count, other.shape) == (23, (2,))
    # The order of training is the same, and what is trained on is relabelled too.
    blocks = list(other.shuffled(4, 2, SEED))
    assert [(labels - 100).numpy().tolist() for _, labels in blocks] == blocks_of(split)
    for inputs, labels in blocks:
        np.testing.assert_array_equal(labels, inputs[:, 0] + 100)
    assert {labels.dtype for _, labels in blocks} == {tf.int32}
    # The split it came from is as it was.
    assert next(split.in_order(23))[1].numpy().tolist() == list(range(23))


@both_kinds
@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (9, [4, 4, 1]), (3, [3])])
def test_in_order_gives_everything_once(kind, count, sizes):
    batches = list(make_split(kind, count).in_order(4))
    assert [len(labels) for _, labels in batches] == sizes
    inputs, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(labels, np.arange(count))
    np.testing.assert_array_equal(inputs, np.stack([labels, -labels], 1))


def test_resident_inputs_keep_their_type():
    split = ResidentSplit.of(np.zeros((2, 3), np.uint8), np.zeros(2, np.int64))
    assert (split.inputs.dtype, split.labels.dtype) == (tf.uint8, tf.int32)


@both_kinds
def test_an_epoch_gives_each_example_once_in_a_new_order(kind):
    order = order_of(make_split(kind, 24))
    assert sorted(order) == list(range(24))
    assert order != sorted(order)


@both_kinds
@pytest.mark.parametrize("count", [8, 17, 18, 23, 4])
@pytest.mark.parametrize("most", [1, 2, 128])
def test_blocks_hold_whole_batches(kind, count, most):
    split = make_split(kind, count)
    blocks = blocks_of(split, batch_size=4, most=most)
    steps = split.block_steps(4, most)
    assert steps == (count // 4 if kind == "resident" else min(most, count // 4))
    # Only the last holds fewer batches; in all no batch is lost to the blocks' edges.
    assert all(len(block) == 4 * steps for block in blocks[:-1])
    assert all(len(block) % 4 == 0 < len(block) for block in blocks)
    together = [number for block in blocks for number in block]
    assert len(set(together)) == len(together) == count - count % 4


def test_a_buffer_that_holds_everything_gives_the_resident_order():
    for seed in (SEED, (13, 14)):
        expected = order_of(make_split("resident", 23), seed=seed)
        for buffer in (23, 1000):
            assert order_of(make_split("streamed", 23, buffer), seed=seed) == expected
    assert order_of(make_split("streamed", 23, 22)) != order_of(make_split("resident", 23))


@both_kinds
@pytest.mark.parametrize("buffer", [8, 1000])
@pytest.mark.parametrize(
    ("workers", "edges"), [(2, [0, 3, 6]), (3, [0, 2, 4, 6]), (4, [0, 1, 3, 4, 6])]
)
def test_workers_share_every_batch_of_one_order(kind, buffer, workers, edges):
    split = make_split(kind, 33, buffer)  # five batches of six, three examples over
    whole = np.reshape([n for block in blocks_of(split, 6, 2) for n in block], [5, 6])
    for worker in range(workers):
        blocks = blocks_of(split, 6, 2, worker=worker, workers=workers)
        rows = slice(edges[worker], edges[worker + 1])
        mine = [n for block in blocks for n in block]
        assert mine == whole[:, rows].ravel().tolist()
        # A block holds the same steps at every worker.
        steps = [len(block) // (rows.stop - rows.start) for block in blocks]
        assert steps == ([5] if kind == "resident" else [2, 2, 1])


@pytest.mark.parametrize(("kind", "buffer"), [("resident", 0), ("streamed", 9), ("streamed", 23)])
def test_the_order_depends_on_the_seed_alone(kind, buffer):
    split = make_split(kind, 23, buffer)
    orders = []
    for elsewhere in (1, 2):
        # A user's own script, or a model being drawn, seeds these; so does Keras.
        random.seed(elsewhere)
        np.random.seed(elsewhere)
        tf.random.set_seed(elsewhere)
        orders += [order_of(split), order_of(make_split(kind, 23, buffer))]
    assert all(order == orders[0] for order in orders)
    # Both numbers count, and which is which.
    others = [order_of(split, seed=seed) for seed in ((11, 13), (10, 12), (12, 11), (13, 14))]
    assert len({tuple(order) for order in [orders[0], *others]}) == 5


def test_a_stream_is_shuffled_over_its_buffer():
    assert order_of(make_split("streamed", 40, buffer=1)) == list(range(40))
    order = order_of(make_split("streamed", 40, buffer=8))
    assert order != sorted(order)
    # The buffer holds 8: an example is given at most 7 places before its own.
    assert all(number <= place + 7 for place, number in enumerate(order))
    whole = order_of(make_split("streamed", 40, buffer=39))
    assert any(number > place + 7 for place, number in enumerate(whole))


@pytest.mark.parametrize("buffer", [8, 1000])
def test_the_order_does_not_depend_on_the_blocks(buffer):
    split = make_split("streamed", 24, buffer)
    assert order_of(split, most=1) == order_of(split, most=128)


def test_splits_by_name():
    a, b, c = (make_split("resident", count) for count in (1, 2, 3))
    assert Dataset(10, a, b, c).named_splits() == {"train": a, "val": b, "test": c}
    assert Dataset(10, a, b, None).named_splits() == {"train": a, "val": b}


@both_kinds
def test_chosen_examples(kind):
    split = make_split(kind, 23).chosen(np.arange(23) % 3 == 1)
    inputs, labels = (np.concatenate(parts) for parts in zip(*split.in_order(4), strict=True))
    np.testing.assert_array_equal(inputs[:, 0], np.arange(1, 23, 3))
    np.testing.assert_array_equal(labels, inputs[:, 0])
    assert split.count == 8


@both_kinds
def test_levels_are_measured_on_a_sample_of_many_training_examples(kind, monkeypatch):
    monkeypatch.setattr(splits, "TRAIN_SAMPLE", 20)
    train, validation = make_split(kind, 23), make_split("resident", 30)
    measured = Dataset(10, train, validation, None).measured_splits
    assert measured["val"] is validation
    ((_, labels),) = measured["train"].in_order(100)
    assert measured["train"].count == len(set(labels.numpy())) == 20
    assert set(labels.numpy()) < set(range(23))
    monkeypatch.setattr(splits, "TRAIN_SAMPLE", 23)
    assert Dataset(10, train, validation, None).measured_splits["train"] is train


def test_the_sample_comes_from_everywhere():
    """Of 200,000 examples in the order of 10 classes, each class has about 1,000: sd 30 or less."""
    zeros, labels = np.zeros((200_000, 1), np.uint8), np.repeat(np.arange(10), 20_000)
    train = ResidentSplit.of(zeros, labels.astype(np.int32))
    sample = Dataset(10, train, train, None).measured_splits["train"]
    counts = np.bincount(sample.labels.numpy())
    assert counts.sum() == 10_000
    assert (abs(counts - 1000) < 150).all()


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(100, 37, 37), (109, None, 10), (5, None, 1), (2, 1, 1)]
)
def test_the_cut_has_the_exact_size(count, size, expected):
    members = validation_members(count, size, 0)
    assert members.shape == (count,)
    assert members.dtype == bool
    assert members.sum() == expected


def test_the_cut_is_drawn_by_seed():
    cuts = [tuple(validation_members(60, 20, seed)) for seed in (0, 1, 2)]
    assert len(set(cuts)) == 3
    assert tuple(validation_members(60, 20, 0)) == cuts[0]
    # Drawn from everywhere: of 60 cuts of one third, each place is in some and not in others.
    hits = sum(validation_members(60, 20, seed).astype(int) for seed in range(60))
    assert 0 < hits.min() <= hits.max() < 60


@pytest.mark.parametrize(("count", "size"), [(10, 10), (10, 11), (10, 0), (10, -1), (1, None)])
def test_a_cut_that_leaves_nothing_is_refused(count, size):
    with pytest.raises(UsageError, match=rf"there are {count} training examples: "):
        validation_members(count, size, 0)


def test_every_epoch_has_a_seed_of_its_own():
    seeds = {shuffle_seed(s, level, e) for s in range(3) for level in range(3) for e in range(12)}
    assert len(seeds) == 3 * 3 * 12
    assert shuffle_seed(0, 1, 11) != shuffle_seed(0, 11, 1)


def test_a_part_is_one_split_with_what_measuring_needs():
    train, validation = make_split("resident", 7), make_split("resident", 3)
    dataset = Dataset(9, train, validation, None, 16.0)
    part = dataset.part("val")
    assert (part.classes, part.split, part.input_range) == (9, validation, 16.0)
    with pytest.raises(UsageError, match="the data has no test split; it has train, val"):
        dataset.part("test")


@pytest.mark.parametrize("name", ["two\nlines", " ", ""])
def test_class_names_are_one_line_each(name):
    split = make_split("resident", 7)
    with pytest.raises(UsageError, match="must be one line of text: change it in the data"):
        Dataset(2, split, split, None, class_names=("a", name))


@pytest.mark.parametrize("buffer", [3, 1000])
@pytest.mark.parametrize("later", [5, 11])
def test_a_stream_that_gives_another_number_of_examples_later_is_reported(buffer, later):
    """Fewer used to be trained on with zeros in the place of the others."""
    counts = iter([8, later, later])
    signature = (tf.TensorSpec([1], tf.float32), tf.TensorSpec([], tf.int32))

    def examples():
        yield from (([n], n) for n in range(next(counts)))

    pairs = tf.data.Dataset.from_generator(examples, output_signature=signature)
    split = StreamedSplit(pairs, np.arange(8, dtype=np.int32), buffer)
    assert [len(y) for _, y in split.in_order(5)] == [5, 3]
    how = "more" if later > 8 else "fewer"
    with pytest.raises(LotcalError, match=f"gave {how} examples when it was read again than the 8"):
        list(split.in_order(5))
    if later < 8 or buffer == 1000:  # a buffer that holds a part is not read to the end
        with pytest.raises(LotcalError, match="examples when it was read again"):
            list(split.shuffled(4, 2, SEED))


@pytest.mark.parametrize("drop", [True, False])
def test_elements_that_are_decoded_come_in_the_order_of_memory_whatever_the_buffer(drop):
    read = []

    def seen(number):
        read.append(int(number))
        return np.float32([number, -number])

    def decode(data):
        def example(number, label):
            return tf.ensure_shape(tf.numpy_function(seen, [number], tf.float32), [2]), label

        return data.map(example)

    numbers = np.arange(23, dtype=np.int32)
    pairs = tf.data.Dataset.from_tensor_slices((numbers, numbers))
    split, memory = StreamedSplit(pairs, numbers, 1, decode), make_split("resident", 23)
    orders = [
        [n for block in blocks_of(one, drop_remainder=drop) for n in block]
        for one in (split, memory)
    ]
    assert orders[0] == orders[1] and len(orders[0]) == (20 if drop else 23)
    assert not split.is_sorted
    # Of a part, nothing else is decoded, also after its labels have changed.
    part = split.relabelled(numbers + 100).chosen(numbers % 2 == 1)
    read.clear()
    ((inputs, labels),) = part.in_order(50)
    np.testing.assert_array_equal(labels, inputs[:, 0] + 100)
    assert read == inputs[:, 0].numpy().tolist() == list(range(1, 23, 2))
    assert sorted(n for block in part.shuffled(11, 1, SEED) for n in block[1].numpy()) == [
        n + 100 for n in range(1, 23, 2)
    ]


def test_blocks_of_large_examples_hold_fewer_of_them(monkeypatch):
    monkeypatch.setattr(splits, "_AT_ONCE", 100)  # bytes; an example has 8
    split = make_split("streamed", 64, buffer=3)
    assert (split.at_once(5), split.at_once(1000)) == (5, 12)
    assert [len(block) for block in blocks_of(split, most=100)] == [12] * 5 + [4]
    assert split.block_steps(50, 100) == 1  # a step needs its whole batch
    assert make_split("resident", 64).at_once(1000) == 1000


@pytest.mark.parametrize(
    ("damage", "reason"), [("broken", "corrupted record"), ("gone", r"stream\.tfrecord")]
)
@pytest.mark.parametrize("buffer", [3, 1000])
def test_a_stream_that_is_damaged_after_it_was_read_is_reported_in_one_line(
    tmp_path, damage, reason, buffer
):
    path = tmp_path / "stream.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as file:
        for number in range(8):
            file.write(bytes([number]))
    records = tf.data.TFRecordDataset(str(path))
    pairs = records.map(
        lambda r: (tf.io.decode_raw(r, tf.uint8)[:1], tf.io.decode_raw(r, tf.uint8)[0])
    )
    pairs = pairs.map(lambda x, y: (tf.ensure_shape(x, [1]), tf.cast(y, tf.int32)))
    split = StreamedSplit(pairs, np.arange(8, dtype=np.int32), buffer)
    assert sorted(n for _, y in split.shuffled(4, 1, SEED) for n in y.numpy()) == list(range(8))
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-5] ^= 1  # the last record's only byte, before its checksum
        path.write_bytes(content)
    for reading in (split.shuffled(4, 1, SEED), split.in_order(3)):
        message = f"^the data cannot be read any more, .*: .*{reason}.*; repair its files"
        with pytest.raises(LotcalError, match=message) as error:
            list(reading)
        assert "\n" not in str(error.value)

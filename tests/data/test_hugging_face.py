"""Hugging Face data sets: columns by their usual names or by arguments, saved ones as a source."""

import numpy as np
import pytest
from PIL import Image

import lotcal_tf
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import given, hugging_face
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.task import NamedTask

datasets = pytest.importorskip("datasets", reason="needs lotcal-tf[hf]")

COUNT = 20
LABELS = np.arange(COUNT) % 3
NAMES = ["cat", "dog", "eel"]


def pixels(channels=3, count=COUNT):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)


def pictures(channels=3, names=("image", "label"), **more):
    images = [Image.fromarray(a[..., 0] if channels == 1 else a) for a in pixels(channels)]
    features = {names[0]: datasets.Image(), names[1]: datasets.ClassLabel(names=NAMES)}
    features |= {name: datasets.Value("int64") for name in more}
    columns = {names[0]: images, names[1]: LABELS.tolist()} | more
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_bytes_with_channels(channels):
    inputs, labels = lotcal_tf.from_hf(pictures(channels, id=list(range(COUNT))))
    np.testing.assert_array_equal(inputs, pixels(channels))
    assert inputs.dtype == np.uint8
    np.testing.assert_array_equal(labels, LABELS)


def test_columns_are_named_by_arguments():
    data = pictures(names=("photo", "animal"), label=(2 - LABELS).tolist())
    np.testing.assert_array_equal(lotcal_tf.from_hf(data, "photo")[1], 2 - LABELS)
    inputs, labels = lotcal_tf.from_hf(data, inputs="photo", labels="animal")
    np.testing.assert_array_equal(inputs, pixels())
    np.testing.assert_array_equal(labels, LABELS)
    with pytest.raises(UsageError, match="no column 'kind'; its columns are photo, animal, label"):
        lotcal_tf.from_hf(data, inputs="photo", labels="kind")
    with pytest.raises(UsageError, match="no column for inputs, of image, img, .*from_hf"):
        lotcal_tf.from_hf(data)


def test_tokens_of_one_length_are_integers():
    data = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3, 4]], "label": [0, 1]})
    inputs, _ = lotcal_tf.from_hf(data)
    assert inputs.tolist() == [[1, 2], [3, 4]]
    assert inputs.dtype.kind == "i"


def test_class_names_come_with_the_data_set():
    found = given.dataset(pictures(), None, None, Experiment(), classes=3)
    assert found.class_names == tuple(NAMES)
    assert given.dataset((pixels(), LABELS), None, None, Experiment(), classes=3).class_names == ()


def sizes():
    images = [Image.new("RGB", size) for size in ((4, 5), (6, 5))]
    columns = {"image": images, "label": [0, 1]}
    return datasets.Dataset.from_dict(columns, features=pictures().features)


REFUSED = {
    "splits": (
        lambda: datasets.DatasetDict(train=pictures()),
        ["DatasetDict", "train", "data['train']"],
    ),
    "stream": (lambda: pictures().to_iterable_dataset(), ["IterableDataset", "streaming"]),
    "empty": (lambda: pictures().select([]), ["empty"]),
    "strings": (
        lambda: pictures().remove_columns("label").add_column("label", ["a", "b"] * 10),
        ["strings", "'label'", "class_encode_column"],
    ),
    "sizes": (sizes, ["different shapes", "'image'", "resize"]),
    "transform": (lambda: pictures().with_transform(lambda e: e), ["set_transform", "map"]),
    "labels": (
        lambda: pictures().rename_column("label", "y"),
        ["no column for labels", "image, y"],
    ),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(make, words):
    with pytest.raises(UsageError) as error:
        given.dataset(make(), None, None, Experiment(), classes=3)
    message = str(error.value)
    assert "\n" not in message and message.startswith("train ")
    assert [word for word in words if word not in message] == [], message


# Saved data sets


def experiment(path, **fields):
    given = {"source": "hf", "data_dir": str(path), "validation_size": 4}
    return Experiment(**given | fields)


def load(path, **fields):
    return hugging_face.load(experiment(path, **fields))


def test_a_saved_data_set_is_divided_by_fixed_examples(tmp_path):
    pictures().save_to_disk(tmp_path / "hf")
    dataset = load(tmp_path / "hf")
    splits = dataset.named_splits()
    assert {name: split.count for name, split in splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    assert (dataset.class_names, dataset.input_range) == (tuple(NAMES), 255.0)
    known = {image.tobytes(): label for image, label in zip(pixels(), LABELS, strict=True)}
    found = [pair for s in splits.values() for pair in zip(*s.data(), strict=True)]
    assert {image.tobytes(): label for image, label in found} == known
    test = load(tmp_path / "hf", seed=1).test.data()[0]
    np.testing.assert_array_equal(test, dataset.test.data()[0])
    assert load(tmp_path / "hf", test_size=9).test.count == 9


def test_saved_splits_are_the_splits(tmp_path):
    parts = {"train": range(10), "validation": range(10, 14), "test": range(14, COUNT)}
    whole = pictures()
    datasets.DatasetDict({n: whole.select(p) for n, p in parts.items()}).save_to_disk(tmp_path)
    with pytest.raises(FieldError, match="^test_size=2: the data has its own test split"):
        load(tmp_path, validation_size=None, test_size=2)
    dataset = load(tmp_path, validation_size=None)
    for split, part in zip(
        (dataset.train, dataset.validation, dataset.test), parts.values(), strict=True
    ):
        np.testing.assert_array_equal(split.data()[0], pixels()[list(part)])
        np.testing.assert_array_equal(split.data()[1], LABELS[list(part)])


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_validation_split_may_have_the_names_of_folders(tmp_path, name):
    splits = {"train": pictures(), "test": pictures(), name: pictures().select(range(6))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path)
    dataset = load(tmp_path, validation_size=None)
    assert (dataset.train.count, dataset.validation.count, dataset.test.count) == (COUNT, 6, COUNT)


def test_two_validation_splits_are_refused(tmp_path):
    splits = {"train": pictures(), "val": pictures(), "valid": pictures()}
    datasets.DatasetDict(splits).save_to_disk(tmp_path)
    with pytest.raises(FieldError, match="has the splits val and valid: keep one"):
        load(tmp_path)


@pytest.mark.parametrize("labels", [[1, 2], [0, 3]])
def test_numbers_of_classes_without_gaps_are_needed(tmp_path, labels):
    columns = {"features": np.eye(COUNT).tolist(), "label": labels * (COUNT // 2)}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path)
    with pytest.raises(UsageError, match=f"2 classes.* is {labels[1]}: .*class_encode_column"):
        load(tmp_path)


@pytest.mark.parametrize("mode", ["P", "1", "CMYK"])
def test_images_whose_arrays_are_not_their_colours_are_refused(mode):
    images = [Image.fromarray(one) for one in pixels()]
    images[7] = images[7].convert(mode)
    data = datasets.Dataset.from_dict(
        {"image": images, "label": LABELS.tolist()}, features=pictures().features
    )
    with pytest.raises(UsageError, match=f"image of mode {mode} in row 7 .*'image'.*cast_column"):
        lotcal_tf.from_hf(data)
    inputs, _ = lotcal_tf.from_hf(data.cast_column("image", datasets.Image(mode="RGB")))
    assert inputs.shape == (COUNT, 6, 5, 3)


def test_another_label_column_is_named_by_its_field(tmp_path):
    columns = {"features": np.eye(COUNT).tolist(), "group": LABELS.tolist(), "label": [0] * COUNT}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "hf")
    dataset = load(tmp_path / "hf", label_column="group")
    assert (dataset.class_names, dataset.input_range) == (("0", "1", "2"), None)
    with pytest.raises(UsageError, match="class_encode_column"):
        load(tmp_path / "hf")


def test_a_directory_without_a_saved_data_set_is_refused(tmp_path):
    with pytest.raises(FieldError, match="^data_dir=.*not a data set that save_to_disk") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
    datasets.DatasetDict(test=pictures()).save_to_disk(tmp_path / "hf")
    with pytest.raises(FieldError, match="^data_dir=.*has the splits test: a split train"):
        load(tmp_path / "hf")


def test_the_run_id_depends_on_the_content_and_not_on_the_path(tmp_path):
    def run_id(path):
        task = NamedTask(experiment(path))
        return task.experiment.run_id(**task.content)

    pictures().save_to_disk(tmp_path / "a")
    pictures().save_to_disk(tmp_path / "b")
    pictures().select(range(15)).save_to_disk(tmp_path / "c")
    # As `map` of the loaded data set writes it.
    (tmp_path / "b" / "cache-1c80317fa3b1799d.arrow").write_bytes(b"anything")
    assert run_id(tmp_path / "a") == run_id(tmp_path / "b") != run_id(tmp_path / "c")

"""TFDS sets by name, on small sets written here as TFDS itself writes them; no network."""

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.recipes import resolve
from lotcal_tf.data import tfds as tfds_source
from lotcal_tf.data.splits import ResidentSplit, StreamedSplit
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run import run_experiment

SHAPE = (4, 4, 3)  # as SVHN's, smaller
IMAGE = tfds.features.Image(shape=SHAPE)
LABEL = tfds.features.ClassLabel(num_classes=4)


def images(count, seed, shape=SHAPE, classes=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape)).astype(np.uint8), np.arange(count) % classes


def builder_class(
    name="tiny_svhn",
    version="1.0.0",
    seed=0,
    splits=("train", "test"),
    label=LABEL,
    keys=("image", "label"),
    image=IMAGE,
):
    """A set of 30 training and 10 test images; the seed tells its content."""
    classes = getattr(label, "num_classes", None) or 4

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self):
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys)

        def _split_generators(self, dl_manager):
            sizes = {"train": (30, seed), "test": (10, seed + 100)}
            return {split: self._generate_examples(*sizes[split]) for split in splits}

        def _generate_examples(self, count, seed):
            shape = SHAPE if None in image.shape else image.shape
            pairs = zip(*images(count, seed, shape, classes), strict=True)
            for number, (pixels, label) in enumerate(pairs):
                yield number, {"image": pixels.astype(image.np_dtype), "label": label}

    Builder.name = name
    Builder.__module__ = name  # of no package: TFDS looks for no checksums beside its code
    return Builder


def write(data_dir, **settings):
    builder = builder_class(**settings)(data_dir=data_dir, file_format="tfrecord")
    builder.download_and_prepare()
    return builder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    write(directory)
    return directory


def experiment(data_dir, **fields):
    given = None if data_dir is None else str(data_dir)
    fields = {"source": "tiny_svhn", "validation_size": 6} | fields
    return Experiment(dataset="own", data_dir=given, **fields)


def load(data_dir, **fields):
    return tfds_source.load(experiment(data_dir, **fields))


def members(*pairs):
    return sorted(
        (pixels.tobytes(), int(label))
        for inputs, labels in pairs
        for pixels, label in zip(np.asarray(inputs), np.asarray(labels), strict=True)
    )


def contents(split):
    return members(*split.in_order(7))


@pytest.mark.parametrize("limit", [100, 0])
def test_a_set_is_read_whole(data_dir, limit):
    dataset = load(data_dir, memory_limit_mb=limit)
    kind = ResidentSplit if limit else StreamedSplit
    assert all(type(split) is kind for split in dataset.named_splits().values())
    assert (dataset.classes, dataset.input_range, dataset.train.shape) == (4, 255.0, SHAPE)
    assert next(dataset.train.in_order(1))[0].dtype == tf.uint8
    counts = {name: split.count for name, split in dataset.named_splits().items()}
    assert counts == {"train": 24, "val": 6, "test": 10}
    together = contents(dataset.train) + contents(dataset.validation)
    assert sorted(together) == members(images(30, 0))
    assert contents(dataset.test) == members(images(10, 100))


def test_a_stream_has_the_members_that_memory_has(data_dir):
    resident, streamed = load(data_dir), load(data_dir, memory_limit_mb=0)
    assert contents(streamed.validation) == contents(resident.validation)
    assert contents(load(data_dir, seed=1).validation) != contents(resident.validation)


def test_the_latest_version_is_read_unless_one_is_named(tmp_path):
    for seed, version in enumerate(("3.0.9", "3.0.10", "2.0.11")):
        write(tmp_path, version=version, seed=seed)
    assert contents(load(tmp_path).test) == members(images(10, 101))
    assert contents(load(tmp_path, source="tiny_svhn:3.0.9").test) == members(images(10, 100))


def test_a_configuration_must_be_named_where_there_are_several(data_dir, tmp_path):
    for config in ("blurred", "sharp"):
        shutil.copytree(data_dir / "tiny_svhn", tmp_path / "tiny_svhn" / config)
    with pytest.raises(UsageError, match=r"blurred, sharp .*--source=tiny_svhn/blurred"):
        load(tmp_path)
    assert load(tmp_path, source="tiny_svhn/sharp").train.count == 24


def test_without_a_directory_tfds_provides_the_set(monkeypatch, tmp_path):
    monkeypatch.setattr(
        tfds, "builder", lambda name: builder_class(name)(data_dir=tmp_path, file_format="tfrecord")
    )
    assert contents(load(None).test) == members(images(10, 100))


def test_tfds_finds_the_checksums_it_downloads_by():
    # TFDS 4.9.10 imports importlib_resources for this and does not have it installed
    # (tensorflow/datasets#11212): without it every download ends in a ModuleNotFoundError.
    assert tfds.builder_cls("mnist").url_infos


def refuse(*names):
    raise OSError("no route to host\nand more text")


@pytest.mark.parametrize(
    ("error", "said"), [(refuse, "no route to host"), (lambda _: 1 // 0, "division")]
)
def test_what_tfds_cannot_provide_is_reported_in_one_line(monkeypatch, error, said):
    monkeypatch.setattr(tfds, "builder", error)
    with pytest.raises(UsageError, match=rf"^TFDS cannot provide tiny_svhn: .*{said}") as caught:
        load(None)
    assert "\n" not in str(caught.value)
    assert "--data_dir=DIR" in str(caught.value)


def test_a_directory_without_the_set_is_shown_with_the_remedy(data_dir, tmp_path):
    with pytest.raises(UsageError, match=r"no TFDS set mnist in it, there is .*tiny_svhn") as error:
        load(data_dir, source="mnist")
    assert f"tfds.load('mnist', data_dir='{data_dir}')" in str(error.value)
    with pytest.raises(UsageError, match="there is nothing; to download it: "):
        load(tmp_path)
    (tmp_path / "tiny_svhn" / "1.0.0").mkdir(parents=True)  # a download that was interrupted
    with pytest.raises(UsageError, match="no TFDS set tiny_svhn in it, there is tiny_svhn; to "):
        load(tmp_path)


@pytest.mark.parametrize("deeper", ["tiny_svhn", "tiny_svhn/1.0.0"])
@pytest.mark.parametrize("source", ["tiny_svhn", "tiny_svhn:1.0.0"])
def test_a_directory_inside_the_set_is_corrected(data_dir, deeper, source, monkeypatch):
    words = f"is inside the TFDS data set {source}; give the .*: --data_dir={data_dir}$"
    with pytest.raises(FieldError, match=words) as error:
        load(data_dir / deeper, source=source)
    assert str(error.value).startswith(f"data_dir={data_dir / deeper}: ")
    monkeypatch.chdir(data_dir / deeper)
    with pytest.raises(FieldError, match=words):
        load(".", source=source)


def test_a_directory_inside_a_configuration_is_corrected(data_dir, tmp_path):
    shutil.copytree(data_dir / "tiny_svhn", tmp_path / "tiny_svhn" / "sharp")
    with pytest.raises(FieldError, match=f"--data_dir={tmp_path}$"):
        load(tmp_path / "tiny_svhn" / "sharp" / "1.0.0", source="tiny_svhn/sharp")


def test_a_directory_inside_another_set_is_not(data_dir):
    with pytest.raises(FieldError, match="no TFDS set mnist in it, there is 1.0.0; to download"):
        load(data_dir / "tiny_svhn", source="mnist")


def test_a_missing_directory_is_reported_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(UsageError, match="no such directory; to download it: python -c") as e:
            load(path)
        assert "\n" not in str(e.value)


def test_a_damaged_set_is_refused_in_one_line(tmp_path):
    write(tmp_path)
    (tmp_path / "tiny_svhn" / "1.0.0" / "dataset_info.json").write_text("{")
    with pytest.raises(UsageError, match=r"tiny_svhn/1\.0\.0 does not hold a readable") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("limit", [100, 0])
def test_a_test_split_needs_no_train_split(data_dir, tmp_path, limit):
    write(tmp_path, splits=("test",))
    whole = load(data_dir)
    for place in (data_dir, tmp_path):
        part = tfds_source.load_test(experiment(place, memory_limit_mb=limit))
        assert isinstance(part.split, ResidentSplit if limit else StreamedSplit)
        assert (part.classes, part.input_range, part.split.shape) == (4, 255.0, SHAPE)
        assert contents(part.split) == contents(whole.test) == members(images(10, 100))
    write(tmp_path / "other", splits=("train",))
    with pytest.raises(
        UsageError, match=r"has splits train .*: splits test and keys \(input, label\) are needed"
    ):
        tfds_source.load_test(experiment(tmp_path / "other"))


UNFIT = {
    "no test": ({"splits": ("train",)}, "has splits train .*: splits train, test and keys"),
    "no pairs": ({"keys": None}, "supervised keys None: splits train, test and keys"),
    "no classes": ({"label": tfds.features.Scalar(np.int64)}, "has labels .*: a ClassLabel with"),
    "no one shape": (
        {"image": tfds.features.Image()},
        r"\(None, None, 3\) per example: one fully known shape",
    ),
}


@pytest.mark.parametrize(("settings", "message"), UNFIT.values(), ids=UNFIT)
def test_a_set_that_is_no_classification_of_arrays_is_refused(tmp_path, settings, message):
    write(tmp_path, **settings)
    with pytest.raises(UsageError, match=message) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_inputs_that_are_no_integers_are_not_scaled(tmp_path):
    write(tmp_path, image=tfds.features.Tensor(shape=SHAPE, dtype=np.float32))
    assert load(tmp_path).input_range == 1.0


# Damage within the files


def records(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def write_records(path, found):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in found:
            writer.write(record)


def unmake(record, at, put):
    """The record with other bytes, so many after those that are named."""
    start = record.index(at[0]) + at[1]
    return record[:start] + put + record[start + len(put) :]


DAMAGE = {
    "no image": (lambda record: unmake(record, (b"\x89PNG", 0), b"none"), "Unknown image"),
    "broken image": (lambda record: unmake(record, (b"IDAT", 6), b"\xff\0" * 3), "Invalid PNG"),
    "no example": (lambda record: b"nothing", "Could not parse"),
    "no text": (lambda record: b"\x98" * 40, "is broken"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_example_is_reported_with_its_file(tmp_path, damage, reason, split):
    write(tmp_path)
    (path,) = tmp_path.rglob(f"*-{split}.tfrecord*")
    found = records(path)
    found[7] = damage(found[7])
    write_records(path, found)
    with pytest.raises(UsageError) as error:
        load(tmp_path)
    line = f"the TFDS data set tiny_svhn is damaged: {split} cannot be read from example 7 on: "
    assert re.fullmatch(
        f"{line}.*{reason}.*; file: {path}; delete {path.parent} and let TFDS .*", str(error.value)
    )


def test_damage_in_a_later_file_is_reported_with_that_file(tmp_path):
    write(tmp_path)
    (path,) = tmp_path.rglob("*-train.tfrecord*")
    found = records(path)
    path.unlink()
    names = [path.with_name(f"tiny_svhn-train.tfrecord-0000{n}-of-00002") for n in (0, 1)]
    write_records(names[0], found[:12])
    write_records(names[1], [*found[12:20], b"nothing", *found[21:]])
    info = path.with_name("dataset_info.json")
    text = info.read_text()
    assert '"30"' in text
    info.write_text(text.replace('"30"', '"12", "18"'))
    with pytest.raises(UsageError, match=rf"from example 20 on: .* file: {names[1]};"):
        load(tmp_path)


def test_a_file_that_was_cut_short_is_reported(tmp_path):
    write(tmp_path)
    (path,) = tmp_path.rglob("*-train.tfrecord*")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UsageError, match="train cannot be read from example 29 on: ") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


# A whole run


@pytest.fixture
def svhn(tmp_path):
    """A recipe for a set of svhn_cropped's shape."""
    image, label = tfds.features.Image(shape=(32, 32, 3)), tfds.features.ClassLabel(num_classes=10)
    write(tmp_path / "data", name="svhn_cropped", image=image, label=label)
    return {
        "source": "svhn_cropped",
        "validation_size": 6,
        "data_dir": str(tmp_path / "data"),
        "out": str(tmp_path / "run"),
        "model": "lenet_4",
        "levels": 1,
        "epochs": 1,
        "batch_size": 6,
    }


@pytest.mark.full
def test_a_set_of_svhns_shape_is_trained_on(svhn):
    run = run_experiment(resolve(svhn | {"augment": "crop_flip"}), progress=False)
    dataset = run.load()
    assert (dataset.train.shape, dataset.classes, dataset.input_range) == ((32, 32, 3), 10, 255.0)
    assert contents(dataset.test) == members(images(10, 100, (32, 32, 3), 10))
    assert [record["level"] for record in run.records] == [0, 1]
    assert run.ticket(1).model().input_shape == (None, 32, 32, 3)


def test_a_damaged_image_ends_the_run_before_anything_is_written(svhn, tmp_path):
    (path,) = tmp_path.rglob("*-train.tfrecord*")
    found = records(path)
    found[3] = unmake(found[3], (b"IDAT", 6), b"\xff\0" * 3)
    write_records(path, found)
    with pytest.raises(
        UsageError, match="^the TFDS data set svhn_cropped is damaged: train cannot be"
    ):
        run_experiment(resolve(svhn), progress=False)
    assert not (tmp_path / "run").exists()

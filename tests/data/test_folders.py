"""Images in folders: which files make which split, their pixels, and what is refused before training."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import folders, sources
from lotcal_tf.data.splits import ResidentSplit, StreamedSplit
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.task import NamedTask

SIZE = (6, 5)


def pixels(number, size=SIZE, channels=3):
    """An image whose first pixel is its number."""
    image = np.random.default_rng(number).integers(0, 256, (*size, channels), dtype=np.uint8)
    image[0, 0] = number
    return image


def write(path, number, size=SIZE, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels(number, size, channels)
    Image.fromarray(image[..., 0] if channels == 1 else image).save(path)


def write_classes(root, count=10, first=0, names=("cat", "dog"), **options):
    """Images first, first + 1, … by turns of the classes; their names do not sort by number."""
    for number in range(first, first + count):
        name = names[number % len(names)]
        write(root / name / f"{(number * 7) % 100:02d}.png", number, **options)


@pytest.fixture
def images(tmp_path):
    write_classes(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def divided(tmp_path):
    root = tmp_path / "divided"
    for split, count, first in (("train", 10, 0), ("val", 4, 20), ("test", 6, 40)):
        write_classes(root / split, count, first)
    return root


def experiment(path, **fields):
    return Experiment(**{"source": "folder", "data_dir": str(path), "validation_size": 2} | fields)


def load(path, **fields):
    return folders.load(experiment(path, **fields))


def numbers(split, classes=2):
    """The numbers of the images in their order, whose pixels and labels must be right."""
    blocks = list(split.in_order(4))
    x, y = (np.concatenate([block[n].numpy() for block in blocks]) for n in (0, 1))
    assert x.dtype == np.uint8
    found = x[:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(x, [pixels(number) for number in found])
    np.testing.assert_array_equal(y, found % classes)
    return found.tolist()


@pytest.mark.parametrize("limit", [100, 0])
@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_folders_of_splits_are_the_splits(divided, limit, name):
    (divided / "val").rename(divided / name)
    dataset = load(divided, memory_limit_mb=limit, validation_size=None)
    kind = StreamedSplit if limit == 0 else ResidentSplit
    assert isinstance(dataset.train, kind)
    # In each class by name, i.e. by 7 · number mod 100.
    order = sorted(range(10), key=lambda n: (n % 2, n * 7 % 100))
    assert numbers(dataset.train) == order
    assert sorted(numbers(dataset.validation)) == [20, 21, 22, 23]
    assert sorted(numbers(dataset.test)) == list(range(40, 46))
    assert (dataset.classes, dataset.class_names) == (2, ("cat", "dog"))
    assert (dataset.train.shape, dataset.input_range) == ((6, 5, 3), 255.0)
    for size in ("validation_size", "test_size"):
        with pytest.raises(FieldError, match=f"^{size}=1: the data has its own"):
            load(divided, **{"memory_limit_mb": limit, "validation_size": None, size: 1})


def test_a_stream_of_files_has_the_order_of_memory_whatever_the_buffer(images):
    """A buffer that holds a part of the files would hold a part of the classes."""
    orders = []
    for limit in (0, 100):
        split = load(images, memory_limit_mb=limit, shuffle_buffer=1).train
        blocks = split.shuffled(2, 1, (3, 4))
        orders.append([x.numpy().tobytes() for block in blocks for x in block[0]])
    assert orders[0] == orders[1] and len(set(orders[0])) == 6


def test_files_have_the_order_and_pixels_that_keras_gives(divided):
    theirs = keras.utils.image_dataset_from_directory(
        divided / "train", batch_size=None, image_size=SIZE, shuffle=False
    )
    x, y = zip(*theirs.as_numpy_iterator(), strict=True)
    inputs, labels = load(divided, validation_size=None).train.data()
    np.testing.assert_array_equal(inputs, x)
    np.testing.assert_array_equal(labels, y)


def test_without_a_test_folder_a_fixed_part_is_the_test_split(images):
    dataset = load(images)
    parts = [numbers(split) for split in dataset.named_splits().values()]
    assert [len(part) for part in parts] == [6, 2, 2]  # a fifth of 10 is tested
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(10))
    other = load(images, seed=1)
    assert numbers(other.test) == parts[2], "the test split must not depend on the seed"
    assert numbers(other.validation) != parts[1]
    assert load(images, test_size=5).test.count == 5
    assert numbers(load(images, memory_limit_mb=0).test) == parts[2]
    assert numbers(folders.load_test(experiment(images)).split) == parts[2]


@pytest.mark.parametrize("size", [0, 9, 20])
def test_a_test_size_that_leaves_too_little_is_refused(images, size):
    with pytest.raises(FieldError) as error:
        load(images, test_size=size)
    assert error.value.field == "test_size"
    assert size == 0 or "1 … 8" in str(error.value)


def test_the_test_folder_is_read_alone(divided):
    (divided / "train" / "cat" / "00.png").write_bytes(b"broken")
    part = folders.load_test(experiment(divided, image_size="6,5", color_mode="rgb"))
    assert sorted(numbers(part.split)) == list(range(40, 46))
    assert (part.classes, part.class_names, part.input_range) == (2, ("cat", "dog"), 255.0)
    shutil.rmtree(divided / "train")
    assert folders.load_test(experiment(divided)).split.count == 6
    with pytest.raises(FieldError, match="^data_dir=.*no folder train"):
        load(divided)


def test_images_are_resized_once_without_aliasing(tmp_path):
    for number, size in enumerate([(40, 30), (12, 50), (20, 20)] * 2):
        write(tmp_path / "ab"[number % 2] / f"{number}.png", number, size)
    for given, wanted in (("8,6", (8, 6)), (8, (8, 8)), ((5, 7), (5, 7))):
        part = folders.load_test(experiment(tmp_path, image_size=given, test_size=4))
        x, _ = next(part.split.in_order(4))
        assert x.shape == (4, *wanted, 3)
        # Pillow's bilinear filter widens with the factor, too.
        expected = [
            np.asarray(Image.fromarray(pixels(n, size)).resize(wanted[::-1], Image.BILINEAR), int)
            for n, size in enumerate([(40, 30), (12, 50), (20, 20)] * 2)
        ]
        for image in x.numpy().astype(int):
            assert min(np.abs(image - other).max() for other in expected) <= 1


def test_resized_values_are_rounded_and_not_cut_off(tmp_path):
    for number, name in enumerate("abab"):
        row = [10, 11, 11, 12] if number % 2 else [7, 8, 200, 203]
        image = Image.fromarray(np.uint8([row, row]))
        (tmp_path / name).mkdir(exist_ok=True)
        image.save(tmp_path / name / f"{number}.png")
    dataset = load(tmp_path, image_size=(2, 2), test_size=1, validation_size=1)
    found = [x for split in dataset.named_splits().values() for x, _ in [next(split.in_order(2))]]
    values = np.concatenate([x.numpy() for x in found]).astype(int)[..., 0]
    # The bilinear filter is twice as wide: three pixels count, 3 : 3 : 1 from the border.
    wanted = {
        round((3 * 7 + 3 * 8 + 200) / 7): round((8 + 3 * 200 + 3 * 203) / 7),  # 35, 173.86
        round((3 * 10 + 3 * 11 + 11) / 7): round((11 + 3 * 11 + 3 * 12) / 7),  # 10.57, 11.43
    }
    assert wanted == {35: 174, 11: 11}
    assert len(values) == 4
    for image in values:
        np.testing.assert_array_equal(
            image, [list(pair) for pair in wanted.items() if pair[0] == image[0, 0]] * 2
        )


def test_a_size_that_images_have_changes_no_pixel(images):
    assert numbers(load(images, image_size=SIZE).train) == numbers(load(images).train)


def test_different_sizes_need_image_size(images):
    write(images / "cat" / "99.png", 3, (7, 5))
    with pytest.raises(FieldError) as error:
        load(images)
    assert error.value.field == "image_size"
    assert "6x5" in str(error.value) and f"{images / 'cat' / '99.png'} has 7x5" in str(error.value)
    assert load(images, image_size=6).train.shape == (6, 6, 3)
    for value in ((6, 6, 3), 0, "4,-1"):
        with pytest.raises(FieldError, match="^image_size=.*height and a width"):
            load(images, image_size=value)


def test_grey_images_have_one_channel_unless_another_has_three(tmp_path):
    write_classes(tmp_path, channels=1)
    assert load(tmp_path).train.shape == (6, 5, 1)
    assert load(tmp_path, color_mode="rgb").train.shape == (6, 5, 3)
    write(tmp_path / "cat" / "99.png", 3)
    assert load(tmp_path).train.shape == (6, 5, 3)
    assert load(tmp_path, color_mode="grayscale").train.shape == (6, 5, 1)


def bitmaps(root, mode):
    """Three BMP files of each of two classes, in one colour each, saved in a mode of Pillow."""
    for number in range(6):
        path = root / "ab"[number % 2] / f"{number}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 6), (200, 100, 0)).convert(mode).save(path)


def test_grey_bmp_files_have_three_channels(tmp_path):
    bitmaps(tmp_path, "L")
    grey = int(np.asarray(Image.new("RGB", (1, 1), (200, 100, 0)).convert("L")).item())
    for size in ({}, {"image_size": (6, 5), "color_mode": "rgb"}):
        x, _ = load(tmp_path, **size).train.data()
        assert x.shape == (3, 6, 5, 3) and (x == grey).all()
    with pytest.raises(FieldError, match=r"^color_mode=grayscale: .*\.bmp .*choose rgb.*PNG"):
        load(tmp_path, color_mode="grayscale")


@pytest.mark.parametrize("fields", [{}, {"image_size": (6, 5), "color_mode": "rgb"}])
def test_bmp_files_with_a_palette_are_refused(tmp_path, fields):
    bitmaps(tmp_path, "P")
    with pytest.raises(UsageError, match=r"0\.bmp is a BMP file with a palette: save it as PNG"):
        load(tmp_path, **fields)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".bmp", ".gif", ".PNG"])
def test_all_types_that_tensorflow_decodes_are_read(tmp_path, suffix):
    for number in range(6):
        path = tmp_path / "ab"[number % 2] / f"{number}{suffix}"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 6), (200, 100, 0)).save(path)
    x, _ = load(tmp_path).train.data()
    assert x.shape == (3, 6, 5, 3)
    assert np.abs(x.astype(int) - [200, 100, 0]).max() <= 3


def test_files_that_file_managers_leave_are_ignored(images):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "cat/.DS_Store", "dog/Thumbs.db"):
        (images / name).touch()
    (images / ".thumbnails").mkdir()
    (images / "LICENSE").write_text("free")
    assert load(images).train.count == 6


# What is refused, and the file or folder that is named


def broken(root):
    (root / "dog" / "07.png").write_bytes(b"not an image")
    return ["dog/07.png", "cannot be read", "repair or delete"]


def cut(root):
    path = root / "dog" / "07.png"
    path.write_bytes(path.read_bytes()[:70])
    return ["dog/07.png", "cannot be read", "repair or delete"]


def empty_class(root):
    (root / "eel").mkdir()
    return ["/eel", "no images"]


def one_class(root):
    shutil.rmtree(root / "dog")
    return ["only the class cat", "at least 2"]


def unknown_type(root):
    (root / "cat" / "scan.tiff").touch()
    return ["cat/scan.tiff", ".jpg", ".png"]


def at_the_top(root):
    write(root / "loose.png", 1)
    return ["loose.png", "outside the class folders"]


def nested(root):
    write(root / "cat" / "young" / "1.png", 1)
    return ["cat/young", "folder in a class folder"]


def nothing(root):
    shutil.rmtree(root)
    root.mkdir()
    return ["no class folders"]


def missing(root):
    shutil.rmtree(root)
    return ["no such file or directory", "one folder of images per class"]


@pytest.mark.parametrize("limit", [100, 0])
@pytest.mark.parametrize(
    "damage",
    [broken, cut, empty_class, one_class, unknown_type, at_the_top, nested, nothing, missing],
)
def test_what_cannot_be_used_is_named_in_one_line(images, damage, limit):
    words = damage(images)
    with pytest.raises(UsageError) as error:
        load(images, memory_limit_mb=limit)
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("fields", [{}, {"image_size": SIZE, "color_mode": "rgb"}])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_broken_image_of_any_split_is_named(divided, split, fields):
    path = sorted((divided / split / "dog").iterdir())[1]
    content = path.read_bytes()
    path.write_bytes(content[:60] + b"\xff" * 20 + content[80:])
    with pytest.raises(UsageError, match=f"the image {path} cannot be read: .*; repair"):
        load(divided, **fields)


def test_folders_of_splits_are_checked(divided):
    write_classes(divided / "validation")
    with pytest.raises(FieldError, match="^data_dir=.*has val and validation"):
        load(divided, validation_size=None)
    shutil.rmtree(divided / "validation")
    write(divided / "test" / "eel" / "1.png", 1)
    with pytest.raises(UsageError, match="test/eel: no such class in .*train, which has cat, dog"):
        load(divided, validation_size=None)
    shutil.rmtree(divided / "test" / "eel")
    write(divided / "test" / "1.png", 1)
    with pytest.raises(UsageError, match=r"test/1\.png is outside the class folders"):
        load(divided, validation_size=None)
    (divided / "test" / "1.png").unlink()
    (divided / "extra").mkdir()
    with pytest.raises(FieldError, match="^data_dir=.*folder extra beside train: only train, val"):
        load(divided, validation_size=None)
    (divided / "extra").rmdir()
    shutil.rmtree(divided / "test" / "dog")  # a split need not have every class
    assert sorted(numbers(load(divided, validation_size=None).test)) == [40, 42, 44]


def test_a_directory_too_deep_or_too_high_is_corrected(images, divided, tmp_path, monkeypatch):
    for path, root in (
        (images / "cat", images),
        (divided / "train", divided),
        (divided / "test", divided),
        (divided / "train" / "dog", divided / "train"),
    ):
        with pytest.raises(FieldError, match=f"^data_dir={path}: is .*--data_dir={root}$"):
            load(path)
    monkeypatch.chdir(images / "cat")
    with pytest.raises(FieldError, match=f"^data_dir=.: is .*--data_dir={images}$"):
        load(".")
    shutil.rmtree(divided)
    with pytest.raises(FieldError, match=f": is above the images; .*--data_dir={images}$"):
        load(tmp_path)
    write_classes(divided / "train")
    shutil.rmtree(images)
    with pytest.raises(FieldError, match=f": is above the images; .*--data_dir={divided}$"):
        load(tmp_path)


def test_a_file_is_no_directory(images):
    with pytest.raises(FieldError, match="^data_dir=.*is a file"):
        load(images / "cat" / "00.png")


# Identity


def test_the_run_id_depends_on_the_content_and_not_on_the_path(images, tmp_path):
    def run_id(path):
        task = NamedTask(experiment(path))
        return task.experiment.run_id(**task.content)

    first = run_id(images)
    copy = shutil.copytree(images, tmp_path / "elsewhere")
    assert run_id(copy) == first
    shutil.copy(copy / "cat" / "00.png", copy / "cat" / "999.png")
    assert run_id(copy) != first
    (copy / "cat" / "999.png").unlink()
    (copy / "cat" / "00.png").rename(copy / "cat" / "000.png")  # the order is the same
    assert run_id(copy) == first
    (copy / "cat" / "000.png").rename(copy / "cat" / "999.png")  # now it is not
    assert run_id(copy) != first
    (copy / "cat" / "999.png").rename(copy / "dog" / "00.png")
    assert run_id(copy) != first
    assert sources.content(Experiment()) == {}

"""Tables: CSV and Parquet files as data sets, and what is refused with the name of the column."""

import numpy as np
import pytest

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import frames
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.task import NamedTask

pandas = pytest.importorskip("pandas", reason="needs lotcal-tf[tables]")
pytest.importorskip("pyarrow", reason="needs lotcal-tf[tables]")

COUNT = 20
NAMES = np.array(["dog", "cat", "eel"])


def table(first=0, count=COUNT, **more):
    """Rows that name themselves: a = n, b = n / 2, kind by turns of three names."""
    n = np.arange(first, first + count)
    return pandas.DataFrame({"a": n, "kind": NAMES[n % 3], "b": n / 2} | more)


@pytest.fixture
def path(tmp_path):
    table().to_csv(tmp_path / "animals.csv", index=False)
    return tmp_path / "animals.csv"


def experiment(path, **fields):
    given = {"source": "table", "data_dir": str(path), "label_column": "kind"}
    return Experiment(**given | {"validation_size": 4} | fields)


def load(path, **fields):
    return frames.load(experiment(path, **fields))


def rows(split):
    inputs, labels = split.data()
    np.testing.assert_array_equal(inputs[:, 1], inputs[:, 0] / 2)
    # Sorted by name, cat is 0, dog 1 and eel 2.
    np.testing.assert_array_equal(labels, np.array([1, 0, 2])[inputs[:, 0].astype(int) % 3])
    return inputs[:, 0].astype(int).tolist()


def test_a_csv_file_becomes_three_splits(path):
    dataset = load(path)
    parts = [rows(split) for split in dataset.named_splits().values()]
    assert [len(part) for part in parts] == [12, 4, 4]  # a fifth is tested
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(COUNT))
    assert rows(load(path, seed=3).test) == parts[2]
    assert load(path, test_size=7).test.count == 7
    assert (dataset.classes, dataset.class_names) == (3, ("cat", "dog", "eel"))
    assert (dataset.train.shape, dataset.input_range) == ((2,), None)


def test_parquet_holds_the_same(path, tmp_path):
    table().to_parquet(tmp_path / "animals.parquet", index=False)
    for name, split in load(path).named_splits().items():
        assert rows(load(tmp_path / "animals.parquet").named_splits()[name]) == rows(split)


def test_a_test_file_beside_it_is_the_test_split(path):
    test = table(100, 6)[["kind", "b", "a"]]  # another order of columns
    test.to_csv(path.with_name("animals_test.csv"), index=False)
    dataset = load(path)
    assert rows(dataset.test) == list(range(100, 106))
    with pytest.raises(FieldError, match="^test_size=2: the data has its own test split"):
        load(path, test_size=2)
    assert sorted(rows(dataset.train) + rows(dataset.validation)) == list(range(COUNT))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([2, 1, 3], ("1", "2", "3")),
        ([2.0, 1.0, 10.0], ("1", "2", "10")),
        (["10", "9", "8"], ("8", "9", "10")),
        ([True, False, True], ("False", "True")),
    ],
)
def test_different_labels_in_their_order_are_the_classes(tmp_path, values, names):
    frame = table(kind=[values[n % 3] for n in range(COUNT)])
    frame.to_csv(tmp_path / "t.csv", index=False)
    dataset = load(tmp_path / "t.csv")
    assert dataset.class_names == names
    for split in dataset.named_splits().values():
        inputs, labels = split.data()
        shown = [str(values[int(n) % 3]).removesuffix(".0") for n in inputs[:, 0]]
        assert [names[label] for label in labels] == shown


def test_built_in_networks_standardise_by_the_training_rows(path):
    task = NamedTask(experiment(path, model="lenet_4"))
    dataset = task.load()
    model = task.start(dataset)
    inputs = dataset.train.data()[0]
    scaled = model.get_layer("scaling")(inputs).numpy()
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-6)
    flags = {"input_mean": "3", "input_std": "2"}
    task = NamedTask(experiment(path, model="lenet_4", **flags))
    scaled = task.start(task.load()).get_layer("scaling")(inputs).numpy()
    np.testing.assert_allclose(scaled, (inputs - 3) / 2, atol=1e-6)


def test_a_constant_column_stays_finite(tmp_path):
    table(c=5.0).to_csv(tmp_path / "t.csv", index=False)
    dataset = load(tmp_path / "t.csv")
    mean, deviation = dataset.statistics
    assert (mean[2], deviation[2]) == (5.0, 1.0)


BAD = {
    "text column": (table(city="Bonn"), ["column 'city'", "numbers are needed"]),
    "gap": (table(a=[None, *range(1, COUNT)]), ["column 'a'", "row 0", "fillna"]),
    "gap in labels": (table(kind=["cat", None] * 10), ["'kind'", "no label in row 1"]),
    "no label column": (table().drop(columns="kind"), ["label_column=kind", "columns a, b"]),
    "only labels": (table()[["kind"]], ["no feature column"]),
    "fractions": (table(kind=table().b), ["label_column=kind", "0.5", "class"]),
    "one class": (table(kind="cat"), ["label_column=kind", "only the class cat", "at least 2"]),
    "a number to predict": (
        pandas.DataFrame({"a": range(100), "kind": [n % 50 for n in range(100)]}),
        ["label_column=kind", "50 different values in 100 rows", "classes"],
    ),
    "no rows": (table().iloc[:0], ["no rows"]),
    "infinity": (
        table(a=[0, -np.inf, *range(2, COUNT)]),
        ["column 'a'", "-inf in row 1", "finite"],
    ),
    "too large": (table(b=[*range(COUNT - 1), 1e39]), ["column 'b'", f"1e+39 in row {COUNT - 1}"]),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("frame", "words"), BAD.values(), ids=BAD)
def test_bad_tables_are_refused_in_one_line(tmp_path, frame, words, suffix):
    path = tmp_path / f"t{suffix}"
    (frame.to_csv if suffix == ".csv" else frame.to_parquet)(path, index=False)
    with pytest.raises(UsageError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def test_a_name_that_stands_twice_in_the_header_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,kind,kind\n" + "1,cat,cat\n2,dog,dog\n" * 20)
    with pytest.raises(FieldError, match="^data_dir=.*has several columns 'kind'"):
        load(tmp_path / "t.csv", label_column="kind")


def test_a_column_of_row_numbers_is_refused(tmp_path):
    table().to_csv(tmp_path / "t.csv")
    with pytest.raises(FieldError, match="^data_dir=.*'Unnamed: 0'.*index=False"):
        load(tmp_path / "t.csv")
    table().set_index("a").rename_axis(None).iloc[::-1].to_parquet(tmp_path / "t.parquet")
    load(tmp_path / "t.parquet")  # pandas keeps it apart from the columns


def test_a_test_file_that_does_not_fit_is_refused(path):
    other = path.with_name("animals_test.csv")
    for frame, words in (
        (table().drop(columns="b"), "no column 'b'"),
        (table(c=1), "the column 'c' too"),
        (table(kind="fox"), "label fox in row 0: the training classes are cat, dog, eel"),
    ):
        frame.to_csv(other, index=False)
        with pytest.raises(UsageError, match=f"animals_test.csv has .*{words}"):
            load(path)


def test_a_file_that_is_no_table_is_refused(path, tmp_path):
    with pytest.raises(FieldError, match=f"^data_dir=.*directory; .*--data_dir={path}$"):
        load(tmp_path)
    (tmp_path / "t.xlsx").touch()
    (tmp_path / "broken.parquet").write_bytes(b"nothing")
    (tmp_path / "empty.csv").touch()
    for name, words in (
        ("t.xlsx", ".csv or .parquet"),
        ("broken.parquet", "cannot be read as a table"),
        ("empty.csv", "cannot be read as a table"),
        ("absent.csv", "no such file or directory; give a .csv or .parquet file"),
    ):
        with pytest.raises(FieldError, match=f"^data_dir=.*{name}: .*{words}") as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value)


def test_the_run_id_depends_on_the_content_and_not_on_the_path(path, tmp_path):
    def run_id(path):
        task = NamedTask(experiment(path))
        return task.experiment.run_id(**task.content)

    first = run_id(path)
    (tmp_path / "other.csv").write_bytes(path.read_bytes())
    assert run_id(tmp_path / "other.csv") == first
    table(100).to_csv(tmp_path / "other_test.csv", index=False)
    assert run_id(tmp_path / "other.csv") != first
    table(1).to_csv(path, index=False)
    assert run_id(path) != first


def test_a_missing_package_is_named_with_its_extra(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(
        UsageError, match=r"pandas cannot be imported.*pip install 'lotcal-tf\[tables\]'"
    ):
        load(path)


def test_bytes_stay_bytes_only_where_every_column_holds_them():
    bytes_only = pandas.DataFrame({"a": np.uint8([1, 2]), "b": np.uint8([3, 255])})
    assert frames.features(bytes_only, "x").dtype == np.uint8
    mixed = bytes_only.assign(c=[0.5, 1.5])
    found = frames.features(mixed, "x")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[1, 3, 0.5], [2, 255, 1.5]])

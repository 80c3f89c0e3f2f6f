"""The runs that a grid describes, counted by hand."""

import numpy as np
import pytest

from lotcal_tf.errors import UsageError
from lotcal_tf.sweeps.grid import MOST_RUNS, Grid, flag_values, read_grid, sweep_values


def points(grid):
    return [dict(point) for point in grid.points()]


def test_the_last_axis_changes_fastest():
    grid = Grid(fields={"epochs": 2}, axes={"calib": ["none", "vwcc"], "seed": [0, 1]})
    assert points(grid) == [
        {"epochs": 2, "calib": "none", "seed": 0},
        {"epochs": 2, "calib": "none", "seed": 1},
        {"epochs": 2, "calib": "vwcc", "seed": 0},
        {"epochs": 2, "calib": "vwcc", "seed": 1},
    ]


def test_without_axes_there_is_one_run():
    assert points(Grid(fields={"seed": 3})) == [{"seed": 3}]


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("seed", "0..4", [0, 1, 2, 3, 4]),
        ("seed", "7..7", [7]),
        ("seed", "3", ["3"]),
        ("seed", "5,1", [5, 1]),
        ("lr", "0.1,1e-3", [0.1, 0.001]),
        ("calib", "none, vwcc", ["none", "vwcc"]),
        ("dropout_rate", "0.1,0.2", [0.1, 0.2]),
        ("lr_drops", "80,120", ["80,120"]),  # A field that is a list has one value.
        ("prior", "0.5,0.5", ["0.5,0.5"]),
        ("gamma", "1,2", ["1,2"]),  # A custom hyperparameter may be a list.
        ("data_dir", "a,b", ["a,b"]),
        ("model", "0..4", ["0..4"]),
    ],
)
def test_a_list_or_a_range_of_a_scalar_field_is_an_axis(name, text, values):
    assert flag_values({name: text}) == {name: values}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed", "4..0"), ("seed", "0..1000000000000"), ("seed", "1,1"), ("seed", "1,,2"), ("seed", "1,"),
        ("seed", "1,x"), ("levels", "1,2"), ("threads", "1,2"), ("lr", "0.1,-1"),
    ],
)  # fmt: skip
def test_an_axis_that_cannot_be_is_refused(name, text):
    with pytest.raises(UsageError, match=name):
        flag_values({name: text})


GRID = """
[fields]
dataset = "mnist"

[axes]
model = ["lenet_10", "lenet_20", "lenet_30"]
seed = [0, 1, 2]

[[exclude]]
model = ["lenet_20", "lenet_30"]
seed = 2

[[exclude]]
seed = 1
model = "lenet_30"

[[set]]
when = { model = ["lenet_20", "lenet_30"] }
epochs = 7
lr = 0.5

[[set]]
when = { model = "lenet_30" }
epochs = 9
"""


def test_a_grid_file(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    found = [(p["model"], p["seed"], p.get("epochs"), p.get("lr")) for p in points(read_grid(path))]
    assert found == [
        ("lenet_10", 0, None, None),
        ("lenet_10", 1, None, None),
        ("lenet_10", 2, None, None),
        ("lenet_20", 0, 7, 0.5),
        ("lenet_20", 1, 7, 0.5),
        ("lenet_30", 0, 9, 0.5),
    ]
    assert {p["dataset"] for p in points(read_grid(path))} == {"mnist"}


def test_flags_take_the_place_of_fields_and_axes_of_the_file(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    grid = read_grid(path).with_values({}, flag_values({"seed": "1..2", "dataset": "digits"}))
    assert [(p["dataset"], p["model"], p["seed"]) for p in points(grid)] == [
        ("digits", "lenet_10", 1),
        ("digits", "lenet_10", 2),
        ("digits", "lenet_20", 1),
    ]
    one = read_grid(path).with_values({}, flag_values({"model": "lenet_10", "seed": "0..1"}))
    assert [p["seed"] for p in points(one)] == [0, 1]


DEPENDENT = """
[fields]
levels = 1
[axes]
model = ["lenet_16", "lenet_32"]
seed = [0, 1, 2]
[[exclude]]
model = "lenet_32"
seed = [1, 2]
[[set]]
when = { model = "lenet_32" }
epochs = 7
"""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"model": "lenet_32"}, [("lenet_32", 0, 7)]),
        ({"seed": "1"}, [("lenet_16", "1", None)]),
        ({"seed": "0..1", "model": "lenet_32"}, [("lenet_32", 0, 7)]),
        ({"seed": "0", "epochs": "3"}, [("lenet_16", "0", "3"), ("lenet_32", "0", "3")]),
        (
            {"seed": "0", "epochs": "3,4", "model": "lenet_32"},
            [("lenet_32", "0", 3), ("lenet_32", "0", 4)],
        ),
    ],
)
def test_flags_of_one_value_keep_what_the_file_excludes_and_sets(tmp_path, flags, expected):
    path = tmp_path / "grid.toml"
    path.write_text(DEPENDENT)
    grid = read_grid(path).with_values({}, flag_values(flags))
    assert [(p["model"], p["seed"], p.get("epochs")) for p in points(grid)] == expected


def test_numbers_of_numpy_are_values():
    fields, axes = sweep_values({"epochs": np.int64(3)}, {"seed": np.arange(2)})
    assert (fields, axes) == ({"epochs": 3}, {"seed": [0, 1]})
    assert all(type(value) is int for value in (fields["epochs"], *axes["seed"]))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x = 1", "x"),
        ("[fields]\nout = '/tmp'", "out"),
        ("[axes]\nseed = 1", "seed"),
        ("[axes]\nseed = []", "seed"),
        ("[axes]\nseed = [1, 1]", "seed"),
        ("[axes]\nlevels = [1, 2]", "levels"),
        ("[fields]\nseed = 1\n[axes]\nseed = [1, 2]", "seed"),
        ("axes = 1", "axes"),
        ("[axes]\nseed = [1, 2]\n[exclude]\nseed = 1", "exclude"),
        ("[axes]\nseed = [1, 2]\n[[exclude]]\nmodel = 'x'", "model"),
        ("[axes]\nseed = [1, 2]\n[[exclude]]\nseed = 3", "seed"),
        ("[axes]\nseed = [1, 2]\n[[exclude]]", "exclude"),
        ("[axes]\nseed = [1, 2]\n[[set]]\nepochs = 3", "when"),
        ("[axes]\nseed = [1, 2]\n[[set]]\nwhen = {}\nepochs = 3", "set"),
        ("[axes", "grid.toml"),
        ("\0", "grid.toml"),
        ("# " + "x" * (1 << 20), "grid.toml"),
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_a_grid_file_that_is_wrong_is_refused(tmp_path, text, named):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_grid(path)
    assert named in str(refused.value)
    assert "grid.toml" in str(refused.value)


def test_too_many_runs_and_none_are_refused():
    with pytest.raises(UsageError, match="combinations"):
        Grid(axes={"seed": range(MOST_RUNS), "batch_size": [1, 2]}).points()
    with pytest.raises(UsageError, match="exclude"):
        Grid(axes={"seed": [1, 2]}, exclude=[{"seed": [1, 2]}]).points()


class Custom:
    """Stands for a strategy in a module."""


def test_values_of_the_library():
    fields, axes = sweep_values({"epochs": 3}, {"seed": range(2), "calib": ["none", Custom]})
    assert fields == {"epochs": 3}
    assert axes == {"seed": [0, 1], "calib": ["none", f"{__name__}:Custom"]}


@pytest.mark.parametrize(
    ("fields", "axes"),
    [
        ({"seed": 1}, {"seed": [1, 2]}),
        ({}, {"seed": 3}),
        ({}, {"seed": "12"}),
        ({}, {"seed": []}),
        ({}, {"seed": [1, 1]}),
        ({}, {"levels": [1, 2]}),
        ({"optimizer": object()}, {}),
        ({}, {"calib": [type("Local", (), {"__module__": "__main__"})]}),
    ],
    ids=lambda part: "-".join(part),
)
def test_values_of_the_library_that_cannot_be_are_refused(fields, axes):
    with pytest.raises(UsageError, match=next(iter({**fields, **axes}))):
        sweep_values(fields, axes)

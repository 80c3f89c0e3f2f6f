"""The transfer tables' pure parts: the commands, their flags, and the averages."""

import pytest

from lotcal_tf import train
from lotcal_tf.config.recipes import resolve


@pytest.fixture(scope="module")
def tool(load):
    return load("transfer")


def test_controls_and_the_other_optimizer_are_the_first_strategys(tool):
    found = tool.variants(["none", "vwcc"], "none", "--optimizer=adam --lr=0.001")
    assert [(v.column, v.strategy, v.flags) for v in found] == [
        ("none", "none", ("--calib=none",)),
        ("vwcc", "vwcc", ("--calib=none",)),
        ("none, random_mask", "none", ("--calib=none", "--control=random_mask")),
        ("none, redrawn_weights", "none", ("--calib=none", "--control=redrawn_weights")),
        ("none, other optimizer", "none", ("--calib=none", "--optimizer=adam", "--lr=0.001")),
    ]
    same = tool.variants(["none", "vwcc"], "same", "")
    assert [v.flags[0] for v in same] == ["--calib=none", "--calib=vwcc"] + 2 * ["--calib=none"]


def experiment_of(command):
    """What the train command makes of a command's flags."""
    request = train.COMMAND.read(command.flags)
    return resolve(request.given, request.config)


FLAGS = ["--model=lenet_10", "--levels=3", "--lr=0.1", "--prune_rate=0.4", "--epochs=2"]


def test_flags_that_a_ticket_determines_go_to_the_search_only(tool):
    assert tool.for_transfer(FLAGS) == ["--levels=3", "--lr=0.1", "--epochs=2"]
    kept = ["--calib_weight=0.1", "--set=gamma=2", "--config=a.toml"]
    assert tool.for_transfer([*kept, "--dropout_at=head", "--gradient_of=loss"]) == kept
    for wrong in ("--epoch=3", "--epochs", "epochs"):
        with pytest.raises(SystemExit, match=f"^{wrong}: write --flag=value"):
            tool.for_transfer([wrong])


def test_the_train_command_accepts_every_command(tool, tmp_path):
    columns = tool.variants(["none", "vwcc"], "none", "--optimizer=adam --lr=0.001")
    found = tool.searches(["none", "vwcc"], 2, "mnist", FLAGS)
    assert list(found) == [("none", 0), ("vwcc", 0), ("none", 1), ("vwcc", 1)]
    for (calib, seed), command in found.items():
        experiment = experiment_of(command)
        assert (experiment.dataset, experiment.calib, experiment.seed) == ("mnist", calib, seed)
        assert experiment.prune_rate == 0.4
        for level in range(4):
            (tmp_path / command.name / "tickets" / f"level_0{level}").mkdir(parents=True)
    moved = tool.transfers(columns, 2, "digits", FLAGS, tmp_path)
    assert len({command.name for command in moved.values()}) == len(moved) == 2 * 5
    for (column, seed), command in moved.items():
        experiment = experiment_of(command)
        assert (experiment.dataset, experiment.calib, experiment.seed) == ("digits", "none", seed)
        strategy = "vwcc" if column == "vwcc" else "none"
        assert experiment.ticket == str(tmp_path / f"find-{strategy}-seed_{seed}")
        assert experiment.lr == (0.001 if column == "none, other optimizer" else 0.1)
        assert experiment.levels == 3
        expected = column.partition(", ")[2]
        assert experiment.control == (expected if expected in tool.CONTROLS else "none")


def test_tables_hold_a_row_a_level_and_average_the_seeds_of_a_column(tool, tmp_path):
    runs = {}
    for column, seed, shift in [("none", 0, 0.0), ("vwcc", 0, 0.2), ("none", 1, 0.1)]:
        run = tmp_path / f"{column}{seed}"
        run.mkdir()
        lines = ["density,test_accuracy,test_ece,test_nll"]
        lines += [f"{d},{d / 2 + shift},{shift},{d}" for d in (1.0, 0.8)]
        (run / "metrics.csv").write_text("\n".join(lines))
        runs[column, seed] = run
    accuracy, ece, nll = (part.splitlines() for part in tool.tables(runs).split("\n\n"))
    # Of x and x + 0.1: the mean x + 0.05, the deviation 0.1 / sqrt(2) = 0.0707.
    assert accuracy == [
        "| accuracy: kept | none | vwcc |",
        "|---:|---:|---:|",
        "| 100.0 % | 55.00 ± 7.07 | 70.00 |",
        "| 80.0 % | 45.00 ± 7.07 | 60.00 |",
    ]
    assert ece[2] == "| 100.0 % | 0.0500 ± 0.0707 | 0.2000 |"
    assert nll[3] == "| 80.0 % | 0.8000 ± 0.0000 | 0.8000 |"

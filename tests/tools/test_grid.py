"""A grid is every combination, each named after its values; what cannot be read ends the call."""

import pytest


@pytest.fixture(scope="module")
def tool(load):
    return load("grid")


def test_every_combination_is_a_command_of_its_own_name(tool):
    commands = tool.grid(["model=lenet_5,lenet_6", "seed=0,1"], ["--dataset=mixture_linear"])
    assert {command.name: command.flags for command in commands} == {
        f"model_{model}-seed_{seed}": [
            "--dataset=mixture_linear",
            f"--model={model}",
            f"--seed={seed}",
        ]
        for model in ("lenet_5", "lenet_6")
        for seed in (0, 1)
    }
    assert [command.name for command in commands][:2] == [
        "model_lenet_5-seed_0",
        "model_lenet_5-seed_1",
    ]


@pytest.mark.parametrize("over", ["seed", "seed=", "=1"])
def test_an_axis_without_flag_or_value_is_refused(tool, over):
    with pytest.raises(SystemExit, match=f"--over={over}: write"):
        tool.grid([over], [])

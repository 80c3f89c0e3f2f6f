"""The sizes of "Quantifying lottery tickets under label noise", reached by the selection itself."""

import dataclasses

import numpy as np
import pytest

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.errors import FieldError
from lotcal_tf.lottery.pruner import Pruner
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.models.build import build_model
from lotcal_tf.pruning import masking, selection
from lotcal_tf.pruning.criteria import Magnitude

MNIST, CIFAR, MIXTURE = (28, 28, 1), (32, 32, 3), (100,)


def begin(name, shape, classes=10, **fields):
    """A pruner, and level 0 with drawn weights."""
    network = masking.wrap(build_model(name, shape, classes, seed=0), fields.get("exclude", ()))
    experiment = Experiment(scope="global", count="openlth", **fields)
    weights = masking.values(network)
    masks = {name: np.ones(v.shape, bool) for name, v in masking.mask_variables(network).items()}
    # Neither data nor predictions are needed for magnitudes.
    pruner = Pruner(experiment, Magnitude, network, None, None)
    return pruner, Ticket(0, "", masks, weights, weights, {})


def sizes(name, shape, levels, classes=10, **fields):
    """The kernel entries that remain at each level."""
    pruner, ticket = begin(name, shape, classes, **fields)
    found = [selection.count(ticket.masks)]
    for level in range(1, levels + 1):
        masks = pruner.prune(ticket).masks
        ticket = dataclasses.replace(ticket, level=level, masks=masks)
        found.append(selection.count(masks))
    return found


def published(*given, classes=10):
    """A case; large ones take more than a second."""
    *_, dense, _, _ = given
    return pytest.param(*given, classes, marks=pytest.mark.full if dense > 100_000 else ())


@pytest.mark.parametrize(
    ("name", "shape", "dense", "levels", "left", "classes"),
    [
        # Three layers.
        published("lenet_50_100", MNIST, 45_200, 9, 6_061),
        published("lenet_100_100", MNIST, 89_400, 13, 4_908),
        published("lenet_300_100", MNIST, 266_200, 17, 5_987),
        published("lenet_500_100", MNIST, 443_000, 19, 6_377),
        published("lenet_1000_100", MNIST, 885_000, 20, 10_196),
        published("lenet_5000_100", MNIST, 4_421_000, 27, 10_683),
        published("lenet_10000_100", MNIST, 8_841_000, 28, 17_094),
        # Two layers.
        published("lenet_50", MNIST, 39_700, 7, 8_320),
        published("lenet_100", MNIST, 79_400, 11, 6_814),
        published("lenet_300", MNIST, 238_200, 17, 5_358),
        published("lenet_1000", MNIST, 794_000, 19, 11_436),
        published("lenet_2000", MNIST, 1_588_000, 22, 11_710),
        published("lenet_5000", MNIST, 3_970_000, 23, 23_428),
        published("lenet_10000", MNIST, 7_940_000, 25, 29_990),
        # ResNet-6.
        published("resnet8_8", MNIST, 19_464, 6, 5_098),
        published("resnet8_11", MNIST, 36_597, 7, 7_669),
        published("resnet8_15", MNIST, 67_785, 10, 7_272),
        published("resnet8_20", MNIST, 120_180, 12, 8_252),
        published("resnet8_40", MNIST, 478_760, 16, 13_470),
        published("resnet8_80", MNIST, 1_911_120, 21, 17_620),
        published("resnet8_120", MNIST, 4_297_080, 24, 20_286),
        # ResNet-18. Of 1,689,080 the paper prints 19,647: two digits are exchanged.
        published("resnet20_11", CIFAR, 128_271, 9, 17_211),
        published("resnet20_15", CIFAR, 238_155, 12, 16_359),
        published("resnet20_40", CIFAR, 1_689_080, 20, 19_467),
        published("resnet20_60", CIFAR, 3_798_420, 21, 35_028),
        published("resnet20_100", CIFAR, 10_546_700, 24, 49_799),
        published("resnet20_150", CIFAR, 23_725_050, 27, 57_356),
        published("vgg16", CIFAR, 14_715_584, 26, 44_468),
        # Subsets of the classes of CIFAR-10. The width is not published; this one gives all six sizes.
        published("resnet20_80", CIFAR, 6_749_360, 27, 16_312, classes=5),
        published("resnet20_80", CIFAR, 6_749_680, 26, 20_392, classes=6),
        published("resnet20_80", CIFAR, 6_750_000, 24, 31_869, classes=7),
        published("resnet20_80", CIFAR, 6_750_320, 24, 31_871, classes=8),
        published("resnet20_80", CIFAR, 6_750_640, 24, 31_872, classes=9),
        published("resnet20_80", CIFAR, 6_750_960, 23, 39_843, classes=10),
    ],
)
def test_the_published_sizes_are_reached_exactly(name, shape, dense, levels, left, classes):
    found = sizes(name, shape, levels, classes)
    assert (found[0], found[-1]) == (dense, left)


def test_everything_is_pruned_unless_it_is_excluded():
    """Shortcuts and the output layer lose weights too."""
    pruner, ticket = begin("resnet8_4", CIFAR)
    whole = selection.survivors(ticket.masks)
    for _ in range(5):
        ticket = dataclasses.replace(ticket, masks=pruner.prune(ticket).masks)
    left = selection.survivors(ticket.masks)
    assert all(left[name] < whole[name] for name in whole), left


@pytest.mark.parametrize("exclude", [("logits",), ()])
def test_an_output_layer_that_is_not_pruned_counts(exclude):
    """By `exclude` or `exclude_output`: of 48 + 24 kernel entries, ceil(0.2 · 72) + 1 = 16 go."""
    fields = {"exclude": exclude} if exclude else {"exclude_output": True}
    pruner, ticket = begin("lenet_6", (8,), 4, **fields)
    masks = pruner.prune(ticket).masks
    assert int(masks["hidden_1/kernel"].sum()) == 48 - 16
    assert exclude or masks["logits/kernel"].all()


def test_only_what_remains_of_an_output_layer_counts():
    """Of a ticket whose output layer is pruned: 48 + 10 remaining, ceil(0.2 · 58) + 1 = 13 go."""
    pruner, ticket = begin("lenet_6", (8,), 4, exclude_output=True)
    output = np.zeros((6, 4), bool)
    output.flat[:10] = True
    masks = ticket.masks | {"logits/kernel": output}
    pruned = pruner.prune(dataclasses.replace(ticket, masks=masks)).masks
    assert int(pruned["hidden_1/kernel"].sum()) == 48 - 13
    np.testing.assert_array_equal(pruned["logits/kernel"], output)


def test_a_count_that_exceeds_the_prunable_weights_is_refused():
    """The first layer has 800 of 824 entries: a level would prune 166 of the other 24."""
    pruner, ticket = begin("lenet_8_2", (100,), 4, exclude=("hidden_1",))
    with pytest.raises(FieldError, match=r"^count=openlth: .*\b166\b.*\b22\b.*count=prunable"):
        pruner.check_count(ticket.masks, ticket.trained)
    pruner, ticket = begin("lenet_8_2", (100,), 4)
    pruner.check_count(ticket.masks, ticket.trained)

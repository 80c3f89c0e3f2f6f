"""An experiment's data have the noise that it asks for, whatever their source."""

import numpy as np

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.sources import load


def test_noise_comes_with_the_data():
    clean, noisy = (load(Experiment(source="digits", label_noise=r)) for r in (0, 0.2))
    for name, wrong in [("train", 0.2), ("validation", 0.2), ("test", 0.0)]:
        before, after = (
            next(getattr(data, name).in_order(2000))[1].numpy() for data in (clean, noisy)
        )
        assert np.sum(before != after) == int(np.floor(wrong * len(before) + 0.5))
    assert clean.truth is None
    assert noisy.truth.shape == (noisy.test.count, 10)

import numpy as np

from lotcal_tf.compat import keras
from lotcal_tf.models.norm import batch_norm


def test_it_normalises_and_remembers_as_pytorch_does():
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, batch_norm(inputs, "norm"))
    # Mean .002 and variance .000016 over batch and places: 1e-5 counts beside it, 1e-3 would drown it.
    x = np.array([-0.002, 0.006], "float32").repeat(4).reshape(2, 2, 2, 1)
    y = model(x, training=True).numpy().ravel()
    np.testing.assert_allclose(y, np.sign(y) * 0.004 / np.sqrt(0.000026), rtol=1e-3)
    moving_mean, moving_variance = (w.numpy()[0] for w in model.non_trainable_weights)
    np.testing.assert_allclose(moving_mean, 0.1 * 0.002, rtol=1e-4)
    # PyTorch counts the variance by n - 1 = 7 in the moving one.
    np.testing.assert_allclose(moving_variance, 0.9 + 0.1 * 0.000016 * 8 / 7, rtol=1e-6)
    assert model.layers[-1].name == "norm"

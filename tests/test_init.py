"""The library's door, lotcal_tf/__init__.py."""

import importlib
import pkgutil

import pytest

import lotcal_tf

MODULES = {"losses", "metrics"}


@pytest.mark.parametrize("name", lotcal_tf.__all__)
def test_door_gives_what_it_names(name):
    found = getattr(lotcal_tf, name)
    assert getattr(lotcal_tf, name) is found
    if name in MODULES:
        assert found.__name__.startswith("lotcal_tf.")
        assert found.__name__.endswith(f".{name}")
    elif name != "__version__":
        assert found.__name__ == name


def test_door_has_what_the_design_promises():
    promised = {
        "find_tickets",
        "load_ticket",
        "export_ticket",
        "measure_model",
        "compact",
        "losses",
        "metrics",
    }
    assert promised <= set(lotcal_tf.__all__) == set(dir(lotcal_tf))


def test_no_module_shadows_a_name():
    # Importing lotcal_tf.x makes x an attribute of the package: x must not mean something else.
    for found in pkgutil.iter_modules(lotcal_tf.__path__):
        if found.name in lotcal_tf.__all__:
            module = importlib.import_module(f"lotcal_tf.{found.name}")
            assert getattr(lotcal_tf, found.name) is module


def test_unknown_name_is_told_the_known_ones():
    with pytest.raises(AttributeError) as caught:
        _ = lotcal_tf.find_ticket
    assert "'find_ticket'" in str(caught.value)
    assert all(name in str(caught.value) for name in lotcal_tf.__all__)

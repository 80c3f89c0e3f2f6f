"""Holds the packaging: a wheel is whole, and every way of installing finds its recipes."""

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {path.stem for path in (ROOT / "configs").glob("*.toml")}
GRIDS = {f"grids/{path.stem}" for path in (ROOT / "configs" / "grids").glob("*.toml")}
ASK = """
import json
from lotcal_tf.config import experiment, recipes
print(json.dumps([experiment.__file__, str(recipes.recipe_directory().resolve()),
                  recipes.recipe_names()]))
"""

# Nothing that a checkout gathers by being used may reach the wheel, or slow the copy down.
LITTER = shutil.ignore_patterns(
    ".*", "build", "dist", "runs", "venv", "tests", "*.egg-info", "__pycache__"
)


@dataclasses.dataclass(frozen=True)
class Built:
    """A copy of the checkout, the wheel made from it, and a folder with the wheel installed."""

    checkout: Path
    wheel: Path
    installed: Path


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    place = tmp_path_factory.mktemp("packaging").resolve()
    # A build leaves build/ and *.egg-info where it runs: not in the checkout.
    checkout = shutil.copytree(ROOT, place / "checkout", ignore=LITTER)
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", place, checkout)
    (wheel,) = place.glob("*.whl")
    pip("install", "--no-deps", "--no-index", "--target", place / "installed", wheel)
    # Site-packages are shared: a folder of that name may be somebody else's.
    (place / "installed" / "configs").mkdir()
    (place / "installed" / "configs" / "decoy.toml").touch()
    return Built(checkout, wheel, place / "installed")


@pytest.fixture
def elsewhere(tmp_path):
    """A working directory that is not ours, with a folder of the recipes' name in it."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "decoy.toml").touch()
    return tmp_path


def ask(cwd, *search_path):
    """What a Python started in `cwd` finds: experiment.py, the recipes' folder, their names."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, search_path))
    # Not to leave a __pycache__ that the next question finds.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    source, directory, names = json.loads(done.stdout)
    return Path(source), Path(directory), set(names)


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


def contents(wheel):
    """The files of a wheel with their bytes; RECORD repeats them."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")
        }


def test_checkout_has_the_recipes_it_promises():
    assert {"digits", "mnist", "fashion_mnist", "cifar10", "svhn"} <= RECIPES


def test_wheel_carries_package_recipes_types_and_license(built):
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "lotcal_tf").rglob("*")
        if path.suffix in (".py", ".j2", ".csv") or path.name == "py.typed"
    }
    assert {name for name in names if ".dist-info/" not in name} == sources | {
        f"lotcal_tf/configs/{recipe}.toml" for recipe in RECIPES | GRIDS
    }
    assert any(name.endswith("/LICENSE") for name in names)


def test_source_distribution_builds_the_same_wheel(built, tmp_path):
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=built.checkout, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    wheels = tmp_path / "wheels"
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", wheels, source)
    (wheel,) = wheels.glob("*.whl")
    assert contents(wheel) == contents(built.wheel)


def test_installed_copy_reads_its_own_recipes(built, elsewhere):
    source, directory, names = ask(elsewhere, built.installed)
    assert source == built.installed / "lotcal_tf" / "config" / "experiment.py"
    assert directory == built.installed / "lotcal_tf" / "configs"
    assert names == RECIPES


def test_checkout_one_stands_in_shadows_the_installed_copy(built):
    source, directory, names = ask(built.checkout, built.installed)
    assert source == built.checkout / "lotcal_tf" / "config" / "experiment.py"
    assert directory == built.checkout / "configs"
    assert names == RECIPES


def test_editable_install_reads_the_checkouts_recipes(built, elsewhere):
    source, directory, names = ask(elsewhere, built.checkout)
    assert source == built.checkout / "lotcal_tf" / "config" / "experiment.py"
    assert directory == built.checkout / "configs"
    assert names == RECIPES


def test_plain_install_brings_all_that_is_imported(built):
    required = {
        re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
        for line in re.findall(r"^Requires-Dist: (.+)$", metadata(built.wheel), re.MULTILINE)
        if "extra ==" not in line
    }
    distributions = packages_distributions()
    for path in sorted((ROOT / "lotcal_tf").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            else:
                continue
            for name in {module.split(".")[0] for module in modules}:
                if name in sys.stdlib_module_names or name == "lotcal_tf":
                    continue
                brought_by = {one.lower().replace("_", "-") for one in distributions.get(name, [])}
                assert brought_by & required, f"{path} imports {name}"


def test_console_command_is_installed(built, elsewhere):
    done = subprocess.run(
        [built.installed / "bin" / "lotcal-tf", "train", "--no-such-flag"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(built.installed)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such-flag" in done.stderr


def test_version_is_written_once(built):
    from lotcal_tf import __version__

    assert f"\nVersion: {__version__}\n" in metadata(built.wheel)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation

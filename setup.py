"""Packaging of lotcal_tf; pyproject.toml has the settings of the tools."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def read_version() -> str:
    """Returns `lotcal_tf.__version__` from its source: a build need not import the package."""
    source = (HERE / "lotcal_tf" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__(?:: [\w.\[\]]+)? = "([^"]+)"', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('lotcal_tf/__init__.py has no line `__version__ = "…"`')
    return match[1]


def read_readme() -> str:
    """Returns README.md, or nothing where a source tree comes without it."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


# Packages that results depend on are limited to the tested minor version, the others to the major one.
REQUIRED = [
    "absl-py>=1.4,<2",  # tensorflow-model-optimization wants 1.x
    "ai-edge-litert>=2.3,<3",
    "cloudpickle>=3,<4",  # hands functions of a notebook to the worker processes of a sweep
    "flatbuffers>=25.9,<26",
    "h5py>=3.11,<4",  # checks the weights of Keras files before Keras reads them
    "importlib-resources>=6",  # tensorflow-datasets uses it but does not require it
    "jinja2>=3.1,<4",
    "matplotlib>=3.9,<4",
    "numpy>=2.4,<2.5",
    "pillow>=11,<14",  # reads the size of images before TensorFlow decodes them
    "safetensors>=0.5,<1",
    "scikit-learn>=1.6,<2",  # has the digits, a data set that needs no download
    "scipy>=1.14,<2",
    "tabulate>=0.9,<1",
    "tensorboard>=2.21,<2.22",  # TensorFlow no longer brings it
    "tensorflow>=2.21,<2.22",
    "tensorflow-datasets>=4.9.10,<5",
    "tensorflow-model-optimization>=0.8.1,<0.9",
    "tensorflow-probability>=0.25,<0.26",
    "tf-keras>=2.21,<2.22",
    "tqdm>=4.66,<5",
]

DOCS = [
    "ipykernel>=7.4,<8",  # with nbclient: tools/tour.py runs docs/tour.ipynb
    "mkdocs>=1.6.1,<2",
    "mkdocs-material>=9.8,<10",
    "mkdocstrings[python]>=1.0.8,<2",
    "nbclient>=0.11,<0.12",
    "ruff>=0.17.6,<0.18",  # formats the signatures of the API pages
]

TABLES = ["pandas>=2.2,<4", "pyarrow>=18,<27"]
HF = ["datasets>=4,<6"]

RAY = ["ray>=2.50,<3"]

# The client of MLflow, and what its SQLite store needs.
MLFLOW = ["alembic>=1.10,<2", "mlflow-skinny>=3.17,<4", "sqlalchemy>=2,<3"]

EXTRAS = {
    "hf": HF,
    "mlflow": MLFLOW,
    "ray": RAY,
    "tables": TABLES,
    "test": [
        "hypothesis>=6,<7",
        "import-linter>=2.17,<3",
        "mypy>=2.4,<3",
        "playwright>=1.50,<2",  # drives the system's Chromium; tests/browser.py
        "pytest>=9,<10",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.17.6,<0.18",  # a new minor brings new rules
        "setuptools>=77",  # tests/test_packaging.py builds a wheel without a network
        "types-tabulate>=0.9,<1",
        "huggingface_hub>=1,<3",  # reads the metadata of a model card
        *DOCS,  # the tests build the site
        *HF,
        *MLFLOW,
        *RAY,
        *TABLES,
    ],
    "docs": DOCS,
}

setup(
    name="lotcal_tf",
    version=read_version(),
    description="Sparse, calibrated Keras networks (lottery tickets), from pruning to deployment",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.12",  # the only version tested,
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["lotcal-tf=lotcal_tf.__main__:main"]},
    # The recipes are beside the package, where users read and edit them; a wheel has them inside
    # the package. An editable install ignores `package_dir` and finds ../configs instead.
    packages=[*find_packages(include=["lotcal_tf", "lotcal_tf.*"]), "lotcal_tf.configs"],
    package_dir={"lotcal_tf.configs": "configs"},
    package_data={
        "lotcal_tf": ["py.typed"],
        "lotcal_tf.analysis": ["*.j2", "published.csv"],
        "lotcal_tf.deploy": ["*.j2"],
        "lotcal_tf.configs": ["*.toml", "grids/*.toml"],
    },
    zip_safe=False,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)

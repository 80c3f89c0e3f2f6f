"""Custom classes: how they are found, and that every edit of their source is noticed."""

import sys

import pytest

from lotcal_tf.config import custom
from lotcal_tf.errors import FieldError


@pytest.fixture
def project(tmp_path, monkeypatch):
    """project(**files) → a way to load `mine:Class` anew from modules written to a directory."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files):
        for name, source in files.items():
            path = tmp_path / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        for name in [n for n in sys.modules if n.partition(".")[0] in ("mine", "helper", "pkg")]:
            monkeypatch.delitem(sys.modules, name)
        return custom.source_digest("calib", custom.load_class("calib", "mine:Own"))

    return write


OWN = "class Own:\n    def loss(self):\n        return 1\n"


def test_a_class_is_imported_by_module_and_name(project):
    project(mine=f"class Outer:\n    class Inner: pass\n{OWN}")
    assert custom.load_class("calib", "mine:Outer.Inner").__name__ == "Inner"
    assert custom.name_of(custom.load_class("calib", "mine:Own")) == "mine:Own"


@pytest.mark.parametrize("name", ["mine:Absent", "no_such_module:Own", "mine:Own.absent"])
def test_what_cannot_be_imported_is_named(project, name):
    project(mine=OWN)
    with pytest.raises(FieldError, match=f"^calib={name}: cannot be imported"):
        custom.load_class("calib", name)


def test_a_file_name_in_place_of_a_module_has_a_hint(project):
    project(mine=OWN)
    with pytest.raises(
        FieldError, match=r"^calib=mine\.py:Own: cannot be imported: .*; write mine:Own$"
    ):
        custom.load_class("calib", "mine.py:Own")


def test_a_module_that_is_no_python_is_named_with_its_line(project):
    with pytest.raises(FieldError, match=r"^calib=mine:Own: cannot be imported: .*mine.py, line 2"):
        project(mine="class Own:\n    def loss(self)\n")


def test_the_digest_changes_with_the_modules_source_and_back(project):
    first = project(mine=OWN)
    assert len(first) == 10
    assert project(mine=OWN) == first
    edited = project(mine=OWN.replace("return 1", "return 2"))
    assert edited != first
    assert project(mine=OWN) == first


@pytest.mark.parametrize(
    "statement",
    [
        "import helper",
        "from helper import value",
        "from pkg import helper",
        "import pkg.helper",
        "from pkg.helper import value",
        "def late():\n    import helper",
    ],
)
def test_the_digest_follows_local_imports(project, statement):
    files = {"pkg__in____init__": "", "helper": "value = 1\n", "pkg__in__helper": "value = 1\n"}
    before = project(mine=f"{statement}\n{OWN}", **files)
    edited = "pkg__in__helper" if "pkg" in statement else "helper"
    assert project(mine=f"{statement}\n{OWN}", **{**files, edited: "value = 2\n"}) != before
    unused = "helper" if "pkg" in statement else "pkg__in__helper"
    assert project(mine=f"{statement}\n{OWN}", **{**files, unused: "value = 2\n"}) == before


def test_relative_and_transitive_imports_count(project):
    files = {
        "pkg__in____init__": "from . import helper\n",
        "pkg__in__helper": "from .deeper import value\n",
        "pkg__in__deeper": "value = 1\n",
    }
    before = project(mine=f"import pkg\n{OWN}", **files)
    files["pkg__in__deeper"] = "value = 2\n"
    assert project(mine=f"import pkg\n{OWN}", **files) != before


def test_libraries_do_not_count(project):
    plain = project(mine=f"import helper\n{OWN}", helper="import json\nimport numpy as np\n")
    assert custom.sources_of("mine").keys() == {"mine", "helper"}
    assert plain


def test_a_class_of_the_package_has_no_digest():
    from lotcal_tf.config.experiment import Experiment

    assert custom.source_digest("calib", Experiment) == ""


def test_a_class_of_a_script_counts_with_its_own_source(tmp_path):
    import subprocess

    def digest(loss, beside, helper):
        (tmp_path / "aside.py").write_text(helper)
        (tmp_path / "script.py").write_text(
            "import aside\nfrom lotcal_tf.config import custom\n"
            f"{beside}\nclass Own:\n    loss = {loss}\n"
            "print(custom.source_digest('calib', Own))\n"
        )
        call = [sys.executable, str(tmp_path / "script.py")]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout

    first = digest(1, "x = 1", "a = 1")
    assert digest(1, "x = 2", "a = 1") == first, "other lines of a script do not matter"
    assert digest(2, "x = 1", "a = 1") != first
    assert digest(1, "x = 1", "a = 2") != first


def test_a_class_without_source_is_refused():
    made = type("Own", (), {"__module__": "__main__"})
    with pytest.raises(FieldError, match=r"^calib=__main__:Own: its source cannot be read"):
        custom.source_digest("calib", made)

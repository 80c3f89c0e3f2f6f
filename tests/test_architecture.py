"""Holds the plan of the house: floors, no circles, and what only one place may do.

The source is read with `ast`, never run, so this takes no TensorFlow and a second. Each rule is a
function from the modules to the sentences that say where it is broken; the second half of the
file breaks every rule once in a made-up tree, and looks whether its function notices.
"""

import ast
import dataclasses
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lotcal_tf"

# A file imports from its own room or from a lower floor. Rooms of one floor do not know each
# other, so pruning knows no data; only the lowest floor is one space. Strategies run stochastic
# passes of models, so calibration stands above those; masks it still knows nothing of.
# Below the commands stands what they carry out; the library, for one's own code, carries it out too.
COMMANDS = {"train", "export", "evaluate", "sweep", "report", "study"}
FLOORS = (
    {
        *("errors", "seeds", "layout", "files", "fields", "experiment", "recipes", "catalog"),
        *("compat", "cloning", "cluster", "evaluation", "rounding", "tables"),
    },
    {"data", "models", "pruning", "cli"},
    {"calibration"},
    {"training"},
    {"lottery"},
    {"deploy", "analysis"},
    {"running", "measuring", "exporting"},
    {"library"},
    COMMANDS,
)
STRANGERS = {("calibration", "pruning"), ("calibration", "data")}
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Rooms that answer `--help` and usage errors in under a second, hence without TensorFlow.
LIGHT_ROOMS = {
    "errors",
    "seeds",
    "layout",
    "files",
    "tables",
    "fields",
    "experiment",
    "recipes",
    "catalog",
    "cluster",
    "evaluation",
    "cli",
    *COMMANDS,
}
HEAVY = {
    "keras",
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_model_optimization",
    "tensorflow_probability",
    "tf_keras",
}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec"}
CATCH_ALL_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


@dataclasses.dataclass(frozen=True)
class Import:
    """One import statement's target, as written; `runs_on_import` unless a function holds it."""

    target: str
    line: int
    runs_on_import: bool


@dataclasses.dataclass(frozen=True)
class Module:
    """One source file under its dotted name."""

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def room(self) -> str:
        """`data` for lotcal_tf.data.splits; empty for the door, lotcal_tf itself."""
        return room_of(self.name)

    def at(self, line: int) -> str:
        return f"{self.name}:{line}"


Modules = Mapping[str, Module]


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def read_modules(root: Path, folder: str = PACKAGE) -> dict[str, Module]:
    """Every Python file below root/folder, by dotted name; a package goes by its own name."""
    modules = {}
    for path in sorted((root / folder).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        package = name if is_package else name.rpartition(".")[0]
        modules[name] = Module(name, path, tree, tuple(find_imports(tree, package)))
    return modules


def find_imports(tree: ast.AST, package: str, runs: bool = True) -> Iterator[Import]:
    """Every import below `tree`, `from a import b` as `a.b`; also import_module("a.b")."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, runs)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package itself, each further dot the package around it.
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, runs)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            # Never executed, yet a type is knowledge too: it counts for floors and circles.
            for branch, branch_runs in ((node.body, False), (node.orelse, runs)):
                yield from find_imports(ast.Module(branch, []), package, branch_runs)
        else:
            if isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
                target = node.args[0] if node.args else None
                if isinstance(target, ast.Constant) and isinstance(target.value, str):
                    yield Import(target.value, node.lineno, runs)
            deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from find_imports(node, package, runs and not deferred)


def _called(call: ast.Call) -> str:
    """The last name of what is called: `import_module` of importlib.import_module(...)."""
    return ast.unparse(call.func).rpartition(".")[2]


def resolve(target: str, modules: Modules) -> str | None:
    """The module of ours that an import means: `a.b` is a.b where that is a module, else a."""
    while target:
        if target in modules:
            return target
        target = target.rpartition(".")[0]
    return None


def own_imports(module: Module, modules: Modules) -> Iterator[tuple[str, Import]]:
    for imported in module.imports:
        target = resolve(imported.target, modules)
        # The version is a fact about the whole house, not something the door passes on.
        if target is not None and imported.target != f"{PACKAGE}.__version__":
            yield target, imported


# --- the rules -----------------------------------------------------------------------------------


def floor_violations(modules: Modules) -> list[str]:
    """(a) Imports go down; the door refers to names only lazily, and only commands use it."""
    found = []
    for module in modules.values():
        if module.room and module.room not in FLOOR_OF:
            found.append(f"{module.name}: the room {module.room!r} is on no floor")
            continue
        for target, imported in own_imports(module, modules):
            where, room = module.at(imported.line), room_of(target)
            if not module.room:
                if imported.runs_on_import:
                    found.append(f"{where} imports {target}, not lazily")
            elif not room:
                if module.room not in COMMANDS:
                    found.append(f"{where} imports the door")
            elif room != module.room and room in FLOOR_OF:
                mine, theirs = FLOOR_OF[module.room], FLOOR_OF[room]
                if (module.room, room) in STRANGERS:
                    found.append(f"{where} imports {target}, of which it must know nothing")
                elif theirs > mine:
                    found.append(f"{where} imports {target} from a higher floor")
                elif theirs == mine > 0:
                    found.append(f"{where} imports {target} from a neighbouring room")
    return found


def circles(modules: Modules) -> list[str]:
    """(b) No import circle, wherever in the files its imports stand."""
    graph = {
        name: sorted({target for target, _ in own_imports(module, modules)} - {name})
        for name, module in modules.items()
    }
    found, finished = [], set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name not in finished:
            for target in graph[name]:
                visit(target, [*trail, name])
            finished.add(name)

    for name in graph:
        visit(name, [])
    return found


def flag_violations(modules: Modules) -> list[str]:
    """(c) Only the commands and cli know flags."""
    return [
        f"{module.at(imported.line)} imports {imported.target}"
        for module in modules.values()
        if module.room not in {"cli", *COMMANDS}
        for imported in module.imports
        if re.match(r"absl\.(flags|app)\b", imported.target)
    ]


def catch_all_violations(modules: Modules) -> list[str]:
    """(c) No file or folder whose name says nothing about what is in it."""
    return [name for name in modules if CATCH_ALL_NAMES & set(name.split("."))]


def heavy_violations(modules: Modules) -> list[str]:
    """(d) Importing a light room, and all that this imports in turn, loads no TensorFlow."""
    found = []
    for root in modules.values():
        if root.room and root.room not in LIGHT_ROOMS:
            continue
        pending, seen = [root.name], set()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            if "." in name:
                pending.append(name.rpartition(".")[0])  # Python runs the package's file first
            for imported in modules[name].imports if name in modules else ():
                target = resolve(imported.target, modules)
                if not imported.runs_on_import:
                    continue
                if imported.target.split(".")[0] in HEAVY or target == f"{PACKAGE}.compat":
                    place = modules[name].at(imported.line)
                    found.append(f"{root.name} loads {imported.target} at {place}")
                elif target is not None:
                    pending.append(target)
    return found


def keras_violations(modules: Modules) -> list[str]:
    """(e) One file picks Keras; nothing reaches past it."""
    found = []
    for module in modules.values():
        if module.name == f"{PACKAGE}.compat":
            continue
        for imported in module.imports:
            if re.match(r"(tf_keras|keras|tensorflow\.(\w+\.)*keras)\b", imported.target):
                found.append(f"{module.at(imported.line)} imports {imported.target}")
        names = {"tf", "tensorflow"} | {
            alias.asname
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.name == "tensorflow" and alias.asname
        }
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr == "keras":
                written = ast.unparse(node)
                if written.split(".")[0] in names:
                    found.append(f"{module.at(node.lineno)} uses {written}")
    return found


def unsafe_violations(modules: Modules) -> list[str]:
    """(f) Nothing that is read from a file or a flag is ever executed."""
    found = []
    for module in modules.values():
        for imported in module.imports:
            if imported.target.split(".")[0] in UNSAFE_MODULES:
                found.append(f"{module.at(imported.line)} imports {imported.target}")
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            # By name alone: tf.compat's or a model's own .eval() is no such thing.
            if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                found.append(f"{module.at(node.lineno)} calls {node.func.id}")
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                    found.append(f"{module.at(node.lineno)} allows pickle")
    return found


def strategy_violations(modules: Modules, homes: Mapping[str, str]) -> list[str]:
    """(g) A strategy is named in the catalog, in its own file and as Experiment's default.

    Anywhere else the name would be a special case, which the next strategy would miss.

    Args:
      modules: the package.
      homes: the dotted name of the file that defines each strategy.
    """
    found = []
    for module in modules.values():
        if module.name == f"{PACKAGE}.catalog":
            continue
        parents = {
            child: node for node in ast.walk(module.tree) for child in ast.iter_child_nodes(node)
        }
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            if node.value not in homes or homes[node.value] == module.name:
                continue
            if isinstance(parents[node], ast.Expr):
                continue  # a docstring
            if module.name == f"{PACKAGE}.experiment" and _is_default_of("calib", node, parents):
                continue
            # 'none' is also a way not to rewind, so it counts only beside a strategy's word:
            # compared with it, looked up in it, assigned to it or passed as it.
            about_strategies = re.search(r"calib|strateg", _partner(node, parents), re.IGNORECASE)
            if node.value != "none" or about_strategies:
                found.append(f"{module.at(node.lineno)} names the strategy {node.value!r}")
    return found


def _is_default_of(field: str, node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> bool:
    """Whether a constant belongs to the value of a dataclass's `field: type = value`."""
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.AnnAssign):
            return ast.unparse(node.target) == field
    return False


def _partner(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> str:
    """What a constant is compared with, looked up in, assigned to or passed as; as source."""
    while node in parents:
        child, node = node, parents[node]
        match node:
            case ast.Compare(left=left, comparators=others):
                return " ".join(ast.unparse(one) for one in [left, *others] if one is not child)
            case ast.Subscript(value=value) if child is not value:
                return ast.unparse(value)
            case ast.keyword(arg=str(name)):
                return name
            case ast.Call(func=func):
                return ast.unparse(func)
            case ast.Assign(targets=targets):
                return " ".join(map(ast.unparse, targets))
            case ast.AnnAssign(target=target) | ast.NamedExpr(target=target):
                return ast.unparse(target)
            case ast.arguments(args=args, kwonlyargs=named, defaults=defaults, kw_defaults=others):
                # Defaults belong to the last of the positional arguments.
                pairs = [
                    *zip(args[len(args) - len(defaults) :], defaults, strict=False),
                    *zip(named, others, strict=True),
                ]
                return " ".join(one.arg for one, default in pairs if default is child)
            case ast.Match(subject=subject):
                return ast.unparse(subject)
            case ast.stmt():
                return ""
    return ""


def twin_violations(root: Path) -> list[str]:
    """(h) Every module has a test file of its name, at its place below tests/."""
    found = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        place = path.relative_to(root / PACKAGE)
        twin = Path("tests") / place.with_name(f"test_{place.name}")
        if path.name != "__init__.py" and not (root / twin).is_file():
            found.append(f"{PACKAGE}/{place} has no {twin}")
    return found


# --- the house -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house():
    return read_modules(ROOT)


@pytest.fixture(scope="module")
def house_and_tools(house):
    return {**house, **read_modules(ROOT, "tools")}


def test_the_house_is_read(house):
    assert f"{PACKAGE}.catalog" in house


def test_imports_go_down(house):
    assert floor_violations(house) == []


def test_no_import_circle(house):
    assert circles(house) == []


def test_only_commands_know_flags(house):
    assert flag_violations(house) == []


def test_no_catch_all(house):
    assert catch_all_violations(house) == []


def test_light_rooms_load_no_tensorflow(house):
    assert heavy_violations(house) == []


def test_one_place_picks_keras(house_and_tools):
    assert keras_violations(house_and_tools) == []


def test_nothing_read_is_executed(house_and_tools):
    assert unsafe_violations(house_and_tools) == []


def test_strategies_are_named_in_one_place(house):
    from lotcal_tf.catalog import STRATEGIES

    homes = {name: row.path.partition(":")[0] for name, row in STRATEGIES.items()}
    assert strategy_violations(house, homes) == []
    assert set(homes.values()) <= set(house)


def test_every_module_has_a_twin():
    assert twin_violations(ROOT) == []


# --- the rules, broken on purpose ----------------------------------------------------------------


@pytest.fixture
def build(tmp_path):
    """Writes files, by path below the package, and reads them back as modules."""

    def write(**files):
        for path, source in {"__init__": "", **files}.items():
            file = tmp_path / PACKAGE / (path.replace("__in__", "/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(source))
        return read_modules(tmp_path)

    return write


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("pruning__in__masking", "from lotcal_tf.data import splits"),
        ("pruning__in__masking", "from lotcal_tf.calibration.losses import vwcc"),
        ("calibration__in__losses", "import lotcal_tf.pruning.masking"),
        ("models__in__lenet", "def build():\n    from lotcal_tf.pruning.masked import Masked"),
        ("models__in__lenet", "from ..pruning import masking"),
        ("cli", "from lotcal_tf import data"),
        ("seeds", "from lotcal_tf.data.splits import split"),
        ("training__in__fit", "import_module('lotcal_tf.lottery.store')"),
        ("training__in__fit", "if TYPE_CHECKING:\n    from lotcal_tf.lottery.store import Store"),
        ("train", "import lotcal_tf.export"),
        ("library", "import lotcal_tf.train"),
        ("lottery__in__store", "from lotcal_tf import find_tickets"),
        ("cellar", "import os"),
        ("__init__", "from lotcal_tf.library import find_tickets"),
    ],
)
def test_floor_rule_notices(build, importer, statement):
    files = {
        "data__in__splits": "",
        "calibration__in__losses": "",
        "pruning__in__masking": "",
        "lottery__in__store": "",
        "library": "",
        "train": "",
        "export": "",
    }
    # A package's own file, so that `from lotcal_tf import data` names something.
    modules = build(data__in____init__="", **{**files, importer: statement})
    assert len(floor_violations(modules)) == 1


def test_floor_rule_allows_down_the_own_room_and_the_lazy_door(build):
    modules = build(
        __init__="""
            __version__ = "1"
            def __getattr__(name):
                from lotcal_tf import library
                return getattr(library, name)
        """,
        errors="",
        experiment="from lotcal_tf.errors import UsageError\nfrom lotcal_tf import __version__",
        data__in__noise="",
        data__in__splits="from lotcal_tf.data import noise\nfrom . import noise",
        library="from lotcal_tf.data.splits import split",
        train="import lotcal_tf.library\nfrom lotcal_tf import find_tickets",
    )
    assert floor_violations(modules) == []


def test_circle_rule_notices(build):
    modules = build(
        seeds="def draw():\n    from lotcal_tf.catalog import row",
        catalog="from lotcal_tf.errors import FieldError",
        errors="import lotcal_tf.seeds",
    )
    assert circles(modules) == [
        "lotcal_tf.catalog -> lotcal_tf.errors -> lotcal_tf.seeds -> lotcal_tf.catalog"
    ]
    assert circles(build(errors="")) == []


@pytest.mark.parametrize("statement", ["from absl import flags", "from absl.flags import FLAGS"])
def test_flag_rule_notices(build, statement):
    modules = build(data__in__splits=statement, cli=statement, train=statement)
    assert flag_violations(modules) == [f"lotcal_tf.data.splits:1 imports {_written(statement)}"]


def _written(statement):
    return next(find_imports(ast.parse(statement), "")).target


def test_catch_all_rule_notices(build):
    modules = build(data__in__utils="", common__in__seeds="", commonplace="")
    assert catch_all_violations(modules) == ["lotcal_tf.common.seeds", "lotcal_tf.data.utils"]


@pytest.mark.parametrize(
    "experiment",
    [
        "import tensorflow as tf",
        "try:\n    from tensorflow import io\nexcept ImportError:\n    pass",
        "class A:\n    import tf_keras",
        "from lotcal_tf.compat import keras",
        "from lotcal_tf.evaluation import metrics",
    ],
)
def test_heavy_rule_notices(build, experiment):
    modules = build(
        experiment=experiment,
        compat="",
        evaluation__in____init__="import tensorflow_datasets",
        evaluation__in__metrics="",
    )
    assert "lotcal_tf.experiment" in {found.split()[0] for found in heavy_violations(modules)}


def test_heavy_rule_allows_what_does_not_run(build):
    modules = build(
        cli="if TYPE_CHECKING:\n    import tensorflow as tf\ndef main():\n    import tensorflow",
        models__in__lenet="import tensorflow",
        train="def main():\n    from lotcal_tf.models import lenet",
    )
    assert heavy_violations(modules) == []


@pytest.mark.parametrize(
    "source",
    [
        "import tf_keras",
        "import keras.layers",
        "from tensorflow import keras",
        "from tensorflow.compat.v2.keras import layers",
        "import tensorflow as tf\ntf.keras.layers.Dense(1)",
        "import tensorflow as tf\ntf.compat.v1.keras.backend",
        "import tensorflow as flow\nflow.keras.Model",
    ],
)
def test_keras_rule_notices(build, source):
    assert len(keras_violations(build(compat=source, models__in__lenet=source))) == 1


def test_keras_rule_allows_the_one_place(build):
    source = "from lotcal_tf.compat import keras, tfmot\nkeras.Model\ntfmot.sparsity.keras"
    assert keras_violations(build(compat="", models__in__lenet=source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "def load():\n    import pickle",
        "from marshal import loads",
        "import shelve",
        "eval('1')",
        "exec('a = 1')",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
    ],
)
def test_unsafe_rule_notices(build, source):
    assert len(unsafe_violations(build(lottery__in__store=source))) == 1
    assert unsafe_violations(build(lottery__in__store="model.eval()")) == []


HOMES = {"none": "lotcal_tf.calibration.cross_entropy", "lwcc": "lotcal_tf.calibration.lwcc"}


@pytest.mark.parametrize(
    "source",
    [
        "if name == 'lwcc': pass",
        "dropout = {'lwcc': 0.1}",
        "if experiment.calib == 'none': pass",
        "if strategy in ('none', other): pass",
        "STRATEGIES['none']",
        "STRATEGIES.get('none')",
        "DEFAULT_CALIB = 'none'",
        "weights_of_strategy = {'none': 0}",
        "Experiment(calib='none')",
        "def run(seed, calib='none', *, rewind='none'): pass",
        "match calib:\n    case 'none': pass",
    ],
)
def test_strategy_rule_notices(build, source):
    modules = build(catalog=source, training__in__fit=source)
    assert len(strategy_violations(modules, HOMES)) == 1


def test_strategy_rule_allows_home_default_docstring_and_rewinding(build):
    modules = build(
        experiment="class Experiment:\n    calib: str = field(default='lwcc')",
        calibration__in__lwcc="NAME = 'lwcc'",
        training__in__fit="def fit():\n    'lwcc'\n    return Experiment(rewind='none')",
        pruning__in__rewind="if rewind == 'none': pass",
    )
    assert strategy_violations(modules, HOMES) == []


def test_twin_rule_notices(build, tmp_path):
    build(train="", data__in__splits="", data__in____init__="")
    twin = tmp_path / "tests" / "data" / "test_splits.py"
    twin.parent.mkdir(parents=True)
    twin.touch()
    assert twin_violations(tmp_path) == ["lotcal_tf/train.py has no tests/test_train.py"]

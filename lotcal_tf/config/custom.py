"""Custom strategies and criteria: classes from outside the package, and digests of their source code.

The source is part of a run's identity: after an edit, the same command starts another run instead of
continuing the old one with different code.
"""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from lotcal_tf.errors import FieldError, LotcalError

_PACKAGE = __name__.partition(".")[0]


def name_of(found: type) -> str:
    """The name of a class on the command line and in records: `module:Class`."""
    return f"{found.__module__}:{found.__qualname__}"


def is_own(found: type) -> bool:
    """Whether a class is the user's, i.e. not of this package."""
    return found.__module__.partition(".")[0] != _PACKAGE


@contextlib.contextmanager
def calling(found: type, field: str, name: str, method: str) -> Iterator[None]:
    """Inside it, an error in a method of the user's class becomes one line that says where it is.

    Args:
      found: the class.
      field, name: the field that names it and the value, for the message.
      method: the name of the method.

    Raises:
      FieldError: the method raised something else than an error of this package.
    """
    try:
        yield
    except (LotcalError, MemoryError):
        raise
    except Exception as error:  # The code of the user can raise anything.
        if not is_own(found):
            raise
        raise FieldError(field, name, f"its method {method} {_raised(error)}") from error


def _raised(error: BaseException) -> str:
    """What custom code raised and where, for a message: `raises KeyError: 'x' (mine.py, line 12)`.

    Args:
      error: from Python code, or from code that TensorFlow traced, whose messages have the source lines.
    """
    *above, last = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    traced = re.findall(r'^File "(.+)", line (\d+)', "\n".join(above), re.MULTILINE)
    found = traced or [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    places = [f" ({Path(file).name}, line {line})" for file, line in found if _is_local(Path(file))]
    what = last if traced else f"{type(error).__name__}: {last}"
    return f"raises {what}{places[-1] if places else ''}"


def load_class(field: str, name: str) -> Any:
    """Imports the class with the name `module:Class`.

    Args:
      field: the field that names it, for the message.
      name: `module:Class`; the module is found as by Python's `import`.

    Raises:
      FieldError: it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    # `python -m` puts the working directory on the path; a console script does not.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, SyntaxError) as error:
        hint = f"; write {module[:-3]}:{attribute}" if module.endswith(".py") else ""
        raise FieldError(field, name, f"cannot be imported: {error}{hint}") from error
    return found


def check_custom_objects(text: str | None) -> None:
    """Checks the value of the flag `custom_objects`, without importing anything.

    Raises:
      FieldError: it is not a list of `module:Class`.
    """
    for name in (text or "").split(",") if text is not None else ():
        module, _, attribute = name.strip().partition(":")
        parts = [*module.split("."), *attribute.split(".")]
        if not all(part.isidentifier() for part in parts):
            problem = "write module:Class, and commas between several: layers:Twice,layers:swish"
            raise FieldError("custom_objects", text, problem)


def load_custom_objects(text: str | None) -> dict[str, Any]:
    """Imports the classes and functions that the flag `custom_objects` names; empty for None.

    Returns:
      The objects by their own names, under which configurations of models refer to them.

    Raises:
      FieldError: one cannot be imported.
    """
    names = [name.strip() for name in text.split(",")] if text is not None else []
    found = [load_class("custom_objects", name) for name in names]
    return {getattr(one, "__name__", name): one for one, name in zip(found, names, strict=True)}


def source_digest(field: str, found: type) -> str:
    """A digest of a custom class's source: its module and the local modules that this imports.

    Local are all modules outside the standard library, installed packages and this package. A class
    of a script or notebook (`__main__`) counts with its own source instead of the whole file.

    Args:
      field: the field that names the class, for the message.
      found: the class.

    Returns:
      Ten hexadecimal digits; empty for a class of this package.

    Raises:
      FieldError: the source cannot be read.
    """
    name = found.__module__
    if not is_own(found):
        return ""
    sources = _sources_of_script(field, found) if name == "__main__" else sources_of(name)
    digest = hashlib.sha256()
    for module in sorted(sources):
        digest.update(f"{module}\0{sources[module]}\0".encode())
    return digest.hexdigest()[:10]


def _sources_of_script(field: str, found: type) -> dict[str, str]:
    """The source of a class in `__main__`, and of the local modules that its script imports."""
    try:
        sources = {"__main__": inspect.getsource(found)}
    except (OSError, TypeError) as error:
        problem = "its source cannot be read, and a run must record it: save the class in a file"
        raise FieldError(field, name_of(found), problem) from error
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None:
        for name in _imports(ast.parse(Path(script).read_text(encoding="utf-8")), ""):
            sources |= sources_of(name)
    return sources


def sources_of(first: str) -> dict[str, str]:
    """The source of a module and of the local modules it imports, by name."""
    found: dict[str, str] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        path = None if name in found else _local_file(name)
        if path is None:
            continue
        found[name] = path.read_text(encoding="utf-8")
        parent = name.rpartition(".")[0]
        package = name if path.name == "__init__.py" else parent
        waiting += [parent] if parent else []
        waiting += _imports(ast.parse(found[name]), package)
    return found


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The names of all modules that may be imported; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _local_file(name: str) -> Path | None:
    """The file of a local module; None for a library's module, or if the name is not that of a module."""
    top = name.partition(".")[0]
    if top in {"", _PACKAGE, *sys.stdlib_module_names}:
        return None
    # A library's package is recognised before anything in it is looked for, which would import it.
    outer = _file(top)
    path = None if outer is not None and _is_installed(outer) else _file(name)
    return None if path is None or _is_installed(path) else path


def _file(name: str) -> Path | None:
    module: ModuleType | None = sys.modules.get(name)
    try:
        spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    known = spec is not None and spec.origin and spec.origin.endswith(".py")
    return Path(str(spec.origin)).resolve() if spec is not None and known else None


def _is_local(path: Path) -> bool:
    """Whether a source file is the user's: it exists, and is not of this package or a library."""
    package = Path(__file__).parents[1]
    return path.is_file() and not path.is_relative_to(package) and not _is_installed(path)


@functools.cache
def _is_installed(path: Path) -> bool:
    places = [*site.getsitepackages(), site.getusersitepackages()]
    places += [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return any(path.is_relative_to(Path(place).resolve()) for place in places)

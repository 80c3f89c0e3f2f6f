"""Reading `.keras` files of Keras 3 and of tf_keras, without running code from them.

The configuration in a file is checked before Keras sees it. Python code (Lambda), classes that are
not registered and functions of TensorFlow that do more than compute are refused, each by the name of
its layer.
"""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.compat import keras, keras3
from lotcal_tf.errors import UsageError
from lotcal_tf.models.safe_config import is_bytecode

# Parts of Keras whose classes a configuration may name.
_MODULES = re.compile(
    r"tensorflow\.python\.ops\.init_ops_v2|(tf_)?keras(\.(layers|initializers|regularizers|constraints|activations|mixed_precision"
    r"|dtype_policies|src\.(engine|models|layers|ops|initializers|regularizers|constraints"
    r"|activations|mixed_precision|dtype_policies))(\..*)?)?"
)
# Layers that hold code, or another program's file.
_WITH_CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
_WITH_CODE |= {"ClassMethod", "InstanceMethod", "InstanceProperty"}
# Functions of TensorFlow that a tf_keras model may call: those that only compute.
_PURE = re.compile(
    r"(compat\.v1\.)?((math|nn|linalg|signal|__operators__)\.\w+|image\.(resize|flip_\w+)|abs|argmax"
    r"|broadcast_to|cast|clip_by_value|concat|cumsum|einsum|expand_dims|fill|gather|gather_nd|identity"
    r"|maximum|minimum|one_hot|ones_like|pad|range|repeat|reshape|reverse|roll|shape|slice|split"
    r"|squeeze|stack|stop_gradient|strided_slice|tile|transpose|unstack|where|zeros_like)"
)


def read_model(path: Path, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model in a `.keras` file: of Keras 3 or of tf_keras, whichever wrote the file.

    Args:
      path: the file.
      custom_objects: classes of custom layers by name, unless they are registered. Those of the
        Keras that did not write the file are passed over.

    Raises:
      UsageError: it is not a `.keras` file, is damaged, or holds something that would run code or
        that is not registered.
    """
    try:
        with zipfile.ZipFile(path) as file:
            config = json.loads(file.read("config.json"))
            version = json.loads(file.read("metadata.json")).get("keras_version", "")
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} cannot be loaded as a Keras file: {line}") from error
    found = keras3() if _of_keras3(version, config) else keras
    custom = {
        name: own
        for name, own in (custom_objects or {}).items()
        if not isinstance(own, type) or issubclass(own, keras.layers.Layer) == (found is keras)
    }
    try:
        config.pop("compile_config", None)  # is not loaded
        _check(config, path, found, custom)
        return found.models.load_model(path, compile=False, safe_mode=True, custom_objects=custom)
    except UsageError:
        raise
    except Exception as error:
        # A damaged file can raise any exception in the loader.
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} cannot be loaded as a Keras file: {line}") from error


def _of_keras3(version: object, config: Any) -> bool:
    """Whether Keras 3 wrote a file, by its version, or by the policies that only it writes."""
    if isinstance(version, str) and version[:1].isdigit():
        return int(version.partition(".")[0]) >= 3
    return "DTypePolicy" in json.dumps(config)


def _check(config: Any, path: Path, found: Any, custom: Mapping[str, Any]) -> None:
    """Raises UsageError for a part of a configuration that must not be loaded."""
    for layer, part in _parts(config, "the model"):
        kind, inner = str(part.get("class_name", "")), part.get("config")
        if kind in _WITH_CODE or "__passive_serialization__" in part or is_bytecode(part):
            raise _refusal(path, layer, kind, "holds code, which is not loaded: use a layer class")
        if kind in ("TFOpLambda", "SlicingOpLambda"):
            function = inner.get("function") if isinstance(inner, Mapping) else None
            if not _PURE.fullmatch(str(function)):
                problem = f"calls tf.{function}, which is not loaded: use a layer"
                raise _refusal(path, layer, kind, problem)
        elif not kind or kind.startswith("__"):
            continue  # a dictionary of arguments; an array, a tensor of the graph or a shape
        elif not _known(part, found, custom):
            name = inner if kind == "function" else kind
            raise _refusal(
                path, layer, str(name), "is not registered: import the module that registers it "
                f"(keras.saving.register_keras_serializable), or pass custom_objects={{{name!r}: …}}",
            )  # fmt: skip


def _known(part: Mapping[str, Any], found: Any, custom: Mapping[str, Any]) -> bool:
    """Whether a class or function is part of Keras, registered, or passed by the caller."""
    kind, module = str(part["class_name"]), str(part.get("module"))
    name = str(part.get("config")) if kind == "function" else kind
    lookup = found.saving.get_registered_object
    if any(lookup(str(key), custom) for key in (part.get("registered_name"), name) if key):
        return True
    return kind != "function" and bool(_MODULES.fullmatch(module))


def _parts(part: Any, layer: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dictionary in a configuration, with the layer that it is in, in words."""
    if isinstance(part, list):
        for item in part:
            yield from _parts(item, layer)
    elif isinstance(part, Mapping):
        inner = part.get("config")
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            layer = f"layer {inner['name']!r}"
        yield layer, part
        for value in part.values():
            yield from _parts(value, layer)


def _refusal(path: Path, layer: str, kind: str, problem: str) -> UsageError:
    return UsageError(f"{path}: {layer} ({kind or 'code'}) {problem}")

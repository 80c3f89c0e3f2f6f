"""Programs of XLA that functions of one process share.

XLA keeps every program it has compiled until the process ends, 3 to 12 MB each, also when the function
is gone. So a function that is equal to an earlier one runs the program of the earlier one: a second
search in one process compiles nothing new.
"""

import hashlib
import weakref
from typing import Any

from tensorflow.python.eager.polymorphic_function.atomic_function import AtomicFunction
from tensorflow.python.framework import config

# The functions that XLA has compiled, by the digests of their graphs.
_compiled: dict[str, AtomicFunction] = {}
# The compiled function that each traced function runs.
_runs: "weakref.WeakKeyDictionary[Any, AtomicFunction]" = weakref.WeakKeyDictionary()


def call(function: Any, *args: Any) -> Any:
    """Calls a `tf.function`. If XLA compiles it, it shares its program with functions of equal graphs.

    Everything that a program depends on is in its graph: the operations with their attributes and
    constants, and what they call. Variables are not part of it: a program receives those of the
    function that is called. So the results are the same to the bit.

    Args:
      function: the `tf.function`. Gradients cannot be taken through it.
      *args: tensors, or nested tuples and dictionaries of tensors.
    """
    if not function._jit_compile:
        return function(*args)
    traced = function.get_concrete_function(*args)
    program = _runs.get(traced)
    if program is None:
        own = traced.inference_fn
        program = _runs[traced] = _compiled.setdefault(digest_of(own), _without_graph(own))
    kind = traced.function_type
    flat = [*kind.unpack_inputs(kind.bind(*args)), *traced.captured_inputs]
    return kind.pack_output(program.call_flat(*flat))


def _without_graph(function: AtomicFunction) -> AtomicFunction:
    """The same function of the runtime, without its Python graph, which refers to variables."""
    children = [_without_graph(child) for child in function.children]
    return AtomicFunction(function.name, function._bound_context, function.function_type, children)


def digest_of(function: AtomicFunction) -> str:
    """A digest of a function's graph and of all functions that it calls.

    TensorFlow numbers the names of functions and their arguments over the whole process. They are
    numbered here from 0, so that equal graphs have equal digests.
    """
    settings = config.is_op_determinism_enabled(), config.tensor_float_32_execution_enabled()
    digest = hashlib.sha256(repr(settings).encode())
    name = function.name.decode()
    names, waiting = {name: "0"}, [name]
    for name in waiting:  # `waiting` grows by the functions that these call.
        definition = function._bound_context.get_function_def(name)
        _renumber(definition, names)
        waiting += list(names)[len(waiting) :]
        digest.update(definition.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _renumber(definition: Any, names: dict[str, str]) -> None:
    """Renames a `FunctionDef`, its arguments and the functions that it calls, in place.

    Args:
      definition: the function.
      names: the new names of functions by their old ones. Those that it calls are added.
    """
    definition.signature.name = names[definition.signature.name]
    arguments = {}
    for place, argument in enumerate(definition.signature.input_arg):
        arguments[argument.name] = f"#{place}"
        argument.name = f"#{place}"
    for result, source in list(definition.ret.items()):
        definition.ret[result] = arguments.get(source, source)
    for node in definition.node_def:
        node.input[:] = [arguments.get(source, source) for source in node.input]
        # Numbered too, and read only where a gradient is taken.
        node.attr.pop("_gradient_op_type", None)
        for _, attribute in sorted(node.attr.items()):
            for called in (attribute.func, *attribute.list.func):
                if called.name:
                    called.name = names.setdefault(called.name, str(len(names)))


def compiled() -> int:
    """The number of different programs that XLA has compiled for `call` in this process."""
    return len(_compiled)

"""Reading `.keras` and `.h5` files of Keras 3 and of tf_keras, without running code from them.

The configuration in a file is checked before Keras sees it, see `safe_config`, and so are the sizes that
the file declares. The model is built from that configuration; optimizers, losses and metrics are left
out. No file in an archive is unpacked.
"""

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import h5py

from lotcal_tf.compat import keras, keras3
from lotcal_tf.errors import UsageError, first_line
from lotcal_tf.models.safe_build import no_more_variables_than
from lotcal_tf.models.safe_config import check_config

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LARGEST_CONFIG = 1 << 26  # bytes
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_model(path: Path, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model in a `.keras` or `.h5` file: of Keras 3 or of tf_keras, whichever wrote the file.

    Args:
      path: the file.
      custom_objects: classes of custom layers by name, unless they are registered. Those of the
        Keras that did not write the file are passed over.

    Raises:
      UsageError: it is not such a file, is damaged, or holds something that would run code, that
        refers to another file, or that is not registered.
    """
    try:
        read = _read_hdf5 if path.suffix == ".h5" else _read_archive
        return read(path, custom_objects or {})
    except UsageError:
        raise
    except Exception as error:
        # A damaged file can raise any exception in the loader.
        line = first_line(error)
        raise UsageError(f"{path} cannot be loaded as a Keras file: {line}") from error


def _read_archive(path: Path, custom_objects: Mapping[str, Any]) -> Any:
    if _begins(path, _HDF5):
        raise UsageError(
            f"{path} cannot be loaded as a Keras file: it is an HDF5 file; rename it to .h5"
        )
    with zipfile.ZipFile(path) as archive:
        size = _check_entries(archive, path)
        config = _json(archive.read(_CONFIG), path)
        version = _json(archive.read(_METADATA), path).get("keras_version", "")
        with archive.open(_WEIGHTS) as weights:
            check_hdf5(weights, size, path)
    found = keras3() if _of_keras3(version, config) else keras
    custom = _fitting(custom_objects, found)
    config = check_config(config, of=found, custom=custom, file=str(path))
    with no_more_variables_than(size, str(path)):
        model = found.saving.deserialize_keras_object(config, custom, safe_mode=True)
    if not isinstance(model, found.Model):
        raise UsageError(f"{path} does not hold a model")
    # Of the archive, this reads the weights only.
    model.load_weights(path)
    return model


def _check_entries(archive: zipfile.ZipFile, path: Path) -> int:
    """Checks the names and sizes of the entries of an archive; returns the size of the weights.

    Raises:
      UsageError: there are other entries than a model needs, or sizes that cannot be true.
    """
    entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
    others = entries.keys() - {_CONFIG, _METADATA, _WEIGHTS}
    if others or len(archive.infolist()) > len(entries) + 1:
        name = next(iter(others), "a repeated entry")
        raise UsageError(
            f"{path} holds {name!r}, which is not read: only {_CONFIG}, {_METADATA} and {_WEIGHTS} "
            "are; leave vocabularies and other assets out of the model"
        )
    for name in (_CONFIG, _METADATA):
        if entries[name].file_size > _LARGEST_CONFIG:
            raise UsageError(f"{path} holds a {name} of {entries[name].file_size:,} bytes")
    weights, whole = entries[_WEIGHTS], path.stat().st_size
    if weights.compress_type != zipfile.ZIP_STORED or weights.file_size > whole:
        raise UsageError(
            f"{path} holds compressed weights, or gives a wrong size for them: save the model with Keras"
        )
    return weights.file_size


def _read_hdf5(path: Path, custom_objects: Mapping[str, Any]) -> Any:
    if not _begins(path, _HDF5):
        raise UsageError(f"{path} is not an HDF5 file")
    size = path.stat().st_size
    with path.open("rb") as content:
        check_hdf5(content, size, path)
        with h5py.File(content, "r") as file:
            if "model_config" not in file.attrs:
                raise UsageError(f"{path} holds weights without a model: save it by model.save")
            config = _json(file.attrs["model_config"], path)
            version = str(file.attrs.get("keras_version", ""))
    found = keras3() if _of_keras3(version, config) else keras
    custom = _fitting(custom_objects, found)
    kept = check_config(config, of=found, custom=custom, file=str(path))
    with no_more_variables_than(size, str(path)):
        if found is keras:
            model = keras.models.model_from_json(json.dumps(kept), custom)
            model.load_weights(path)
            return model
        if kept != config:
            raise UsageError(f"{path} holds a compiled model inside the model: save it as .keras")
        # Keras 3 has no other function for the names of classes in such a file.
        return found.models.load_model(path, custom, compile=False, safe_mode=True)


def check_hdf5(content: IO[bytes], size: int, path: Path) -> None:
    """Checks that an HDF5 file refers to no other file, and to no more data than it holds.

    Args:
      content: the file, open for reading.
      size: its size in bytes.
      path: the file that holds it, for messages.

    Raises:
      UsageError: it has links to other files, or data sets that are compressed, lie elsewhere or are
        larger than the file.
    """
    with h5py.File(content, "r") as file:
        total, waiting, seen = 0, [file["/"]], set()
        while waiting:
            group = waiting.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise UsageError(f"{path} holds a link, {name!r}, which is not followed")
                part = group[name]
                place = h5py.h5o.get_info(part.id).addr
                if isinstance(part, h5py.Group) and place not in seen:
                    seen.add(place)
                    waiting.append(part)
                elif isinstance(part, h5py.Dataset):
                    if part.external or part.is_virtual:
                        raise UsageError(f"{path} refers to data in another file, {name!r}")
                    total += math.prod(part.shape or (0,)) * part.dtype.itemsize
            if total > size:
                raise UsageError(
                    f"{path} declares {total:,} bytes of weights in {size:,} bytes: it is damaged, or "
                    "compressed; save the model with Keras"
                )


def _begins(path: Path, signature: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def _json(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise UsageError(f"{path}: the model's configuration is nested too deeply") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: the model's configuration is not a JSON object")
    return found


def _fitting(custom_objects: Mapping[str, Any], found: Any) -> dict[str, Any]:
    """The custom objects that belong to the Keras that wrote a file."""
    return {
        name: own
        for name, own in custom_objects.items()
        if not isinstance(own, type) or issubclass(own, keras.layers.Layer) == (found is keras)
    }


def _of_keras3(version: object, config: Any) -> bool:
    """Whether Keras 3 wrote a file, by its version, or by the policies that only it writes."""
    if isinstance(version, str) and version[:1].isdigit():
        return int(version.partition(".")[0]) >= 3
    return "DTypePolicy" in json.dumps(config)

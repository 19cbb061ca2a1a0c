"""Reads the tensors of a ``.pt`` file without running any code that the file names.

An official YOLOv5-Face checkpoint is a pickle of whole model objects. It names the classes of the repository that
trained it, and the standard unpickler would run any function that the file names. Here every name must be on a list
of allowed names: tensors are rebuilt by functions of this module, network classes become inert placeholders that only
hold attributes, and any other name is an error.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emoface.errors import WeightsError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_INERT_PACKAGES = ("models", "utils", "torch.nn", "numpy", "pathlib", "_codecs")
_MODEL_KEYS = ("ema", "model", "state_dict", "model_state_dict")
_PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): tuple,
}
_MAX_MODULES = 100_000
"""Modules of a checkpoint that are looked through: a file can say that each module holds another one twice."""
_MAX_DEPTH = 100
_STORES = ("PUT", "BINPUT", "LONG_BINPUT")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Reads the state dict in a ``.pt`` or ``.pth`` file.

    From a training checkpoint, the averaged weights (``ema``) are preferred to the last weights (``model``). Both of
    torch's file formats are read; the prefix ``module.`` of data-parallel training is removed.

    Args:
        path: A plain state dict or an official checkpoint.

    Returns:
        The tensors by their names in the network, in the number type that the file stores.

    Raises:
        WeightsError: The file is damaged, holds no weights, or names anything but tensors and networks.
    """
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        named = dict(_named_tensors(_weights_in(content)))
    except (pickle.UnpicklingError, EOFError, OSError, LookupError, RuntimeError, MemoryError) as error:
        raise _damaged(path, error) from error
    except (TypeError, ValueError, AttributeError, OverflowError, NotImplementedError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    if not named:
        raise WeightsError(f"{path}: holds no tensors, expected a state dict or a checkpoint with 'model' or 'ema'")
    return {name.removeprefix("module."): tensor for name, tensor in named.items()}


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: not a readable torch file ({error or type(error).__name__}); fetch it again")


class _Inert:
    """Placeholder for an object of a network class: holds the attributes in the file and runs none of the class."""

    attributes: dict[str, Any]

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        made = super().__new__(cls)  # a pickle may leave out __init__
        made.attributes = {}
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """Accepts the arguments of any class."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    def __reduce__(self) -> Any:
        raise TypeError("a stand-in cannot be pickled")


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors, plain containers and inert placeholders; every other name is an error."""

    def __init__(self, stream: io.BufferedIOBase, path: Path, load_storage: Callable[[Any], Tensor]) -> None:
        super().__init__(stream, encoding="latin1")
        self._path = path
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        """Returns the object to use for a class or function that the file names."""
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if (module, name) in _WORDS:
            return _Word
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch._utils" and name in _REBUILDERS:
            return _REBUILDERS[name]
        if any(module == package or module.startswith(f"{package}.") for package in _INERT_PACKAGES):
            return _Inert
        raise WeightsError(
            f"{self._path}: asks for {module}.{name}, which is neither a tensor nor part of a network; "
            "nothing of it was run. Use a file from a source that you trust"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Returns the storage of a tensor; or a class, which old files store together with its source text."""
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]
        return self._load_storage(pid)


class _Rebuilt:
    """Rebuilds a tensor from its storage; a class, so that a pickle cannot change the state of what it calls."""

    def __new__(cls, storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:  # type: ignore[misc]
        return storage.as_strided(tuple(size), tuple(stride), offset)

    def __setstate__(self, _: Any) -> None:
        raise TypeError("a function cannot be given a state")


class _Parameter(_Rebuilt):
    """Rebuilds a parameter; only its tensor is kept."""

    def __new__(cls, tensor: Tensor, *_: Any) -> Tensor:  # type: ignore[misc]
        if not isinstance(tensor, Tensor):
            raise TypeError(f"a parameter holds {type(tensor).__name__}, expected a tensor")
        return tensor


class _Word(str):
    """A device or a layout, as text; texts of other values could be of any length."""

    __slots__ = ()

    def __new__(cls, text: Any, *_: Any) -> _Word:
        if not isinstance(text, str):
            raise TypeError(f"a name is a {type(text).__name__}, expected text")
        return super().__new__(cls, text)


_WORDS = (("torch.serialization", "_get_layout"), ("torch", "device"))
_REBUILDERS = {
    "_rebuild_tensor": _Rebuilt,
    "_rebuild_tensor_v2": _Rebuilt,
    "_rebuild_parameter": _Parameter,
    "_rebuild_parameter_with_state": _Parameter,
}


def _unpickle(stream: io.BufferedReader | io.BytesIO, path: Path, load_storage: Callable[[Any], Tensor]) -> Any:
    """Unpickles one object, after a look at the numbers under which it stores its parts.

    The unpickler makes a table as long as the highest number, so a few bytes could take 32 GiB.
    """
    start = stream.tell()
    numbers = [arg for opcode, arg, _ in pickletools.genops(stream) if opcode.name in _STORES]
    highest = max((number for number in numbers if isinstance(number, int)), default=0)
    n_bytes = stream.tell() - start
    if highest > n_bytes:
        raise WeightsError(f"{path}: a pickle of {n_bytes} bytes claims {highest} parts; fetch the file again")
    stream.seek(start)
    return _Unpickler(stream, path, load_storage).load()


def _read_zip(path: Path) -> Any:
    """Reads the format of torch 1.6 and later: a zip with ``data.pkl`` and one file per storage."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"{path}: a zip without one data.pkl, expected a file written by torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in archive.namelist():
            raise WeightsError(f"{path}: a TorchScript file, which holds code; expected a state dict or checkpoint")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise WeightsError(f"{path}: a compressed zip, expected a file written by torch.save")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise WeightsError(f"{path}: written on a big-endian machine; save it anew on another")
        storages: dict[str, Tensor] = {}

        def load_storage(pid: Any) -> Tensor:
            _, dtype, key, _, n_values = pid
            _check_storage(dtype, key, n_values)
            if key not in storages:
                data = bytearray(archive.read(f"{folder}data/{key}"))
                storages[key] = _to_storage(path, data, dtype, n_values)
            return storages[key]

        with archive.open(pickles[0]) as stream:
            return _unpickle(io.BytesIO(stream.read()), path, load_storage)


def _check_storage(dtype: Any, key: Any, n_values: Any) -> None:
    if not (isinstance(dtype, torch.dtype) and isinstance(key, str) and isinstance(n_values, int) and n_values >= 0):
        raise TypeError("the description of a storage has values of other types")


def _to_storage(path: Path, data: bytearray, dtype: torch.dtype, n_values: int) -> Tensor:
    n_bytes = n_values * dtype.itemsize
    if len(data) < n_bytes:
        raise WeightsError(f"{path}: a tensor has {len(data)} bytes, expected {n_bytes}; fetch the file again")
    return torch.frombuffer(data, dtype=dtype, count=n_values) if n_values else torch.empty(0, dtype=dtype)


def _read_legacy(path: Path) -> Any:
    """Reads the format before torch 1.6: several pickles one after the other, then the values of all storages."""
    with path.open("rb") as stream:

        def no_storage(_: Any) -> Tensor:
            raise WeightsError(f"{path}: not a file written by torch.save")

        def load_plain() -> Any:
            return _unpickle(stream, path, no_storage)

        if load_plain() != _LEGACY_MAGIC or load_plain() != _LEGACY_PROTOCOL:
            raise WeightsError(f"{path}: not a file written by torch.save")
        load_plain()  # byte order and type sizes of the machine that wrote the file
        storages: dict[str, Tensor] = {}
        file_bytes = path.stat().st_size

        def load_storage(pid: Any) -> Tensor:
            _, dtype, key, _, n_values, *view = pid
            _check_storage(dtype, key, n_values)
            if view and view[0] is not None:
                raise WeightsError(f"{path}: storage views of torch 0.1 are not read; save the file anew")
            if n_values * dtype.itemsize > file_bytes:
                raise WeightsError(f"{path}: a tensor claims more bytes than the file has; fetch it again")
            return storages.setdefault(key, torch.empty(n_values, dtype=dtype))

        content = _unpickle(stream, path, load_storage)
        for key in load_plain():
            storage = storages[key]
            stream.seek(8, io.SEEK_CUR)  # the number of values, known already
            data = bytearray(stream.read(storage.numel() * storage.dtype.itemsize))
            storage.copy_(_to_storage(path, data, storage.dtype, storage.numel()))
        return content


def _weights_in(content: Any) -> Any:
    """Returns the part of a checkpoint that holds the weights."""
    if isinstance(content, Mapping):
        for key in _MODEL_KEYS:
            if isinstance(content.get(key), _Inert | Mapping):
                return content[key]
    return content


def _named_tensors(holder: Any) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a state dict, or of placeholders of modules, named as ``Module.state_dict`` names them."""
    waiting, n_modules = [("", holder)], 0
    while waiting:
        prefix, holder = waiting.pop()
        n_modules += 1
        if n_modules > _MAX_MODULES or prefix.count(".") > _MAX_DEPTH:
            raise ValueError("modules without end")
        if isinstance(holder, _Inert):
            for kind in ("_parameters", "_buffers"):
                yield from _tensors_in(holder.attributes.get(kind), prefix)
            children = (holder.attributes.get("_modules") or {}).items()
            waiting += [(f"{prefix}{name}.", child) for name, child in children if isinstance(name, str)][::-1]
        else:
            yield from _tensors_in(holder, prefix)


def _tensors_in(holder: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(holder, Mapping):
        for key, value in holder.items():
            if isinstance(key, str) and isinstance(value, Tensor):
                yield prefix + key, value

"""The scalar facts at the head of a GGUF file, read in a millisecond.

The `gguf` package's reader also builds the vocabulary and the tensor table, which takes seconds. Converters write
a model's own fields before those of its tokenizer, so reading stops there.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from pathlib import Path
from typing import BinaryIO

Scalar = int | float | bool | str
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY, _LONGEST_STRING = 8, 9, 1 << 20


def read(path: Path) -> dict[str, Scalar]:
    """Fields by name, such as `general.architecture`; raises ValueError when it is not a GGUF file."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file")
        _version, _tensors, count = _unpack(file, "<IQQ")
        fields: dict[str, Scalar] = {}
        for _ in range(count):
            name = _string(file)
            if name.startswith("tokenizer."):
                break
            (kind,) = _unpack(file, "<I")
            if kind == _ARRAY:
                kind, length = _unpack(file, "<IQ")
                for _ in range(length):
                    _scalar(file, kind)
            else:
                fields[name] = _scalar(file, kind)
        return fields


def _scalar(file: BinaryIO, kind: int) -> Scalar:
    if kind == _STRING:
        return _string(file)
    if kind not in _FORMATS:
        raise ValueError(f"{file.name} is damaged")
    (value,) = _unpack(file, _FORMATS[kind])
    return value


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    data = file.read(struct.calcsize(form))
    try:
        return struct.unpack(form, data)
    except struct.error as error:
        raise ValueError(f"{file.name} is cut short") from error


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    if length > _LONGEST_STRING:
        raise ValueError(f"{file.name} is damaged")
    return file.read(length).decode(errors="replace")

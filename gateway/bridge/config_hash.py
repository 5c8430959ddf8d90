"""The config that LangServe's clients put into a path: `/c/{config_hash}/`, LZString over JSON in its URI alphabet."""

from typing import Any

from langserve.lzstring import LZString

from gateway.bridge import untrusted
from gateway.errors import UnprocessableInput

# LZString is LZ78: n codes inflate to n²/2 characters at most. A path segment of 2 KiB holds about 1,300 codes, which
# is under 1 MB, so the bound on the segment is one on the work as well.
MAX_HASH_CHARS = 2_048
MAX_CONFIG_CHARS = 16_384


def decode(segment: str) -> dict[str, Any]:
    """The config in a path segment.

    Raises:
        UnprocessableInput: too long, before or after inflating, or not a config.
    """
    if len(segment) > MAX_HASH_CHARS:
        raise UnprocessableInput(f"The config hash is longer than {MAX_HASH_CHARS} characters.", param="config_hash")
    try:
        text = LZString.decompressFromEncodedURIComponent(segment)  # type: ignore[no-untyped-call]
    except (KeyError, IndexError, ValueError, TypeError, UnboundLocalError) as error:  # its ways to say no
        raise UnprocessableInput("The config hash is not LZString.", param="config_hash") from error
    if not text:
        raise UnprocessableInput("The config hash is not LZString.", param="config_hash")
    if len(text) > MAX_CONFIG_CHARS:
        raise UnprocessableInput(f"The config is longer than {MAX_CONFIG_CHARS} characters.", param="config_hash")
    value = untrusted.loads(text.encode(errors="surrogatepass"), "config hash", "config_hash")
    if not isinstance(value, dict):
        raise UnprocessableInput("The config hash does not hold a JSON object.", param="config_hash")
    return value

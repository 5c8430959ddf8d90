"""What an answer has used, as the engine tells it.

Source: https://platform.openai.com/docs/api-reference/chat/object#chat/object-usage
"""

import re
from typing import NamedTuple

_NAME = b'"usage"'
_COUNT = re.compile(rb'"(prompt_tokens|completion_tokens|cached_tokens)"\s*:\s*(\d{1,15})\b')


class Usage(NamedTuple):
    """Tokens. `cached` are those of the prompt that the engine did not have to read again.

    `model` is who answered, where it was another than the one that was asked.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    model: str | None = None

    @classmethod
    def find(cls, body: bytes) -> "Usage | None":
        """From the bytes of an answer, without parsing it; None where there is none.

        Inside a JSON string the quotes would be escaped, so no content can pretend to be it.
        """
        at = body.rfind(_NAME)
        if at < 0:
            return None
        counts = {name: int(count) for name, count in _COUNT.findall(body, at)}
        prompt, completion = counts.get(b"prompt_tokens", 0), counts.get(b"completion_tokens", 0)
        return cls(prompt, completion, counts.get(b"cached_tokens", 0))

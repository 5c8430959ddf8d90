"""What an answer has used, as the engine tells it.

Source: https://platform.openai.com/docs/api-reference/chat/object#chat/object-usage
"""

from typing import NamedTuple

# Of a number and what stands before it: no engine can make work of it.
_MOST_BYTES = 40
# More than any answer has, and so few that Redis, which counts to 2 ** 63, can add up what an engine makes up.
_MOST_TOKENS = 10**10


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
        """From the bytes of an answer, without parsing it; None where there is none, or it is null.

        Inside a JSON string the quotes would be escaped, so no content can pretend to be it.
        """
        at = body.rfind(b'"usage"')
        if at < 0:
            return None
        prompt, completion = _count(body, b'"prompt_tokens"', at), _count(body, b'"completion_tokens"', at)
        if prompt < 0 and completion < 0:
            return None
        return cls(max(prompt, 0), max(completion, 0), max(_count(body, b'"cached_tokens"', at), 0))


def _count(body: bytes, name: bytes, at: int) -> int:
    """The number under a name, the first from `at` on, at most _MOST_TOKENS; -1 where there is none.

    Digit by digit: compiled, that takes half of a regular expression's time.
    """
    found = body.find(name, at)
    if found < 0:
        return -1
    at = found + len(name)
    end = min(at + _MOST_BYTES, len(body))
    while at < end and body[at] in (32, 58, 9, 10, 13):  # the colon and JSON's white space
        at += 1
    count = 0
    while at < end and 48 <= (digit := body[at]) <= 57:
        count = 10 * count + digit - 48
        at += 1
    return min(count, _MOST_TOKENS)

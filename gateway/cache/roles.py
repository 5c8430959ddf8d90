"""Whether the words of two questions play the same parts in them: who does what to whom, what is asked of what."""

from itertools import combinations

from gateway.cache.alike import pairs
from gateway.cache.forms import roots
from gateway.cache.question import Question, Word
from gateway.cache.thesaurus import related
from gateway.cache.words import MEASURES

# What is replaced, and what takes its place, only the preposition tells.
_EXCHANGES = roots(("replace", "substitute", "exchange", "swap"))


def swapped(one: Question, other: Question) -> bool:
    """Whether two words have taken each other's part."""
    if one.head and other.head and not related(one.head, other.head):
        # `how many acres are a hectare` and `how many hectares are an acre`
        heads = any(word.root == other.head for word in one.words) and any(
            word.root == one.head for word in other.words
        )
        if heads:
            return True
    both = pairs(one, other)
    if any({word.place, like.place} == {"from", "to"} for word, like in both if not word.verb and not like.verb):
        return True
    if any(word.root in _EXCHANGES for word, _ in both) and any(
        word.place != like.place and "with" in (word.place, like.place) for word, like in both
    ):
        return True
    return one.asks != "choice" and _in_each_others_place(one, other, both)


def _in_each_others_place(one: Question, other: Question, both: list[tuple[Word, Word]]) -> bool:
    order = {id(word): place for question in (one, other) for place, word in enumerate(question.words)}
    for (a, like_a), (b, like_b) in combinations(both, 2):
        before, after = order[id(a)] - order[id(b)], order[id(like_a)] - order[id(like_b)]
        if before * after >= 0 or not all(_is_argument(word) for word in (a, b, like_a, like_b)):
            continue
        # Side by side and with nothing before them, one is the other's attribute.
        attribute = abs(before) == abs(after) == 1
        unmarked = not (a.place or b.place or like_a.place or like_b.place)
        if (unmarked and not attribute) or _takes(a, like_a, b, like_b) or _takes(b, like_b, a, like_a):
            return True
    return False


def _takes(word: Word, like: Word, taker: Word, taker_like: Word) -> bool:
    """Whether the other word has its preposition now, which it had not, and it has another."""
    part = _part(word)
    return part != "" and part == _part(taker_like) and part not in (_part(like), _part(taker))


def _part(word: Word) -> str:
    return "of" if word.place == "to" else word.place


def _is_argument(word: Word) -> bool:
    """Whether it is likely what something is done by or to: no verb, no superlative, no number, no measure."""
    return not (word.verb or word.counts or word.root.endswith("est") or word.root in MEASURES)

"""How much two questions differ in words that do not contradict one another."""

from itertools import pairwise

from gateway.cache.question import Question, Word
from gateway.cache.thesaurus import action, graded, person
from gateway.cache.words import ASKED_ANYWAY, LIGHT

# Each is a share of the way from the threshold to sameness: how much nearer two questions must be for it.
# One has words that add little; one has words of its own, and each more of them; they ask with another word.
_LIGHT, _OWN, _MORE, _ASKED = 0.1, 0.35, 0.15, 0.4
# Beyond this no nearness is enough.
_MOST = 0.75


def difference(one: Question, other: Question, added: list[Word], missing: list[Word]) -> float | None:
    """The share of the way from the threshold to sameness that two questions must go; None where none is enough.

    Args:
        added: the words of one without their like in the other.
        missing: those of the other.
    """
    own, others = _weighty(one, added), _weighty(other, missing)
    if (own or others) and added and missing:
        # One word stands where the other does, so neither adds little.
        own, others = added, missing
    elif _narrowed(one, own) or _narrowed(other, others):
        return None
    elif _headed(one, own) or _headed(other, others):
        # Another thing: as far away as one word for another.
        return 2 * _OWN
    share = _share(added, own) + _share(missing, others) + _ASKED * (one.asks != other.asks)
    return share if share <= _MOST else None


def _weighty(question: Question, words: list[Word]) -> list[Word]:
    """Those that add something to what is asked."""
    light = LIGHT | ASKED_ANYWAY.get(question.asks, frozenset())
    asks_who = question.asks == "who"
    return [word for word in words if word.root not in light and not (asks_who and person(word.root))]


def _share(words: list[Word], weighty: list[Word]) -> float:
    return _OWN + _MORE * (len(weighty) - 1) if weighty else _LIGHT * bool(words)


def _narrowed(question: Question, words: list[Word]) -> bool:
    """Whether one of the words stands right before another of the question, which it narrows: `foreign people`."""
    return any(
        word in words
        and following not in words
        and following.at == word.at + 1
        and not (_is_verb(word) or following.verb or graded(word.root))
        for word, following in pairwise(question.words)
    )


def _headed(question: Question, words: list[Word]) -> bool:
    """Whether one of the words stands right behind another, which says of what kind it is: `order number`."""
    return any(
        following in words
        and word not in words
        and following.at == word.at + 1
        and following.place == word.place
        and not (word.name or word.verb or _is_verb(following) or graded(following.root))
        for word, following in pairwise(question.words)
    )


def _is_verb(word: Word) -> bool:
    return word.verb or (action(word.root) and not (word.thing or word.counts))

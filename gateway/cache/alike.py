"""Which words of two questions are one another's like."""

from gateway.cache.question import Question, Word
from gateway.cache.thesaurus import bases, related

_PEOPLES = ("n", "an", "ian", "ese", "ish")


def alike(one: Word, other: Word) -> bool:
    if one.name and other.name:
        return related(one.root, other.root) or _demonym(one.root, other.root) or _demonym(other.root, one.root)
    if one.root == other.root or one.name or other.name:
        return one.root == other.root
    if related(one.root, other.root):
        return True
    both = one.root[-3:] == other.root[-3:] == "est" or one.root[-2:] == other.root[-2:] == "er"
    return both and any(related(a, b) for a in bases(one.root) - {one.root} for b in bases(other.root) - {other.root})


def _demonym(place: str, people: str) -> bool:
    return len(place) > 3 and people.startswith(place[:-1]) and people[len(place) - 1 :] in _PEOPLES


def without_like(one: Question, other: Question) -> list[Word]:
    """The words of one that have no like in the other."""
    return [word for word in one.words if not any(alike(word, like) for like in other.words)]


def pairs(one: Question, other: Question) -> list[tuple[Word, Word]]:
    """Each word with its like in the other; one that comes twice with the first, then with the second."""
    found, left = [], list(other.words)
    for word in one.words:
        like = next((like for like in left if alike(word, like)), None)
        if like is not None:
            left.remove(like)
            found.append((word, like))
    return found

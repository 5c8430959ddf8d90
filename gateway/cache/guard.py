"""Whether two questions that lie close together ask for the same.

An embedding hardly sees what turns a question round: a `not`, another number or name, arguments in each other's place.
So a stored answer is served only where both questions ask for the same thing, about the same words, in the same roles.
What the guard does not know it takes for a difference: it costs an answer from the cache, and not a wrong one.
"""

from itertools import combinations, pairwise

from gateway.cache.english import Question, Word, read
from gateway.cache.thesaurus import bases, denies, graded, opposed, related, roots
from gateway.cache.words import MEASURES, UNITS

# What is replaced, and what takes its place, only the preposition tells.
_EXCHANGES = roots(("replace", "substitute", "exchange", "swap"))
_PEOPLES = ("n", "an", "ian", "ese", "ish")
# All words are compared with all others; a question has fewer, and of its own fewer still.
_MAX_WORDS, _MAX_OWN = 40, 6
# How near two questions must be, of the way from the threshold to sameness, by the number of ways in which they differ:
# the one has words without their like in the other, the other has such words, they ask in different words.
_SHARES = (0.0, 0.4, 0.7, None)
# What may be asked for in other words: `which president` is a who.
_VAGUE = frozenset({"what", "how", "choice"})
_PLAIN = frozenset({"what", "who", "when", "where"})


def nearness(asked: str, stored: str, threshold: float) -> float | None:
    """How similar (cosine) two questions must be to have one answer; None where no similarity is enough.

    Args:
        threshold: for questions whose words say the same.
    """
    one, other = read(asked), read(stored)
    if max(len(one.words), len(other.words)) > _MAX_WORDS or _contradicts(one, other):
        return None
    added, missing = _without_like(one, other), _without_like(other, one)
    if added and missing and any(word.root in UNITS for word in one.words):
        # The unit, which both name, says what is measured.
        added, missing = ([word for word in some if word.root not in MEASURES] for some in (added, missing))
    if max(len(added), len(missing)) > _MAX_OWN or any(word.name or denies(word.root) for word in (*added, *missing)):
        return None
    if _opposed(one, other, added, missing) or _swapped(one, other):
        return None
    # Added, left out, asked for in other words.
    ways = bool(added) + bool(missing) + (one.asks != other.asks)
    if ways == 1 and (_narrowed(one, added) or _narrowed(other, missing)):
        ways = 2
    share = _SHARES[ways]
    return None if share is None else threshold + (1 - threshold) * share


def _contradicts(one: Question, other: Question) -> bool:
    """Whether they differ in what turns a question into another one, whatever its words."""
    asks, modalities = {one.asks, other.asks}, {one.modality, other.modality}
    return (
        one.negations != other.negations
        or one.numbers != other.numbers
        or (len(asks) > 1 and not (asks <= _VAGUE or ("what" in asks and asks <= _PLAIN)))
        or one.from_what != other.from_what
        or one.of_object != other.of_object
        or (bool(one.kind and other.kind) and one.kind != other.kind)
        or (one.asks == "whether" and modalities == {"may", "must"})
        or (bool(one.tenses and other.tenses) and one.tenses.isdisjoint(other.tenses))
    )


def _without_like(one: Question, other: Question) -> list[Word]:
    return [word for word in one.words if not any(_alike(word, like) for like in other.words)]


def _narrowed(question: Question, added: list[Word]) -> bool:
    """Whether a word was added right before another one, which it narrows: `foreign people`."""
    return any(
        word in added and not word.verb and following not in added and following.at == word.at + 1
        for word, following in pairwise(question.words)
    )


def _opposed(one: Question, other: Question, added: list[Word], missing: list[Word]) -> bool:
    """Whether a word that only one of them has is the opposite of one in the other, or measures by something else."""
    return (
        any(opposed(word.root, like.root) for word in added for like in other.words)
        or any(opposed(word.root, like.root) for word in missing for like in one.words)
        or (any(graded(word.root) for word in added) and any(graded(word.root) for word in missing))
    )


def _alike(one: Word, other: Word) -> bool:
    if one.name and other.name:
        return one.root == other.root or _demonym(one.root, other.root) or _demonym(other.root, one.root)
    if one.root == other.root or one.name or other.name:
        return one.root == other.root
    if related(one.root, other.root):
        return True
    both = one.root[-3:] == other.root[-3:] == "est" or one.root[-2:] == other.root[-2:] == "er"
    return both and any(related(a, b) for a in bases(one.root) - {one.root} for b in bases(other.root) - {other.root})


def _demonym(place: str, people: str) -> bool:
    return len(place) > 3 and people.startswith(place[:-1]) and people[len(place) - 1 :] in _PEOPLES


def _swapped(one: Question, other: Question) -> bool:
    """Whether two words have taken each other's part."""
    pairs = _pairs(one, other)
    if any({word.place, like.place} == {"from", "to"} for word, like in pairs if not word.verb and not like.verb):
        return True
    if any(word.root in _EXCHANGES for word, _ in pairs) and any(
        word.place != like.place and "with" in (word.place, like.place) for word, like in pairs
    ):
        return True
    if one.asks == "choice":
        return False
    order = {id(word): place for question in (one, other) for place, word in enumerate(question.words)}
    for (a, like_a), (b, like_b) in combinations(pairs, 2):
        before, after = order[id(a)] - order[id(b)], order[id(like_a)] - order[id(like_b)]
        if before * after >= 0 or not all(_is_argument(word) for word in (a, b, like_a, like_b)):
            continue
        # Side by side and with nothing before them, one is the other's attribute.
        attribute = abs(before) == abs(after) == 1
        unmarked = not (a.place or b.place or like_a.place or like_b.place)
        if (unmarked and not attribute) or _takes(a, like_b, like_a) or _takes(b, like_a, like_b):
            return True
    return False


def _pairs(one: Question, other: Question) -> list[tuple[Word, Word]]:
    """Each word with its like in the other; one that comes twice with the first, then with the second."""
    pairs, left = [], list(other.words)
    for word in one.words:
        like = next((like for like in left if _alike(word, like)), None)
        if like is not None:
            left.remove(like)
            pairs.append((word, like))
    return pairs


def _takes(word: Word, taker: Word, like: Word) -> bool:
    """Whether the other word has its preposition now, and it has not."""
    return word.place != "" and _part(word) == _part(taker) and _part(word) != _part(like)


def _part(word: Word) -> str:
    return "of" if word.place == "to" else word.place


def _is_argument(word: Word) -> bool:
    """Whether it is likely what something is done by or to: no verb, no superlative, no number."""
    return not (word.verb or word.counts or word.root.endswith("est"))

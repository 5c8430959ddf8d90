"""Whether two questions that lie close together ask for the same.

An embedding hardly sees what turns a question round: a `not`, another number or name, arguments in each other's place.
So a stored answer is served only where both questions ask for the same thing, about the same words, in the same roles.
What the guard does not know it takes for a difference: it costs an answer from the cache, and not a wrong one.
"""

from gateway.cache.alike import without_like
from gateway.cache.difference import difference
from gateway.cache.english import read
from gateway.cache.question import Question, Word
from gateway.cache.roles import swapped
from gateway.cache.thesaurus import denies, graded, opposed, person
from gateway.cache.words import ASKED_ANYWAY, MEASURES, UNITS

# All words are compared with all others; a question has fewer, and of its own fewer still.
_MAX_WORDS, _MAX_OWN = 40, 6
# What may be asked for in other words: `what is the way to` is a how.
_VAGUE = frozenset({"what", "how", "choice"})


def nearness(asked: str, stored: str, threshold: float) -> float | None:
    """How similar (cosine) two questions must be to have one answer; None where no similarity is enough.

    Args:
        threshold: for questions whose words say the same.
    """
    one, other = read(asked), read(stored)
    if max(len(one.words), len(other.words)) > _MAX_WORDS or _contradicts(one, other):
        return None
    added, missing = without_like(one, other), without_like(other, one)
    if added and missing and any(word.root in UNITS for word in one.words):
        # The unit, which both name, says what is measured.
        added, missing = ([word for word in some if word.root not in MEASURES] for some in (added, missing))
    if max(len(added), len(missing)) > _MAX_OWN or any(word.name or denies(word.root) for word in (*added, *missing)):
        return None
    if _opposed(one, other, added, missing) or swapped(one, other):
        return None
    share = difference(one, other, added, missing)
    return None if share is None else threshold + (1 - threshold) * share


def _contradicts(one: Question, other: Question) -> bool:
    """Whether they differ in what turns a question into another one, whatever its words."""
    return (
        one.negations != other.negations
        or one.numbers != other.numbers
        or not (_asks_for(one, other) or _asks_for(other, one))
        or one.from_what != other.from_what
        or (None not in (one.of_object, other.of_object) and one.of_object != other.of_object)
        or (bool(one.kind and other.kind) and one.kind != other.kind)
        or (bool(one.asker and other.asker) and one.asker.isdisjoint(other.asker))
        or (one.asks == "whether" and {one.modality, other.modality} == {"may", "must"})
        or _at_other_times(one, other)
    )


def _asks_for(one: Question, other: Question) -> bool:
    """Whether one may ask in its own way for what the other does: `which country won`, `who won`."""
    if one.asks == other.asks or {one.asks, other.asks} <= _VAGUE:
        return True
    if one.asks != "what" or other.asks not in ASKED_ANYWAY:
        return False
    says = ASKED_ANYWAY[other.asks]
    return one.head != "" or any(word.root in says or (other.asks == "who" and person(word.root)) for word in one.words)


def _at_other_times(one: Question, other: Question) -> bool:
    times, others = one.tenses, other.tenses
    if {"when", "whether"} & {one.asks, other.asks}:
        # What will happen is asked for in the present as well: `when does the shop open`.
        times, others = ({"present" if tense == "future" else tense for tense in tenses} for tenses in (times, others))
    return bool(times and others) and times.isdisjoint(others)


def _opposed(one: Question, other: Question, added: list[Word], missing: list[Word]) -> bool:
    """Whether a word that only one of them has is the opposite of one in the other, or measures by something else."""
    return (
        any(opposed(word.root, like.root) for word in added for like in other.words)
        or any(opposed(word.root, like.root) for word in missing for like in one.words)
        or (any(graded(word.root) for word in added) and any(graded(word.root) for word in missing))
    )

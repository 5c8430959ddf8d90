"""Which English words may stand for one another, and which are opposites, by their roots: WordNet's, and a few more."""

from collections import defaultdict
from functools import cache
from importlib import resources
from typing import NamedTuple

from gateway.cache.forms import root

# What WordNet has in no synset of its own, or counts too seldom: of everyday questions.
_EVERYDAY = """\
remove delete erase
convert turn change transform
transfer copy
transfer move
integer int
reservation booking
luggage baggage bag
stay remain keep
duration length last time
undo revert
customary usual
cost price
expire expiry expiration
email mail
power electricity
fridge refrigerator
holiday vacation
postgres postgresql
machine maker
gift present
coworker colleague
flat apartment
lawyer attorney
pupil student
kid child
mom mother
dad father
cellphone mobile smartphone phone
automobile car
bike bicycle
tv television
speak talk
reply answer respond
assist help support
illness disease sickness
garbage trash rubbish waste
internship placement
advantage benefit pro
drawback disadvantage con
collapse fall
population inhabitant
beat defeat
enable activate
disable deactivate
start begin launch
end stop finish
build construct
demolish destroy
create make build
fix repair solve
show display
choose select pick
picture image photo
movie film
latest last recent newest
cook boil
trip travel journey visit
number amount quantity
find see check view look
author writer write
lower reduce decrease
raise increase
decline reject refuse
own property belong
defeat win
return back
withdraw withdrawal
deadline due
ask request
boss manager
bake oven
sight attraction
build ! demolish
start ! end
add ! remove
login ! logout
"""
_TURNING = ("un", "re", "dis", "de", "non", "in", "im", "mis")
_STATISTICS = frozenset({"averag", "mean", "median", "maximum", "minimum", "total"})
_DENYING = frozenset(
    {
        "exclud",
        "lack",
        "fail",
        "refuz",
        "refus",
        "avoid",
        "prevent",
        "forbid",
        "prohibit",
        "ban",
        "omit",
        "ignor",
        "mis",
    }
)
_NONE: frozenset[int] = frozenset()


class _Thesaurus(NamedTuple):
    """
    Attributes:
        lines: the numbers of the lines that a root shares with those that may stand for it.
        opposites: of a root.
        people: the roots of words for people.
        verbs: the roots of words that are verbs more often than not.
    """

    lines: dict[str, set[int]]
    opposites: dict[str, set[str]]
    people: set[str]
    verbs: set[str]


@cache
def load() -> _Thesaurus:
    lines: defaultdict[str, set[int]] = defaultdict(set)
    opposites: defaultdict[str, set[str]] = defaultdict(set)
    people: set[str] = set()
    verbs: set[str] = set()
    text = _EVERYDAY + resources.files("gateway.cache").joinpath("wordnet.txt").read_text()
    for number, line in enumerate(text.splitlines()):
        words = [root(word) for word in line.split()] if line[:1] != "#" else []
        if words[:1] == ["people:"]:
            people.update(words[1:])
        elif words[:1] == ["verbs:"]:
            verbs.update(words[1:])
        elif "!" in words:
            opposites[words[0]].add(words[2])
            opposites[words[2]].add(words[0])
        else:
            for word in words:
                lines[word].add(number)
    return _Thesaurus(dict(lines), dict(opposites), people, verbs)


def related(one: str, other: str) -> bool:
    """Whether two roots may stand for one another."""
    lines = load().lines
    return one == other or not lines.get(one, _NONE).isdisjoint(lines.get(other, _NONE))


def person(word: str) -> bool:
    """Whether a root is that of a word for a person."""
    return word in load().people


def action(word: str) -> bool:
    """Whether a root is that of a word that is a verb more often than not."""
    return word in load().verbs


def opposed(one: str, other: str) -> bool:
    """Whether two roots, or words that may stand for them, are opposites: `build`, `demolish`; `undo`, `redo`."""
    if _bare(one) & {other, *_bare(other)} or one in _bare(other):
        return True
    opposites = load().opposites
    return any(
        related(opposite, base)
        for a, b in ((one, other), (other, one))
        for of in bases(a)
        for opposite in opposites.get(of, ())
        for base in bases(b)
    )


def denies(word: str) -> bool:
    """Whether a prefix turns a known word round in it: `unsafe`."""
    return word in _DENYING or any(map(_known, _bare(word, ("un", "non", "dis"))))


def graded(word: str) -> bool:
    """Whether it is a comparative or a superlative of a known word, or another statistic."""
    compared = word.endswith(("er", "est")) and any(base != word and _known(base) for base in bases(word))
    return compared or word in _STATISTICS


def _known(word: str) -> bool:
    return word in load().lines or word in load().opposites


def _bare(word: str, prefixes: tuple[str, ...] = _TURNING) -> set[str]:
    """What is left of it without a prefix that turns it round."""
    return {root(word[len(prefix) :]) for prefix in prefixes if word.startswith(prefix) and len(word) > len(prefix) + 1}


def bases(word: str) -> set[str]:
    """The root, and those of which it may be the comparative, the superlative or the adverb."""
    found = {word}
    for ending in ("iest", "est", "ier", "er", "li"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            base = word[: -len(ending)]
            found |= {f"{base}i"} if ending[0] == "i" else {base, base[:-1]} if base[-1] == base[-2] else {base}
    return found

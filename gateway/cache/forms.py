"""The forms of English words: what is left of a word without the endings of its forms."""

import re
from collections.abc import Iterable
from functools import lru_cache

_VOWELS = frozenset("aeiouy")
# The forms that no rule gives; of verbs that questions are made of.
_IRREGULAR = """
ate eaten eat; beaten beat; became become; began begun begin; bent bend; bit bitten bite; blew blown blow; bought buy;
broke broken break; brought bring; built build; burnt burn; came come; caught catch; chose chosen choose; cost cost;
dealt deal; died dying die; drank drunk drink; drawn drew draw; driven drove drive; fallen fell fall; fed feed; felt
feel; fought fight; flew flown fly; forgot forgotten forget; found find; froze frozen freeze; gave given give; gone
went go; got gotten get; grew grown grow; heard hear; held hold; hid hidden hide; kept keep; knew known know; laid
lay; led lead; left leave; lent lend; lost lose; lying lie; made make; meant mean; met meet; paid pay; ran run; ridden
rode ride; risen rose rise; said say; sang sung sing; sank sunk sink; seen saw see; sent send; shook shaken shake;
shot shoot; shown show; sold sell; spent spend; spoke spoken speak; stolen stole steal; stood stand; stuck stick; swam
swum swim; taken took take; taught teach; thought think; threw thrown throw; told tell; understood understand; woke
woken wake; won win; wore worn wear; written wrote write; used use
"""
# Of nouns.
_PLURALS = """
children child; men man; women woman; feet foot; teeth tooth; mice mouse; geese goose; lives life; knives knife;
leaves leaf; data data; people people; bacteria bacterium; criteria criterion; phenomena phenomenon; indices index;
matrices matrix; analyses analysis
"""


def _forms(entries: str) -> dict[str, str]:
    return {form: forms[-1] for entry in entries.split(";") if (forms := entry.split()) for form in forms[:-1]}


_VERBS = _forms(_IRREGULAR)
_ROOTS = _VERBS | _forms(_PLURALS)


@lru_cache(maxsize=1 << 16)
def root(word: str) -> str:
    """The word without the endings of its plural, third person, past and participles, in American spelling.

    It need not be a word; equal words have equal roots, and few others.
    """
    word = _ROOTS.get(word, word)
    if len(word) > 3 and not word.endswith(("ss", "us", "is")):
        if word.endswith("ies"):
            word = word[:-3] + "y"
        elif word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
            word = word[:-2]
        elif word.endswith("s"):
            word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and _VOWELS & set(word[: -len(ending)]):
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            elif word[-1] == "i":
                word = word[:-1] + "y"
            break
    word = re.sub(r"our$", "or", re.sub(r"(?<=[bct])re$", "er", re.sub(r"(?<=\w\w)is(?=e?$)", "iz", word)))
    word = re.sub(r"ll$", "l", word)
    word = word[:-1] if word.endswith("e") and len(word) > 3 else word
    return word[:-1] + "i" if word.endswith("y") and len(word) > 3 else word


def inflected(word: str) -> bool:
    """Whether it is a past or a participle, as far as its form shows."""
    return word in _VERBS or (word.endswith(("ed", "ing")) and root(word) not in (word, word[:-1]))


def roots(words: Iterable[str]) -> frozenset[str]:
    return frozenset(map(root, words))

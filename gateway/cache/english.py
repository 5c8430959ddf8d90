"""What an English question says, as far as single words show it: what is asked for, of what, and in which roles.

No parser: what must not be overlooked in a question (a negation, a number, who does what to whom) sits in few words.
Only words of the sentence's form are left out; a word that is not known here is one that matters, so of another
language all words matter.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.cache.thesaurus import inflected, root
from gateway.cache.words import (
    ABBREVIATED,
    AGENT,
    ALLOWED,
    ASKED,
    AUXILIARIES,
    CARDINALS,
    CAUSES,
    DETERMINERS,
    FORM,
    KINDS,
    MANNERS,
    MARKS,
    MEASURE_OF,
    NEGATIONS,
    ORDINAL_WORDS,
    ORDINALS,
    PLACES,
    PRAISE,
    RELATIONS,
    REQUIRED,
    SUBJECTS,
    TENSES,
    TOLD,
    UNITS,
    WRITTEN_OUT,
)

_TOKEN = re.compile(r"`[^`]*`|\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:[_.]\w+)+|[^\W\d_]+|\w+|[^\w\s]")


class Word(NamedTuple):
    """A word that matters.

    Attributes:
        root: see `thesaurus.root`; of a number, its value.
        name: it is a name, a number, a unit or code, which no other word stands for.
        place: the preposition before it, empty where there is none.
        verb: it is likely one.
        counts: it is a number, an ordinal, or the unit behind a number.
        at: where it stands in the sentence.
    """

    root: str
    name: bool
    place: str
    verb: bool
    counts: bool
    at: int


@dataclass
class Question:
    """
    Attributes:
        words: those that matter, in their order; who does it (`by`) stands before what it is done to.
        numbers: in their order.
        negations: how many there are.
        asks: `why`, `who`, `when`, `where`, `how`, `what`, `whether`, or `choice` of what `or` stands between.
        kind: of who, when or where, where it says so: a team, a year.
        from_what: whether it asks where something comes from: the preposition stands before the question word, or last.
        of_object: whether it asks whom somebody does something to: `who does he`, where `who does it` asks who does.
        tenses: of its auxiliaries.
        modality: whether it may be, must be, or is; of no meaning but for `whether`.
    """

    words: list[Word] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    negations: int = 0
    asks: str = ""
    kind: str = ""
    from_what: bool = False
    of_object: bool = False
    tenses: set[str] = field(default_factory=set)
    modality: str = "is"


def read(text: str) -> Question:
    """Reads one question; it takes some 50 µs."""
    for pattern, plain in WRITTEN_OUT:
        text = pattern.sub(plain, text)
    return _Reader(_TOKEN.findall(text.strip())).question()


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._plain = [token.lower() for token in tokens]
        self._found = Question()
        self._place = ""
        self._placed = False  # something stands in that place already

    def question(self) -> Question:
        found = self._found
        if self._plain and self._plain[0] in AUXILIARIES:
            found.asks = "whether"
        for at, word in enumerate(self._plain):
            if not self._form(at, word) and not self._number(at, word):
                self._word(at, word)
        if "or" in self._plain:
            found.asks = "choice"
        elif not found.asks:
            told = not self._plain or self._plain[0] in TOLD
            found.asks = "whether" if self._plain[-1:] == ["?"] and not told else "what"
        found.from_what |= [word for word in self._plain if word.isalpha()][-1:] == ["from"]
        agents = [word for word in found.words if word.place == "by" and not word.verb]
        if agents and any(word.verb for word in found.words[: found.words.index(agents[0])]):
            agents = [word._replace(place="") for word in agents]
            found.words = agents + [word for word in found.words if word.place != "by" or word.verb]
        return found

    def _form(self, at: int, word: str) -> bool:
        """Whether it is a word of the sentence's form; what it says of the sentence is noted."""
        found, before = self._found, self._plain[at - 1] if at else ""
        self._mood(word, before)
        if word in NEGATIONS:
            found.negations += 1
        elif word in PLACES:
            self._place, self._placed = PLACES[word], False
        elif word in ASKED or word in ("what", "which"):
            self._asked(at, word)
        elif found.asks not in ("what", "why", "how"):
            return self._reset(word)
        elif word in CAUSES or (word in ("make", "makes", "made") and before == "what"):
            found.asks = "why"
        elif word in MANNERS and found.asks != "why":
            found.asks = "how"
            if before in PRAISE and found.words and found.words[-1].root == root(before):
                found.words.pop()
        else:
            return self._reset(word)
        return True

    def _mood(self, word: str, before: str) -> None:
        if word in TENSES:
            self._found.tenses.add(TENSES[word])
        if word in REQUIRED or (word == "to" and before in ("have", "has")):
            self._found.modality = "must"
        elif word in ALLOWED and self._found.modality == "is":
            self._found.modality = "may"

    def _reset(self, word: str) -> bool:
        """Whether it is a word of the sentence's form, or a mark; some of them end what a preposition stands before."""
        if (word in DETERMINERS and self._placed) or word in SUBJECTS or word in AUXILIARIES or word in (",", ";"):
            self._place = ""
        return word in FORM or word in MARKS

    def _asked(self, at: int, word: str) -> None:
        found, following = self._found, self._plain[at + 1] if at + 1 < len(self._plain) else ""
        found.from_what = found.from_what or (self._plain[at - 1] == "from" if at else False)
        self._place = ""
        if found.asks:
            return
        found.asks = ASKED.get(word, "what")
        found.of_object = found.asks == "who" and following in ("do", "does", "did")
        if word == "how" and following in MEASURE_OF:
            found.asks = "what"
        elif found.asks == "what":
            behind = self._plain[at + 2] if at + 2 < len(self._plain) else ""
            kind = KINDS.get(following, "who" if word == "which" and AGENT.match(following) else "")
            if kind and (kind == "who" or behind in FORM):
                found.asks, found.kind = kind, root(following)

    def _number(self, at: int, word: str) -> bool:
        if word in CARDINALS and word != "one":
            value = CARDINALS[word]
        elif word[:1].isdigit() and word not in ORDINALS:
            try:
                value = float(word.replace(",", ""))
            except ValueError:
                return False
        else:
            return False
        self._found.numbers.append(value)
        self._add(Word(f"{value:g}", True, self._place, False, True, at))
        return True

    def _word(self, at: int, word: str) -> None:
        found, token, before = self._found, self._tokens[at], self._plain[at - 1] if at else ""
        if found.kind and at and before in ("what", "which") and root(word) == found.kind:
            return
        if before == "how" and word in MEASURE_OF:
            self._add(Word(root(MEASURE_OF[word]), False, self._place, False, False, at))
            return
        if word in ABBREVIATED and (len(word) > 1 or before[:1].isdigit()):
            word = ABBREVIATED[word]
        sentence_begins = not at or before in (".", "!", "?", "`")
        capital = token[0].isupper() and not sentence_begins
        name = capital or not word.isalpha() or word in ORDINALS or root(word) in UNITS or word in RELATIONS
        word = ORDINALS.get(word, word)
        verb = not name and (inflected(word) or before in SUBJECTS)
        counts = word in ORDINAL_WORDS or (before[:1].isdigit() and root(word) in UNITS)
        # An `s` at the end of `HTTPS` is no plural's.
        stem = word if token.isupper() and len(token) > 1 else root(word)
        self._add(Word(stem, name, self._place, verb, counts, at))

    def _add(self, word: Word) -> None:
        self._placed = True
        self._found.words.append(word)

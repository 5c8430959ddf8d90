"""What an English question says, as far as single words show it: what is asked for, of what, and in which roles.

No parser: what must not be overlooked in a question (a negation, a number, who does what to whom) sits in few words.
Only words of the sentence's form are left out; a word that is not known here is one that matters, so of another
language all words matter.
"""

import re
from functools import lru_cache

from gateway.cache.forms import inflected, root
from gateway.cache.phrases import joined, written_out
from gateway.cache.question import Question, Word
from gateway.cache.thesaurus import action, person
from gateway.cache.words import (
    ABBREVIATED,
    ALLOWED,
    AMOUNTS,
    ARTICLES,
    ASKED,
    ASKERS,
    AUXILIARIES,
    CARDINALS,
    CAUSES,
    DETERMINERS,
    EXPLAINED,
    FORM,
    HOLDING,
    KINDS,
    LIGHT,
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
)

_TOKEN = re.compile(r"`[^`]*`|\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:[_.]\w+)+|[^\W\d_]+|\w+|[^\w\s]")
# Behind one of these, `how many` has its usual place.
_BEGINNINGS = TOLD | ASKED.keys() | {"what", "which", "know", ",", "."} | AUXILIARIES - HOLDING


@lru_cache(maxsize=1024)
def read(text: str) -> Question:
    """Reads one question, in less than a millisecond; one that is asked is compared with several that were."""
    return _Reader(_asked_first(joined(_TOKEN.findall(written_out(text))))).question()


def _asked_first(tokens: list[str]) -> list[str]:
    """`Jupiter has how many moons?` as `how many moons? Jupiter has`, in whose order most ask."""
    plain = [token.lower() for token in tokens]
    for at in range(2, len(plain) - 1):
        if plain[at] == "how" and plain[at + 1] in ("many", "much"):
            before = plain[:at]
            begins = at - 1 if before[-1] in PLACES else at
            if not (_BEGINNINGS & set(before)):
                return [*tokens[begins:], *tokens[:begins]]
    return tokens


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
            found.asks = self._told()
        found.from_what |= [word for word in self._plain if word.isalpha()][-1:] == ["from"]
        agents = [word for word in found.words if word.place == "by" and not word.verb]
        if agents and any(word.verb for word in found.words[: found.words.index(agents[0])]):
            agents = [word._replace(place="") for word in agents]
            found.words = agents + [word for word in found.words if word.place != "by" or word.verb]
        return found

    def _told(self) -> str:
        """What is asked for without a question word."""
        first = self._plain[0] if self._plain else ""
        if self._plain[-1:] == ["?"] and first not in TOLD:
            return "whether"
        return "how" if first in EXPLAINED else "what"

    def _form(self, at: int, word: str) -> bool:
        """Whether it is a word of the sentence's form; what it says of the sentence is noted."""
        found, before = self._found, self._plain[at - 1] if at else ""
        self._mood(word, before)
        if word in NEGATIONS:
            found.negations += 1
        elif word in PLACES:
            # `grams of salt` are salt.
            measured = word == "of" and (root(before) in UNITS or before in AMOUNTS)
            self._place, self._placed = "" if measured else PLACES[word], False
        elif word in ASKED or word in ("what", "which"):
            self._asked(at, word)
        elif found.asks not in ("what", "why", "how"):
            return self._reset(word, before)
        elif word in CAUSES or (word in ("make", "makes", "made") and before == "what"):
            found.asks = "why"
        elif word in MANNERS and found.asks != "why":
            found.asks = "how"
            if before in PRAISE and found.words and found.words[-1].root == root(before):
                found.words.pop()
        else:
            return self._reset(word, before)
        return True

    def _mood(self, word: str, before: str) -> None:
        if word in TENSES:
            self._found.tenses.add(TENSES[word])
        if word in ASKERS and before not in TOLD:
            self._found.asker.add(ASKERS[word])
        if word in REQUIRED or (word == "to" and before in ("have", "has")):
            self._found.modality = "must"
        elif word in ALLOWED and self._found.modality == "is":
            self._found.modality = "may"

    def _reset(self, word: str, before: str) -> bool:
        """Whether it is a word of the sentence's form, or a mark; some of them end what a preposition stands before."""
        begins = word in DETERMINERS and (self._placed or before not in (PLACES.keys() | DETERMINERS))
        if begins or word in SUBJECTS or word in AUXILIARIES or word in (",", ";"):
            self._place = ""
        return word in FORM or word in MARKS

    def _asked(self, at: int, word: str) -> None:
        found, following = self._found, self._plain[at + 1] if at + 1 < len(self._plain) else ""
        found.from_what = found.from_what or (self._plain[at - 1] == "from" if at else False)
        self._place = ""
        if found.asks:
            return
        found.asks = ASKED.get(word, "what")
        if found.asks in ("who", "what"):
            acts = found.asks == "who" or (following not in FORM and (inflected(following) or action(root(following))))
            found.of_object = following in ("do", "does", "did") or (False if acts else None)
        if word in ("what", "which", "how"):
            self._asked_for(at, word, following)

    def _asked_for(self, at: int, word: str, following: str) -> None:
        """What stands behind `what`, `which` or `how`: `how many acres` asks for acres, and `which year` when."""
        found, behind = self._found, self._plain[at + 2] if at + 2 < len(self._plain) else ""
        thing = behind if word == "how" and following in ("many", "much") else following if word != "how" else ""
        if thing.isalpha() and not {thing, root(thing)} & (FORM | PLACES.keys() | LIGHT):
            found.head = root(thing)
        if word == "how":
            found.asks = "what" if following in MEASURE_OF else "how"
        elif following in KINDS and (behind in FORM or KINDS[following] == "who"):
            found.asks, found.kind = KINDS[following], root(following)
        elif word == "which" and person(root(following)) and not self._tokens[at + 1][0].isupper():
            found.asks = "who"

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
        self._add(Word(f"{value:g}", True, self._place, False, False, True, at))
        return True

    def _word(self, at: int, word: str) -> None:
        found, token, before = self._found, self._tokens[at], self._plain[at - 1] if at else ""
        if word in KINDS and at and before in ("what", "which") and root(word) == found.kind:
            return
        if before == "how" and word in MEASURE_OF:
            self._add(Word(root(MEASURE_OF[word]), False, self._place, False, False, False, at))
            return
        if word in ABBREVIATED and (len(word) > 1 or before[:1].isdigit()):
            word = ABBREVIATED[word]
        sentence_begins = not at or before in (".", "!", "?", "`")
        capital = token[0].isupper() and not sentence_begins
        name = capital or not word.isalpha() or word in ORDINALS or root(word) in UNITS or word in RELATIONS
        word = ORDINALS.get(word, word)
        thing = before in ARTICLES
        verb = not name and ((inflected(word) and not thing) or before in SUBJECTS)
        counts = word in ORDINAL_WORDS or (before[:1].isdigit() and root(word) in UNITS)
        # An `s` at the end of `HTTPS` is no plural's.
        stem = word if token.isupper() and len(token) > 1 else root(word)
        self._add(Word(stem, name, self._place, verb, thing, counts, at))

    def _add(self, word: Word) -> None:
        self._placed = True
        self._found.words.append(word)

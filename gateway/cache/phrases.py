"""Turns of phrase that say the same, written in one way before `english.py` reads them."""

import re
from collections import defaultdict
from collections.abc import Iterable

from gateway.cache.forms import root
from gateway.cache.words import TOLD

_ASKED = r"(?=(?:what|how|who|whom|whose|where|when|why|which|if|whether)\b)"
_UNIT = r"(?=(?:second|minute|hour|day|night|week|month|year)\b)"
_SHORT = (
    (r"(?-i:\bU\.?S\.?(?:A\.?|A)?(?!\w))", "United States"),
    (r"(?-i:\bU\.?K\.?(?!\w))", "United Kingdom"),
    (r"’", "'"),
    (r"\bcannot\b|\bcan't\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"n't\b", " not"),
    (r"\b(i|you|we|they)'d\b", r"\1 would"),
    (r"\b(what|how|who|where|when|why|it|that|there|he|she)'s\b", r"\1 is"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"\bi'm\b", "i am"),
    (r"\b(\w+)'s\b", r"of \1 ;"),
    (r"(?<=s)'(?=\s)", ""),
    (r"\b(\w+)-free\b", r"without \1"),
    (r"\bgrown-up(s?)\b", r"adult\1"),
    (r"(?-i:\bvs\b\.?)", "or"),
)
_MEASURED = (
    (r"%", " percent "),
    (r"€|\beur\b", " euro "),
    (r"\$(?=\d)|\busd\b", " dollar "),
    (r"(?<=\d)\s*°", " degree "),
    (r"(?<=\d)(?=[a-z]+\b)(?!st\b|nd\b|rd\b|th\b)", " "),
    (r"\bdegrees? (?=celsius|fahrenheit)", ""),
    (r"\byear (?=\d{4}\b)", ""),
    (rf"\b(?:each|every|once an?|times an?) {_UNIT}", "per "),
    (r"(?<=\w )an? (?=(?:second|minute|hour|day|night|week|month|year)\W*$)", "per "),
    (r"\bdaily\b", "per day"),
    (r"\bweekly\b", "per week"),
    (r"\bmonthly\b", "per month"),
    (r"\b(?:yearly|annual(?:ly)?)\b", "per year"),
)
_COMPARED = (
    (r"\bmost recent\b", "latest"),
    (r"\bleast expensive\b", "cheapest"),
    (r"\bless expensive\b", "cheaper"),
    (r"\bmost (\w+)ly\b", r"\1est"),
    (r"\bmore (\w{3,})ly\b", r"\1er"),
)
# Who is asked and how politely, and what only says that something is asked.
_FRAMES = (
    (r"^\W*(?:(?:hi|hello|hey|please|so)\W+)+", ""),
    (rf"^(?:can|could|would|will) you (?:please |kindly )*(?={'|'.join(TOLD)})", ""),
    (rf"^(?:do you|does (?:any|some)(?:one|body)) know {_ASKED}", ""),
    (rf"^i (?:wonder|was wondering|am wondering|(?:would like|would love|want|need) to know) {_ASKED}", ""),
    (r"^is it (?:true|right|correct|the case) that\b", "does"),
    # `I need to cancel it, how does that work?`
    (
        r",? (?:and )?how (?:does|do|can|could|should|would|is|to)"
        r"(?: (?:i|one|we|that|this|it|do|done|work|go|about))+\W*$",
        ", how?",
    ),
    (r"\bthe name of (?=the\b)", ""),
    (r"\bthe (?:word|term|abbreviation|acronym|phrase) (?!of\b|for\b|in\b|that\b|is\b)", ""),
)
# What is asked for, by the shortest question word there is.
_QUESTIONS = (
    (r"^(?:is|are) there (?:an?|any) (?:\w+ )?ways? (?:to|of|for)\b", "how"),
    (r"^what helps?(?: to)?\b", "how"),
    (r"^(?:is it possible to|(?:can|could|may) i) (.*?),? and how\W*$", r"how \1?"),
    (r"\bwhat (?:do|does|would|will) (?:i|one|we|you) (?:have to |need to )?pay for\b", "what is the price of"),
    # What one does for an aim is how one gets there.
    (r"\bwhat (?:\w+ ){1,4}do (?=to\b|so\b|if\b|in order\b)", "how "),
    (r"\bhow come\b", "why does"),
    (r"\bhow much time\b", "how long"),
    (r"\bhow much (is|are) (?=an? )", r"what \1 the price of "),
    (r"\bfrom what age\b", "at what age"),
    (
        r"^what (is|was|will be) the ((?:best|right|ideal|exact|latest|earliest) )?(?:date|day|time|month|season)"
        r" (?=of\b|for\b|to\b)",
        r"when \1 \2",
    ),
    (r"\b(?:number|amount) of\b", "quantity of"),
)
_OTHERS = (
    (r"\b(?:keep|prevent|stop)s? ((?:\w+ ){1,3})from (?=\w+ing\b)", r"stop \1"),
    (r"\bkeeps? (?=\w+ing\b)", ""),
    (r"\bmade(?=\W*$| of\b| from\b| out\b)", "produced"),
    (r"\b((?:have|has|had)(?: \w+)?) used\b", r"\1 consumed"),
    (r"\bout of (?=\w)", "from "),
    (r"\bin advance\b", "before"),
    (r"\b(?:at the same time as|together with)\b", "with"),
    (r"\bfree of charge\b", "free"),
)
_WRITTEN_OUT = tuple(
    (re.compile(pattern, re.IGNORECASE), plain)
    for pattern, plain in (*_SHORT, *_MEASURED, *_COMPARED, *_FRAMES, *_QUESTIONS, *_OTHERS)
)
# Verbs of more than one word, each with one that says the same.
_VERBS = """
get rid of, clear away, clean off: remove
turn on, switch on: enable
turn off, switch off: disable
take place, come about: happen
take part in: join
take care of, look after: maintain
take back: undo
take apart: dismantle
come up with: invent
come into being, come into existence: form
come from: originate
give back, send back, bring back: return
give up: quit
win against: defeat
find out, work out, figure out, look up: find
look for, search for: search
fill in, fill out: complete
hand in, turn in, send in: submit
turn down: decline
turn into, change into: convert into
call off: cancel
put off, push back: postpone
put up, bring up, push up: raise
bring down, cut down: lower
cut down on: reduce
go up: rise
go down: fall
go around, go round: orbit
set up: configure
sign up, sign in, log in: login
sign out, log out, log off: logout
pay back: repay
carry out: perform
throw away, throw out: discard
speed up: accelerate
slow down: decelerate
back up: backup
make sure: ensure
stand for: mean
let go: dismiss
deal with, cope with: handle
pick up: collect
shut down: stop
start up: start
break down: fail
"""
# How many words may stand between a verb and what belongs to it; what is a preposition as well must come last then.
_GAP, _PREPOSITIONS = 3, frozenset({"on", "in", "to", "for", "from", "with", "into", "around", "round"})


def _verbs(lines: Iterable[str]) -> dict[str, list[tuple[list[str], str]]]:
    found: defaultdict[str, list[tuple[list[str], str]]] = defaultdict(list)
    for line in lines:
        said, _, plain = line.partition(": ")
        for phrase in filter(None, said.split(", ")):
            verb, *rest = phrase.split()
            found[root(verb)].append((rest, plain))
    return {verb: sorted(some, key=lambda phrase: -len(phrase[0])) for verb, some in found.items()}


_PHRASAL = _verbs(_VERBS.splitlines())


def written_out(text: str) -> str:
    """The text without abbreviations, contractions and what only frames its question."""
    for pattern, plain in _WRITTEN_OUT:
        text = pattern.sub(plain, text)
    return text.strip()


def joined(tokens: list[str]) -> list[str]:
    """The tokens, with one verb for each of several words."""
    found = list(tokens)
    for at, token in enumerate(tokens):
        for rest, plain in _PHRASAL.get(root(token.lower()), ()):
            ends = _end(found, at + 1, rest)
            if ends is not None:
                found[at], *others = plain.split()
                found[ends : ends + len(rest)] = (others + [""] * len(rest))[: len(rest)]
                break
    return list(filter(None, found))


def _end(tokens: list[str], begin: int, rest: list[str]) -> int | None:
    """Where the rest of a verb stands, if it does."""
    gap = 0 if len(rest) > 1 else _GAP
    for at in range(begin, min(begin + gap, len(tokens) - len(rest)) + 1):
        if [token.lower() for token in tokens[at : at + len(rest)]] == rest:
            # `turn the alarm on`, but not `turn a page on my reader`
            last = not "".join(tokens[at + 1 : at + 2]).isalnum()
            return at if at == begin or last or rest[0] not in _PREPOSITIONS else None
        if not tokens[at].isalpha():
            return None
    return None

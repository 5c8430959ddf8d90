"""What the guard knows of a question."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Word(NamedTuple):
    """A word that matters.

    Attributes:
        root: see `thesaurus.root`; of a number, its value.
        name: it is a name, a number, a unit or code, which no other word stands for.
        place: the preposition before it, empty where there is none.
        verb: it is likely one.
        thing: it stands right behind an article or its like, where no verb does.
        counts: it is a number, an ordinal, or the unit behind a number.
        at: where it stands in the sentence.
    """

    root: str
    name: bool
    place: str
    verb: bool
    thing: bool
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
        head: what is asked for, where it stands right behind the question word: `how many acres`.
        kind: of who, when or where, where it says so: a team, a year.
        from_what: whether it asks where something comes from: the preposition stands before the question word, or last.
        of_object: whether it asks whom or what something is done to: `who does he`, where `who does it` asks who does.
            None where that does not show.
        tenses: of its auxiliaries.
        asker: whether who asks does something (`does`, as in `I`) or has it done (`has`, as in `me`).
        modality: whether it may be, must be, or is; of no meaning but for `whether`.
    """

    words: list[Word] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    negations: int = 0
    asks: str = ""
    head: str = ""
    kind: str = ""
    from_what: bool = False
    of_object: bool | None = None
    tenses: set[str] = field(default_factory=set)
    asker: set[str] = field(default_factory=set)
    modality: str = "is"

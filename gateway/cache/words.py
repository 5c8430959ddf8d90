"""The English words that carry a question, as `english.py` reads it."""

from gateway.cache.forms import roots


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


TOLD = _set("tell explain show give help list name describe calculate compute summarize summarise")
EXPLAINED = _set("explain describe")
NEGATIONS = _set("not no never without none nobody nothing neither nor nowhere")
FORM = _set(
    "a an the this that these those there it its they them their i me my mine we us our you your yours one ones is are"
    " am be been being was were do does did done have has had having will would shall can could may might must should"
    " ought need needs needed want wants like please tell explain show name give describe let know so and as if then"
    " just also some kind what which who whom whose when where why how ok okay possible able allowed permitted"
    " required necessary obliged supposed thanks thank help still get gets got getting gotten make makes made making"
    " use used uses using take takes taken taking took via located situated calculate compute another contain contains"
    " look looks or"
)
# Prepositions: each says the part of what follows it. `before`, `without`, `against` and their like say more than that.
PLACES = {place: place for place in _set("of in on at for by from with about between during than per")}
PLACES |= {"to": "to", "into": "to", "onto": "to", "using": "with", "via": "with"}
# Of closed classes: nothing stands for one of them.
RELATIONS = _set(
    "before after until since only except against over under above below up down off out more less most least all every"
    " each both many few again instead already yet ever he she him her his"
)
ARTICLES = _set("a an the my your our their his her its")
DETERMINERS = ARTICLES | _set("this that these those some another any all every each no")
SUBJECTS = _set("i you we they people")
ASKERS = {"i": "does", "we": "does", "me": "has", "us": "has"}
TENSES = dict.fromkeys(_set("is are am do does has"), "present")
TENSES |= dict.fromkeys(_set("was were did had"), "past") | dict.fromkeys(_set("will shall"), "future")
AUXILIARIES = TENSES.keys() | _set("can could may might must should would have need ought")
# Behind what has something: `Jupiter has how many moons?`
HOLDING = _set("is are has have do does")
ALLOWED = _set("can could may might possible able allowed permitted ok okay")
REQUIRED = _set("must should need needs required necessary obliged ought supposed")
ASKED = {"why": "why", "who": "who", "whom": "who", "whose": "who", "when": "when", "where": "where", "how": "how"}
# `how tall` asks for a height: a quality that has a noun too.
MEASURE_OF = {
    "tall": "height", "high": "height", "far": "distance", "long": "length", "old": "age", "often": "frequency",
    "frequently": "frequency", "fast": "speed", "quickly": "speed", "heavy": "weight", "big": "size", "large": "size",
    "hot": "temperature", "warm": "temperature", "cold": "temperature", "deep": "depth", "wide": "width",
    "many": "quantity", "much": "quantity", "expensive": "price", "strong": "strength",
}  # fmt: skip
MEASURES = roots(MEASURE_OF.values())
MANNERS = _set(
    "way ways method manner procedure steps approach command formula recipe shortcut instructions technique trick"
)
PRAISE = _set("best good better easiest easy simple simplest right proper")
AMOUNTS = _set("number amount quantity kind kinds type types sort sorts form")
CAUSES = _set("reason reasons cause causes")
# What `which` asks for with one of these, a word of its own asks for too.
KINDS = dict.fromkeys(_set("year date day month season time"), "when") | dict.fromkeys(_set("place location"), "where")
KINDS |= dict.fromkeys(_set("person people man woman team"), "who")
CARDINALS = {
    word: float(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
     "hundred": 100, "thousand": 1e3, "million": 1e6, "billion": 1e9, "dozen": 12, "half": 0.5, "twice": 2}  # fmt: skip
ORDINALS = {
    "1st": "first", "2nd": "second", "ii": "second", "3rd": "third", "iii": "third", "4th": "fourth", "iv": "fourth",
    "5th": "fifth", "vi": "sixth", "vii": "seventh", "viii": "eighth", "ix": "ninth",
}  # fmt: skip
MARKS = frozenset("¿¡?!.,;:'\"()-")
ORDINAL_WORDS = _set("first second third fourth fifth sixth seventh eighth ninth tenth last")
# As they are written; single letters and words that mean something else only behind a number or in capitals.
ABBREVIATED = {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "m": "meter", "kg": "kilogram", "g": "gram",
    "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce", "ft": "foot", "mi": "mile", "ml": "milliliter",
    "l": "liter", "h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "sec": "second",
    "gb": "gigabyte", "mb": "megabyte", "kb": "kilobyte",
}  # fmt: skip


UNITS = roots(
    _set(
        "kilometer centimeter millimeter meter mile yard foot inch hectare acre kilogram gram milligram ton tonne pound"
        " ounce stone liter milliliter gallon pint cup tablespoon teaspoon second minute hour day week month year"
        " decade century"
        " celsius fahrenheit kelvin degree percent percentage dollar euro yen franc rupee peso cent watt kilowatt joule"
        " calorie volt ampere byte kilobyte megabyte gigabyte terabyte bit hertz pascal bar"
    )
)
# Words that add little to what is asked.
LIGHT = roots(
    _set(
        "quantity good best better right proper suitable ideal great nice thing things item people come go happen try"
        " help recommended advisable necessary exact exactly actually really very currently usually normally generally"
        " typically idea advice tip"
    )
)
# Words that say once more what the question word asks for.
ASKED_ANYWAY = {
    asked: roots([*(word for word, kind in KINDS.items() if kind == asked), *more.split()])
    for asked, more in {"when": "deadline moment", "where": "spot site page", "who": ""}.items()
}

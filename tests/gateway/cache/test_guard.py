"""The guard, pair by pair: what a stored answer serves, and the false friends that it must not."""

import pytest

from gateway.cache.guard import nearness

THRESHOLD = 0.75

SAME = [
    ("How do I reverse a list in Python?", "Can you show me how a list is reversed in Python?"),
    ("What is the capital of Australia?", "what's australia's capital"),
    ("Why does my function return undefined?", "My function keeps returning undefined, why?"),
    ("When did the Second World War end?", "In what year did World War II end?"),
    ("Who painted the Mona Lisa?", "By whom was the Mona Lisa painted?"),
    ("How far is it from Berlin to Munich?", "What is the distance between Berlin and Munich?"),
    ("How tall is Everest in metres?", "What is the height of Everest in meters?"),
    ("Do I need a visa to go to Japan?", "Is a visa required to go to Japan?"),
    ("How do I fix a flat tyre?", "What's the best way to repair a flat tyre?"),
    ("What should I see in Rome in two days?", "I have 2 days in Rome, what should I see?"),
    ("Which is larger, Texas or France?", "Is Texas or France the bigger one?"),
    ("Is Brazil beaten by Germany?", "Does Germany beat Brazil?"),
    ("How many moons does Jupiter have?", "Jupiter has how many moons?"),
    ("What should I see in Rome in two days?", "I have two days in Rome, what should I see?"),
    ("How do I cancel my order?", "I want to cancel my order, how does that work?"),
    ("Why do cats purr?", "Do you know why cats purr?"),
    ("How do I turn the alarm on?", "How do I enable the alarm?"),
    ("How much rain falls per day?", "How much rain falls daily?"),
    ("When will the next eclipse be?", "What is the date of the next eclipse?"),
    ("Who elects the president of Germany?", "By whom is the German president elected?"),
    ("How many grams of salt does bread need?", "What number of grams of salt does bread need?"),
    ("Wie spät ist es in Berlin?", "wie spät ist es in Berlin?"),
]

OTHER = [
    ("negation", "Why does it return null?", "Why does it not return null?"),
    ("negation", "Why does it work?", "Why doesn't it work?"),
    ("negation", "Can I pay with a card?", "Can I pay without a card?"),
    ("negation", "Is the water safe to drink?", "Is the water unsafe to drink?"),
    ("number", "What happened in 1789?", "What happened in 1798?"),
    ("number", "Can I return it after 30 days?", "Can I return it after sixty days?"),
    ("number", "Who was the first president?", "Who was the second president?"),
    ("number", "What is 15 percent of 80?", "What is 80 percent of 15?"),
    ("unit", "How long is it in kilometres?", "How long is it in miles?"),
    ("unit", "How many minutes does it take?", "How many hours does it take?"),
    ("unit", "What is 20 € in pounds?", "What is $20 in pounds?"),
    ("name", "What is the capital of Australia?", "What is the capital of Austria?"),
    ("name", "How do I sort a list in Java?", "How do I sort a list in Python?"),
    ("name", "What does HTTP mean?", "What does HTTPS mean?"),
    ("code", "What does `a.b` do?", "What does `a.c` do?"),
    ("order", "How do I get from Paris to London?", "How do I get from London to Paris?"),
    ("order", "Did Germany beat Brazil?", "Did Brazil beat Germany?"),
    ("order", "Did Germany beat Brazil?", "Was Germany beaten by Brazil?"),
    ("order", "How do I convert strings to integers?", "How do I convert integers to strings?"),
    ("order", "Is gold heavier than lead?", "Is lead heavier than gold?"),
    ("order", "Is Greenland part of Denmark?", "Does Denmark belong to Greenland?"),
    ("order", "How do I add a user to a group?", "How do I add a group to a user?"),
    ("order", "What can replace butter?", "What can I replace with butter?"),
    ("order", "How many acres are in a hectare?", "How many hectares are in an acre?"),
    ("order", "How do I turn a song into a video?", "How do I turn a video into a song?"),
    ("order", "How do I report a damage to my insurer?", "How does my insurer report a damage to me?"),
    ("order", "What eats tigers?", "What do tigers eat?"),
    ("asked", "When was the telephone invented?", "Who invented the telephone?"),
    ("asked", "Why did Rome fall?", "When did Rome fall?"),
    ("asked", "How do hurricanes form?", "Where do hurricanes form?"),
    ("asked", "Who elects the president?", "Who does the president elect?"),
    ("asked", "Which mathematician proved it?", "When was it proved?"),
    ("asked", "Where is the museum?", "What is the museum?"),
    ("asked", "May I smoke here?", "Must I smoke here?"),
    ("asked", "When is the next eclipse?", "When was the next eclipse?"),
    ("opposite", "How do I enable dark mode?", "How do I disable dark mode?"),
    ("opposite", "How do I turn the alarm on?", "How do I turn the alarm off?"),
    ("opposite", "What is the longest river?", "What is the shortest river?"),
    ("opposite", "What should I eat before a run?", "What should I eat after a run?"),
    ("opposite", "Is phone support included?", "Is phone support excluded?"),
    ("opposite", "What is the average temperature in May?", "What is the highest temperature in May?"),
    ("opposite", "How do I log in?", "How do I log out?"),
    ("opposite", "What is the cheapest way home?", "What is the fastest way home?"),
    ("opposite", "How do I undo a change?", "How do I redo a change?"),
    ("narrowed", "How many people live in Tokyo?", "How many foreign people live in Tokyo?"),
    ("narrowed", "How do I delete a commit?", "How do I delete the last commit?"),
    ("narrowed", "How do I sharpen a knife?", "How do I sharpen a serrated knife?"),
    ("language", "Wie spät ist es in Berlin?", "Wie spät ist es nicht in Paris?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_needs_the_threshold(one, other):
    assert nearness(one, other, THRESHOLD) == nearness(other, one, THRESHOLD) == THRESHOLD


@pytest.mark.parametrize(("why", "one", "other"), OTHER)
def test_a_false_friend_is_never_near_enough(why, one, other):
    assert nearness(one, other, THRESHOLD) is None, why
    assert nearness(other, one, THRESHOLD) is None, why


def test_words_of_their_own_ask_for_more():
    plain = "How many people live in Tokyo?"
    others = (
        "How many people actually live in Tokyo?",
        "How many people live in Tokyo today?",
        "How many people live in Tokyo today alone?",
        "How many dogs live in Tokyo?",
    )
    light, added, more, replaced = (nearness(plain, other, THRESHOLD) or 0 for other in others)
    assert THRESHOLD < light < added < more < replaced < 1


def test_what_names_another_kind_of_thing_is_as_far_as_another_word():
    assert nearness("How do I find my order?", "How do I find my order number?", THRESHOLD) == pytest.approx(
        nearness("How do I find my order?", "How do I find my parcel?", THRESHOLD)
    )


@pytest.mark.parametrize(
    "text", ["", "?", "''", "`", "²", "1.2.3", "a" * 200, "is", "by", "from", "🙂", "\x00", "or or"]
)
def test_any_text_is_the_same_as_itself(text):
    assert nearness(text, text, THRESHOLD) == THRESHOLD

"""Items of ``sums``: additions and subtractions of numbers up to 50, made by a rule."""

from typing import Any

from scripts.bundled_tasks.sources import shuffled

LARGEST = 50
ITEMS = 300
CHOICES = 4


def sum_items() -> list[dict[str, Any]]:
    """Return sums and differences with four numbers as choices; none of them is real text.

    The wrong numbers are 1, 2 or 10 away. The right one is as often the smallest of the four as the
    second, third or largest, so that its size is no cue.
    """
    pairs = [(a, b) for a in range(2, LARGEST + 1) for b in range(2, LARGEST + 1)]
    asked = [(f"{a} + {b} =", a + b) for a, b in pairs]
    asked += [(f"{a} - {b} =", a - b) for a, b in pairs]
    items = []
    for question, result in shuffled([each for each in asked if each[1] >= 10], "sums")[:ITEMS]:
        steps = shuffled((1, 2, 10), question)
        smaller = shuffled(range(CHOICES), f"rank {question}")[0]
        wrong = [result - step for step in steps[:smaller]]
        wrong += [result + step for step in steps[smaller:]]
        choices = shuffled([str(number) for number in (result, *wrong)], question)
        items.append(
            {"question": question, "choices": choices, "answer": choices.index(str(result))}
        )
    return items

"""Items of ``sums``: additions and subtractions of numbers up to 50, made by a rule."""

from typing import Any

from scripts.bundled_tasks.sources import shuffled

LARGEST = 50
ITEMS = 300
CHOICES = 4


def sum_items() -> list[dict[str, Any]]:
    """Return sums and differences with four numbers as choices; none of them is real text.

    The wrong numbers are near the right one: 1, 2 or 10 away. No result is negative.
    """
    pairs = [(a, b) for a in range(2, LARGEST + 1) for b in range(2, LARGEST + 1)]
    asked = [(f"{a} + {b} =", a + b) for a, b in pairs]
    asked += [(f"{a} - {b} =", a - b) for a, b in pairs if a > b]
    items = []
    for question, result in shuffled(asked, "sums")[:ITEMS]:
        near = [result + step for step in (-10, -2, -1, 1, 2, 10) if result + step >= 0]
        wrong = shuffled(near, f"sums {question}")[: CHOICES - 1]
        choices = shuffled([str(number) for number in (result, *wrong)], question)
        items.append(
            {"question": question, "choices": choices, "answer": choices.index(str(result))}
        )
    return items

"""The items that come with the package: sound questions, and no cue but their meaning."""

import json
import os
from collections import Counter
from typing import Any

import pytest

from feldspar.core.bundled_items import BUNDLED_FOLDER, bundled_items
from feldspar.evaluate.tasks.bundled_tasks import (
    OFFLINE,
    BundledTask,
    bundled_tasks,
    set_up_process,
)

TASKS = bundled_tasks()
ON_TASKS = pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])


def items_of(task: BundledTask) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bundled_items(task.name).read_text().splitlines()]


@ON_TASKS
def test_each_item_has_one_right_answer_at_no_preferred_place(task: BundledTask) -> None:
    items = items_of(task)
    assert 200 <= len(items) == task.items <= 500
    places = Counter(item["answer"] for item in items)
    count = round(1 / task.chance)
    assert task.chance == 1 / count and set(places) == set(range(count))
    # Places are drawn: five standard deviations of a binomial count.
    spread = 5 * (len(items) * task.chance * (1 - task.chance)) ** 0.5
    assert all(abs(number - len(items) * task.chance) < spread for number in places.values())
    for item in items:
        assert len(set(item["choices"])) == len(item["choices"]) == count
        assert all(choice.strip() for choice in item["choices"])
    shown = [
        json.dumps({key: item[key] for key in item if key not in ("choices", "answer")})
        + item["choices"][item["answer"]]
        for item in items
    ]
    assert len(set(shown)) == len(shown)


@ON_TASKS
def test_the_longest_or_shortest_choice_is_not_the_answer(task: BundledTask) -> None:
    if task.name == "grammar_pairs":
        pytest.skip("both sentences differ in one word")
    items = items_of(task)
    for choose in (min, max):
        right = sum(
            choose(range(len(item["choices"])), key=lambda n: len(item["choices"][n]))
            == item["answer"]
            for item in items
        )
        spread = 5 * (task.chance * (1 - task.chance) / len(items)) ** 0.5
        assert abs(right / len(items) - task.chance) < spread


def test_passages_show_all_four_words() -> None:
    for item in items_of(next(task for task in TASKS if task.name == "last_word")):
        assert all(choice in item["context"] for choice in item["choices"])


def test_sums_are_right_and_of_any_rank() -> None:
    items = items_of(next(task for task in TASKS if task.name == "sums"))
    ranks: Counter[int] = Counter()
    for item in items:
        first, sign, second, _ = item["question"].split()
        result = int(first) + (int(second) if sign == "+" else -int(second))
        assert item["choices"][item["answer"]] == str(result)
        ranks[sorted(map(int, item["choices"])).index(result)] += 1
    spread = 5 * (len(items) * 3 / 16) ** 0.5
    assert all(abs(ranks[rank] - len(items) / 4) < spread for rank in range(4))


def test_sources_and_licences_lie_beside_the_items() -> None:
    about = (BUNDLED_FOLDER / "README.md").read_text()
    for task in TASKS:
        assert f"| `{task.name}` | {task.items} |" in about and task.licence in about
    assert "Princeton University" in (BUNDLED_FOLDER / "LICENSE-WordNet").read_text()
    assert "Python Software Foundation" in (BUNDLED_FOLDER / "LICENSE-Python").read_text()
    assert sum(path.stat().st_size for path in BUNDLED_FOLDER.iterdir() if path.is_file()) < 700_000


def test_only_bundled_tasks_keep_a_process_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OFFLINE, "TQDM_DISABLE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    set_up_process(["sums", "hellaswag"])
    assert not set(OFFLINE) & set(os.environ)
    set_up_process(["sums", "bundled"])
    assert all(os.environ[name] == "1" for name in OFFLINE)

"""Write the items of the bundled tasks anew: ``python -m scripts.bundled_tasks PACKAGES``.

PACKAGES is a folder that holds, for each package of ``sources.PACKAGES``, a folder of its name with
the package's files:

    apt-get download wordnet-base scowl r-cran-janeaustenr libpython3.13-testsuite
    for file in *.deb; do dpkg-deb -x $file ${file%%_*}; done

The same versions give the same bytes.
"""

import sys
from pathlib import Path

from scripts.bundled_tasks.code import next_line_items
from scripts.bundled_tasks.grammar import grammar_items
from scripts.bundled_tasks.prose import last_word_items
from scripts.bundled_tasks.sums import sum_items
from scripts.bundled_tasks.words import kind_of_items, word_meaning_items

from feldspar.core.files import write_atomically
from feldspar.core.json_files import json_text

FOLDER = Path(__file__).parents[2] / "src/feldspar/evaluate/tasks/bundled"


def write_items(packages: Path, folder: Path = FOLDER) -> None:
    """Write one file of items for each task."""
    tasks = {
        "last_word": last_word_items(packages),
        "word_meaning": word_meaning_items(packages),
        "kind_of": kind_of_items(packages),
        "grammar_pairs": grammar_items(packages),
        "next_code_line": next_line_items(packages),
        "sums": sum_items(),
    }
    for name, items in tasks.items():
        text = "".join(json_text(item, indent=None) for item in items)
        write_atomically(folder / f"{name}.jsonl", text)
        print(f"{name}: {len(items)} items, {len(text):,} characters")


if __name__ == "__main__":
    write_items(Path(sys.argv[1]))

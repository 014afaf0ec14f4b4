"""The way in which each example is tested: run as it stands, run in a shorter way, or only read.

The first row whose expression matches the beginning of a command holds for it.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain


@dataclass(frozen=True, eq=False)
class Row:
    """Commands, and what is done with them."""

    commands: str
    why: str = ""
    """The reason for anything else than running the command as it stands."""
    added: tuple[str, ...] = ()
    """Words that are added; the last value of an option counts."""
    small: bool = False
    """True if the recipe gets the overrides of ``shortened``."""
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Words that stand for something of the reader's, and what they become."""
    exits: int = 0
    only_read: bool = False
    data: bool = True
    """True if the command needs more than recipes."""

    def words(self, arguments: Sequence[str]) -> list[str]:
        """The command that is run, without the overrides of ``shortened``."""
        placed = [self.places.get(word, (word,)) for word in arguments]
        return [*chain.from_iterable(placed), *self.added]


RECIPE, RUN, FOLDER = "alibi-interpolation/small", "runs/quickstart", "folder"
TEXT = "text of packages and of the web is made here, training takes two steps"
ANEW = "--overwrite"
STUDY = "study={vary: {parametrization.learning_rate: [0.01, 0.02]}, targets: [{model.d_ff: 64}]}"
FOUR_RUNS = ("runs/a", "runs/b", "runs/c", "runs/d")
DOCUMENTS = "data/quickstart/documents"
PAIRS = "data/mediswift/hpo/validation.jsonl"
BEST = "folder/best.yaml"
MODEL = "downloads/gpt2"
TABLE = (
    Row(r".*\.\./again/", "test_open_release.py runs the commands of a card", only_read=True),
    # Plans
    Row(r"(--help|vision --help|config |recipe |doctor|vision plan )", data=False),
    Row(
        r"plan .*--law runs/family",
        "a law serves recipes of its own data",
        places={RECIPE: ("my-recipe.yaml",)},
    ),
    Row(r"plan .*--measured", "the recipe of that run", small=True),
    Row(
        r"plan \S+ --measure-products",
        "a recipe with masks",
        places={RECIPE: ("supar/small",)},
        data=False,
    ),
    Row(r"plan ", data=False),
    Row(r"reproduce .*--judge", "a file for FOLDER", places={FOLDER: ("docs/results/btlm.json",)}),
    Row(r"reproduce \S+ --scale small", "the same as without --scale", only_read=True, data=False),
    Row(r"reproduce ", "minutes, or days on GPUs", added=("--dry-run",), data=False),
    Row(r"results ", "the workspace holds these", places={"runs/reproduce": ("docs/results",)}),
    Row(
        r"(train|vision train) \S+/paper",
        "the papers' data and GPUs",
        added=("--dry-run",),
        data=False,
    ),
    # Training
    Row(r"new ", "the workspace holds the recipe", added=(ANEW,)),
    Row(r"quickstart", TEXT, small=True, added=("--out", "runs/again")),
    Row(r"train \S+ runtime.distribution=ddp", "refused without torchrun", small=True, exits=3),
    Row(r"train my-recipe.yaml", "the workspace holds the run", added=(ANEW,)),
    Row(r"(train|evaluate) runs/continued", "test_open_release.py unpacks one", only_read=True),
    Row(r"train runs/"),
    Row(rf"train {BEST}", "values that transfer found", places={BEST: ("my-recipe.yaml",)}),
    Row(r"train talk.yaml", "the workspace holds the run", added=(ANEW,)),
    Row(r"train folder$", "a run for FOLDER", places={FOLDER: ("runs/mine",)}),
    Row(r"train mediswift/kinds", "relations that the small ontology lacks", only_read=True),
    Row(r"train ", TEXT, small=True, added=(ANEW,)),
    Row(r"vision train ", TEXT, small=True, added=(ANEW,)),
    Row(r"coordinate-check ", "a minute each with --quick", only_read=True),
    Row(r"transfer my-recipe", "two trials of 16", added=("--trials", "2", STUDY)),
    Row(
        r"transfer ",
        f"{TEXT}, two rates and one target",
        small=True,
        added=("--trials", "2", "--workers", "1", STUDY),
    ),
    Row(r"scaling run my-recipe", "the workspace holds the family", added=("--out", "again")),
    Row(r"scaling run \S+ --out", "a recipe with targets", places={RECIPE: ("my-recipe.yaml",)}),
    Row(r"scaling run ", TEXT, small=True, added=("--workers", "1")),
    Row(r"scaling fit runs/quickstart", "a family for RUN...", places={RUN: FOUR_RUNS}),
    Row(r"scaling fit "),
    Row(
        r"noise-scale replay runs/quickstart",
        "a steered run for RUN",
        places={RUN: ("runs/steered",)},
    ),
    Row(r"noise-scale replay "),
    Row(r"noise-scale schedule ", "a pilot for RUN", places={RUN: ("runs/pilot",)}),
    Row(
        r"noise-scale branch ",
        "shorter branches of a pilot",
        places={RUN: ("runs/pilot",)},
        added=("--tokens", "16384"),
    ),
    # Measuring and giving away
    Row(r"evaluate \S+ --infilling", "a run that infills", places={RUN: ("runs/crystal-small",)}),
    Row(
        r"evaluate \S+ --pairs",
        "a run of pairs",
        places={RUN: ("runs/mediswift-small",), "notes.txt": (PAIRS,)},
    ),
    Row(r"evaluate \S+ --length-sweep", "a short sweep", places={RECIPE: ("my-recipe.yaml",)}),
    Row(
        r"evaluate \S+ --problems",
        "few problems and tokens",
        added=("--limit", "2", "--max-new-tokens", "8"),
    ),
    Row(
        r"evaluate runs/quickstart --messages",
        "a run of conversations",
        places={RUN: ("runs/chat",), "notes.txt": ("talks.jsonl",)},
    ),
    Row(r"evaluate --list-tasks", data=False),
    Row(
        r"evaluate \S+ --tasks (bundled|kind_of)",
        "few items, and a small model for a base that is fetched",
        added=("--limit", "2"),
        places={"imported": (MODEL,)},
    ),
    Row(
        r"evaluate (smollm2|imported) ",
        "a small model for a base that is fetched",
        places={"smollm2": (MODEL,), "imported": (MODEL,)},
    ),
    Row(r"evaluate runs/trunks", "a run for the trunk", places={"runs/trunks/0": (RUN,)}),
    Row(r"evaluate "),
    Row(
        r"generate ",
        "small models, which have few positions",
        added=("--max-new-tokens", "4"),
        places={"smollm2": (MODEL,), "imported": (MODEL,)},
    ),
    Row(
        r"chat ",
        "a short answer, and a small model for a base that is fetched",
        added=("--max-new-tokens", "8"),
        places={"imported": ("runs/chat",)},
    ),
    Row(r"vision evaluate "),
    Row(r"vision export .*onnx$", "the tutorial of images exports one", only_read=True),
    Row(r"vision export ", "the workspace holds the file", added=(ANEW,)),
    Row(
        r"release .*--verify",
        "a release of the reader's, or the folder that the card lies in",
        places={"mine": ("release",), ".": ("release",)},
    ),
    Row(r"release .*--upload", "a hub is needed: test_upload.py has one", only_read=True),
    Row(r"release \S+$", "the workspace holds the release", added=(ANEW,)),
    Row(
        r"export (smollm2|imported) ",
        "a small model for a base that is fetched",
        places={"smollm2": (MODEL,), "imported": (MODEL,)},
        added=(ANEW,),
    ),
    Row(r"export ", "the workspace holds the folder", added=(ANEW,)),
    Row(r"import .*--convert-pickles", "test_refusals.py makes pickles", only_read=True),
    Row(r"import smollm2-135m ", "fetched from the package index", only_read=True),
    Row(
        r"adapt ",
        "a model here, and a tokenizer that extends its own",
        places={"imported": (MODEL,), "data/tokenizer": ("extended",)},
    ),
    Row(r"extend-context ", "the models here have a table of positions", only_read=True),
    Row(r"(release|import|report|trace) "),
    # Text
    Row(r"corpus build slimpajama-dc/paper", "the paper's documents", only_read=True),
    Row(r"corpus build ", TEXT, small=True, added=(ANEW,)),
    Row(
        r"corpus dedup raw/",
        "one process for a cluster, a folder here for a disk that is shared",
        added=("--engine", "serial", "--workers", "1", "--out", "clean"),
    ),
    Row(r"corpus dedup "),
    Row(r"corpus ontology hpo", "fetched from the package index", only_read=True),
    Row(r"corpus ontology ", "few terms", added=("--least", "5")),
    Row(r"corpus report folder", "documents for DIR", places={FOLDER: (DOCUMENTS,)}),
    Row(r"corpus report "),
    Row(r"tokenizer extend \S+$", TEXT, small=True, places={RECIPE: ("bilingual/small",)}),
    Row(
        r"tokenizer extend .*--new-tokens",
        "little text",
        added=("--new-tokens", "20"),
        places={"imported": (MODEL,)},
    ),
    Row(r"tokenizer "),
    Row(r"tokens build \S+/paper", "the papers' documents", only_read=True),
    Row(r"tokens build ", TEXT, small=True, added=(ANEW,)),
    Row(r"tokens order ", "few steps", places={"100": ("1",)}),
    Row(r"tokens "),
)

PROGRAMS_ONLY_READ = {
    "docs/methods/long-context.md": "the models here have a table of positions",
    "docs/methods/coordinate-check.md": "a minute",
    "docs/methods/noise-scale.md": "part of a program of the reader's",
    "docs/methods/sparse-pretraining.md": "part of a program of the reader's",
    "docs/methods/sparsity.md": "the workspace holds no sparse run",
}
"""Pages whose Python is not run, each with the reason."""
PYTHON_PLACES = {'"quickstart"': '"my-recipe.yaml"', "2e6 tokens": "4 steps"}
"""Words of Python programs, and the shorter ones that stand for them when a program is run."""


def row_of(arguments: Sequence[str]) -> Row:
    """The row of a command. Raises LookupError for one that has none."""
    text = shlex.join(arguments)
    for row in TABLE:
        if re.match(row.commands, text):
            return row
    raise LookupError(f"tests/examples/table.py has no row for: feldspar {text}")

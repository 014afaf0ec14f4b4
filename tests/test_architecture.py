"""What `docs/architecture.md` and the house rules say of the code, held against the code."""

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import feldspar.vision
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.keys import all_keys
from feldspar.recipe.load import LoadedVisionRecipe, load_any_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.shipped import shipped_names
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.plan import plan_vision_recipe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "feldspar"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]

FILE_LINES = 450
FUNCTION_LINES = 80
BANNED_FILES = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
REQUIRED_PACKAGES = {
    "torch",
    "numpy",
    "ruamel",
    "pydantic",
    "pydantic_core",
    "rich",
    "typer",
    "click",
    "safetensors",
    "tokenizers",
    "packaging",
}


def room_table() -> dict[str, tuple[set[str], str]]:
    """Room to the rooms it may import and the text on torch, from the documentation."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table: dict[str, tuple[set[str], str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not cells[0].startswith("`"):
            continue
        name, allowed, torch = cells[0].split("`")[1], cells[2], cells[3]
        words = set(re.findall(r"[a-z_]+", allowed))
        is_all = "above" in words or "everything" in words
        table[name] = (set(table) if is_all else words & set(table), torch)
    return table


TABLE = room_table()
ALLOWED = {name: allowed | {name} for name, (allowed, _) in TABLE.items()}
NAMED_FILES = {
    ("plan", "tokens"): ("feldspar.tokens.sequences.resolve",),
    ("plan", "noise_scale"): ("feldspar.noise_scale.control.controller",),
    ("plan", "huggingface"): (
        "feldspar.huggingface.adapter",
        "feldspar.huggingface.export_class",
    ),
    ("vision", "corpus"): ("feldspar.corpus.readers.archives",),
    ("prepare", "runtime"): ("feldspar.runtime.run_folder",),
    ("prepare", "huggingface"): (
        "feldspar.huggingface.import_folder",
        "feldspar.huggingface.pickles",
    ),
}
"""Rooms of which another may use the named files only."""
REMOTE = PACKAGE / "huggingface" / "remote"
"""Files that exported folders carry and that transformers imports alone, from a copy. Hence they
use transformers, which is there, import one another as neighbours, and nothing of feldspar."""


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Modules that the nodes import; for ``from a import b`` both a and a.b."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute"
            if node.level:
                yield "." * node.level + node.module
                continue
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    """Return the room of a module of feldspar, or None for feldspar itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else None


def test_the_table_holds_every_room_and_has_no_cycle() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= set(TABLE), "docs/architecture.md lacks a room"
    list(TopologicalSorter({name: allowed for name, (allowed, _) in TABLE.items()}).static_order())
    assert not any("cli" in allowed for name, allowed in ALLOWED.items() if name != "cli")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_are_absolute_except_in_exported_code(path: Path) -> None:
    found = {name for name in imports(ast.walk(tree_of(path))) if name.startswith(".")}
    neighbours = {f".{other.stem}" for other in REMOTE.glob("*.py")}
    assert found <= (neighbours if path.parent == REMOTE else set())


@pytest.mark.parametrize("path", sorted(REMOTE.glob("*.py")), ids=lambda path: path.name)
def test_exported_code_runs_without_feldspar(path: Path) -> None:
    for module in imports(ast.walk(tree_of(path))):
        top = module.split(".")[0]
        assert top in {"", "torch", "transformers"} | sys.stdlib_module_names, f"{module} is alien"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_rooms_import_only_what_the_table_allows(path: Path) -> None:
    own = room_of(module_of(path))
    if own is None:
        return
    allowed = ALLOWED[own]
    for module in set(imports(ast.walk(tree_of(path)))):
        if module.startswith("feldspar."):
            room = room_of(module)
            assert room is None or room in allowed, f"{own} must not import {module}"
            only = NAMED_FILES.get((own, room or ""), (module,))
            assert module.startswith(only), f"{own} may import {only} only, not {module}"


FLOORS = {"tokens": ("tokenizer", "shards", "sequences")}
"""Floors of a room, each of which may import those before it."""
KIT = "feldspar.papers.kit"
"""The parts that the experiments of all papers share."""


def test_papers_import_the_kit_and_no_other_paper() -> None:
    for path in sorted((PACKAGE / "papers").glob("*/*.py")):
        own = f"feldspar.papers.{path.parent.name}"
        others = [
            name
            for name in imports(ast.walk(tree_of(path)))
            if name.startswith("feldspar.papers.") and not name.startswith((own, KIT))
        ]
        assert not others, f"{path}: {others}"


@pytest.mark.parametrize("room", FLOORS)
def test_a_floor_imports_only_the_floors_below_it(room: str) -> None:
    for height, floor in enumerate(FLOORS[room]):
        upper = tuple(f"feldspar.{room}.{other}" for other in FLOORS[room][height + 1 :])
        for path in (PACKAGE / room / floor).rglob("*.py"):
            above = [name for name in imports(ast.walk(tree_of(path))) if name.startswith(upper)]
            assert not above, f"{path}: {above}"


def test_rooms_offer_no_names_inside_the_package() -> None:
    outside = PACKAGE / "vision" / "__init__.py"
    for path in sorted(PACKAGE.rglob("*/__init__.py")):
        assert path == outside or not set(imports(ast.walk(tree_of(path)))), path
    offered = {f"feldspar.vision.{name}" for name in feldspar.vision.__all__}
    for path in FILES:
        if path != outside:
            assert not offered & set(imports(ast.walk(tree_of(path)))), path


def test_no_file_imports_itself_by_a_detour() -> None:
    known = {module_of(path) for path in FILES}
    graph = {
        module_of(path): {name for name in imports(iter(tree_of(path).body)) if name in known}
        - {module_of(path)}
        for path in FILES
        if path.name != "__init__.py"
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


BEHIND_A_CHECK = {
    "sparsity/kernels/builder.py": "llvmlite",
    "sparsity/kernels/products.py": "llvmlite",
}
"""Files that need an optional package throughout; others import them inside functions only."""


def test_files_that_need_an_optional_package_are_imported_inside_functions() -> None:
    needy = {module_of(PACKAGE / name) for name in BEHIND_A_CHECK}
    for path in FILES:
        if module_of(path) not in needy:
            assert not needy & set(imports(iter(tree_of(path).body))), path


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_optional_packages_are_imported_where_they_are_needed(path: Path) -> None:
    for module in imports(iter(tree_of(path).body)):
        top = module.split(".")[0]
        known = top in sys.stdlib_module_names or top in REQUIRED_PACKAGES or top == "feldspar"
        known = known or path.parent == REMOTE
        known = known or BEHIND_A_CHECK.get(path.relative_to(PACKAGE).as_posix()) == top
        assert known, f"{top} is optional: import it inside the adapter that needs it"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_are_small_plain_and_described(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.isascii(), "ASCII in code"
    assert len(text.splitlines()) <= FILE_LINES
    assert path.stem not in BANNED_FILES, "name the idea"
    tree = tree_of(path)
    assert ast.get_docstring(tree) or not tree.body, "what goes in, what comes out"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{node.name} has {length} lines"
    for name, node in public_definitions(tree):
        assert ast.get_docstring(node), f"{name} has no docstring"


def public_definitions(
    holder: ast.Module | ast.ClassDef,
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Functions, classes and their methods whose names do not begin with an underscore."""
    for node in holder.body:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from (
                    (f"{node.name}.{name}", inner) for name, inner in public_definitions(node)
                )


def torch_free_modules() -> list[str]:
    modules = []
    for path in FILES:
        module = module_of(path)
        room = module.split(".")[1] if module.count(".") else None
        torch = TABLE[room][1] if room in TABLE else "no"
        words = re.sub(r"[`,]| the", "", torch).split()
        named = path.stem in words
        loads_torch = {"yes": True, "no": False, "only": named, "all": not named}
        if path.stem == "__init__" or not loads_torch[words[0]]:
            modules.append(module)
    return modules


def test_torch_free_files_load_no_torch() -> None:
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(f'{name} loads torch')\n"
    )
    command = [sys.executable, "-c", script, *torch_free_modules()]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_key_of_a_recipe_is_described() -> None:
    keys = [*all_keys(Recipe), *all_keys(VisionRecipe)]
    assert [key for key, field in keys if not (field.description or "").strip()] == []


def shipped_variants() -> list[tuple[str, str]]:
    """Each shipped recipe, and with each option of each choice."""
    variants = []
    for name in shipped_names():
        choices = load_any_recipe(name).recipe.choices
        options = [
            [f"choose.{choice}={option}" for option in choices[choice]] for choice in choices
        ]
        single = [option for choice in options for option in choice]
        variants += [(name, override) for override in ["seed=0", *single]]
    return variants


@pytest.mark.parametrize(("name", "override"), shipped_variants())
def test_every_shipped_recipe_plans(name: str, override: str) -> None:
    loaded = load_any_recipe(name, [override])
    if isinstance(loaded, LoadedVisionRecipe):
        planned = plan_vision_recipe(loaded.recipe)
        assert planned.timeline.steps > 0 and planned.timeline.parameters > 0
        return
    plan = plan_recipe(loaded.recipe)
    assert plan.timeline.steps > 0 and plan.shapes.parameters > 0
    assert len(plan.table.tensors) == len(plan.shapes.rows)


@pytest.mark.parametrize("name", shipped_names())
def test_every_combination_of_choices_loads(name: str) -> None:
    choices = load_any_recipe(name).recipe.choices
    for combination in itertools.product(*choices.values()):
        chosen = dict(zip(choices, combination, strict=True))
        recipe = load_any_recipe(
            name, [f"choose.{key}={value}" for key, value in chosen.items()]
        ).recipe
        assert recipe.choose == chosen


def test_a_paper_and_its_small_twin_share_their_method() -> None:
    names = {name for name in shipped_names() if name.endswith("/paper")}
    assert {name.replace("/paper", "/small") for name in names} <= set(shipped_names())


def test_files_that_pages_name_are_there() -> None:
    named = re.compile(r"`((?:[\w.]+/)+[\w]+\.(?:py|yaml|json|md))[`:]")
    folders = {path.name for path in [*ROOT.iterdir(), *PACKAGE.iterdir()] if path.is_dir()}
    missing = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for name in named.findall(page.read_text(encoding="utf-8")):
            is_ours = name.split("/")[0] in folders and "NAME" not in name
            if is_ours and not ((ROOT / name).exists() or (PACKAGE / name).exists()):
                missing.append(f"{page.relative_to(ROOT)}: {name}")
    assert missing == []

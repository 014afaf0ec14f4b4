"""The names that feldspar offers: quick to import, type-checked, never taken by a room."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import feldspar
from tests.examples.collect import Example, python_programs
from tests.examples.table import PROGRAMS_ONLY_READ

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "pydantic", "transformers", "pyarrow")
ROOMS = [name for name in feldspar.__all__ if (ROOT / "src/feldspar" / name).is_dir()]
RIGHT = """\
import feldspar

recipe = feldspar.load_recipe("quickstart", ["seed=1"])
feldspar.load_recipe(recipe, {"seed": 2})
steps: int = feldspar.plan(recipe).timeline.steps
tokens: int = feldspar.train(recipe, "runs/first").position
model: feldspar.Model = feldspar.open_model("runs/first")
shape = model.logits([[1, 2, 3]]).shape
text: str = model.generate("Once", max_new_tokens=5)
bits: float = model.bits_per_byte(text)
size: int = model.tokenizer.vocab_size
"""
WRONG = """\
import feldspar

feldspar.load_recipe(1, 2, 3, nonsense=4)
feldspar.train("quickstart", overwrite="yes")
feldspar.open_model("runs/first").generate(3)
feldspar.no_such_name("quickstart")
"""


def test_every_name_is_there() -> None:
    for name in feldspar.__all__:
        value = getattr(feldspar, name)
        assert callable(value) and value.__doc__, name
    assert set(feldspar.__all__) <= set(dir(feldspar))
    assert not hasattr(feldspar, "no_such_name")


def test_importing_feldspar_loads_no_large_package() -> None:
    script = f"import sys, feldspar\nprint(*set({HEAVY}) & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.returncode == 0 and loaded.stdout.split() == [], loaded.stderr


def test_a_room_of_the_same_name_does_not_replace_the_function() -> None:
    script = (
        "import importlib, sys, feldspar\n"
        "from feldspar.plan.timeline import Timeline\n"
        "for name in sys.argv[1:]:\n"
        "    before = getattr(feldspar, name)\n"
        "    room = importlib.import_module('feldspar.' + name)\n"
        "    assert getattr(feldspar, name) is before is not room, name\n"
        "    assert before.__name__ == name\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *ROOMS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_rooms_share_names_with_functions() -> None:
    assert {"plan", "train"} <= set(ROOMS), "else the test above has nothing to look at"
    assert importlib.import_module("feldspar.plan") is not feldspar.plan


def type_errors(folder: Path, text: str) -> tuple[int, str]:
    """Return pyrefly's exit code and words about a program that uses feldspar."""
    pyrefly = shutil.which("pyrefly", path=str(Path(sys.executable).parent)) or shutil.which(
        "pyrefly"
    )
    if pyrefly is None:
        pytest.skip("pyrefly is not installed")
    (folder / "probe.py").write_text(text, encoding="utf-8")
    (folder / "pyrefly.toml").write_text(f'search-path = ["{ROOT / "src"}"]\n', encoding="utf-8")
    command = [pyrefly, "check", "--python-interpreter-path", sys.executable, "probe.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_type_checker_accepts_right_calls(tmp_path: Path) -> None:
    code, told = type_errors(tmp_path, RIGHT)
    assert code == 0, told


WHOLE = [
    each for each in python_programs() if "part of" not in PROGRAMS_ONLY_READ.get(each.place, "")
]


@pytest.mark.parametrize("program", WHOLE, ids=lambda program: program.place)
def test_a_type_checker_accepts_the_programs_of_the_docs(program: Example, tmp_path: Path) -> None:
    code, told = type_errors(tmp_path, program.text)
    assert code == 0, told


def test_a_type_checker_refuses_wrong_calls(tmp_path: Path) -> None:
    code, told = type_errors(tmp_path, WRONG)
    assert code == 1, told
    for line in range(3, 7):
        assert f"probe.py:{line}:" in told, f"line {line} is accepted:\n{told}"

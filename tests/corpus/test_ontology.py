"""An ontology's terms as text and as pairs: branches, parts, bad input."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.core.artifact import Wanted, find_artifact
from feldspar.core.errors import UserError
from feldspar.corpus.ontology import (
    branches,
    build_ontology,
    kind_pairs,
    read_terms,
    wanted_ontology,
    write_ontology,
)
from feldspar.recipe.sections.corpus import OntologySettings

OBO = r"""format-version: 1.2

[Term]
id: X:1
name: Root

[Term]
id: X:2
name: Organ One
def: "All of \"one\"." [ref]
is_a: X:1 ! Root

[Term]
id: X:3
name: Organ Two
is_a: X:1 {source="somewhere"} ! Root

[Term]
id: X:4
name: Part
def: "A part of one."
comment: Often seen.
synonym: "Piece" EXACT []
synonym: "Bit\, small" RELATED []
is_a: X:2 ! Organ One
is_a: X:7 ! Deep

[Term]
id: X:5
name: Both
def: "Of both." []
is_a: X:3
is_a: X:4

[Term]
id: X:6
name: Gone
is_obsolete: true

[Term]
id: X:7
name: Deep
def: "Deep in one." []
is_a: X:2

[Term]
id: X:8
name: Elsewhere
def: "In two." []
is_a: X:3

[Typedef]
id: part_of
name: part of
"""
WANTED = Wanted("ontology")


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_terms_are_read() -> None:
    terms = read_terms(OBO, "x.obo")
    assert list(terms) == ["X:1", "X:2", "X:3", "X:4", "X:5", "X:7", "X:8"]
    assert terms["X:4"].text == ("Part. A part of one. Often seen. Also called: Piece; Bit, small.")
    assert terms["X:2"].definition == 'All of "one".' and terms["X:1"].text == "Root."
    assert terms["X:3"].parents == ["X:1"]


def test_branches_are_the_children_of_the_root_above() -> None:
    above = branches(read_terms(OBO, "x.obo"), "X:1")
    expected = {"X:1": "", "X:2": "2", "X:3": "3", "X:4": "2", "X:5": "23", "X:7": "2", "X:8": "3"}
    assert above == {
        name: frozenset(f"X:{child}" for child in found) for name, found in expected.items()
    }


def test_what_is_written(tmp_path: Path) -> None:
    report = write_ontology(OBO, "X:1", tmp_path / "out", place="x.obo", least=1, wanted=WANTED)
    assert report.labels == {"organ one": 3, "organ two": 1} and report.terms == 7
    records = {path.stem: read(path) for path in (tmp_path / "out").glob("*.jsonl")}
    texts = records.pop("terms")
    kinds = {part: records.pop(f"kinds-{part}") for part in ("train", "validation", "test")}
    assert {part: len(own) for part, own in kinds.items()} == report.kinds
    assert set(records) == {"train", "validation", "test"}
    pairs = [pair for part in records.values() for pair in part]
    assert len(texts) == 7 and sum(report.pairs.values()) == 4
    found = {pair["definition"]: pair["branch"] for pair in pairs}
    assert found["A part of one."] == "organ one" and found["In two."] == "organ two"
    assert "Of both." not in found
    parts = {record["id"]: record["part"] for record in texts}
    for part, found_there in records.items():
        assert all(parts[pair["id"]] == part for pair in found_there)


def test_statements_of_kinds_come_in_both_directions_and_keep_held_out_terms_apart() -> None:
    terms = read_terms(OBO, "x.obo")
    found = {part: kind_pairs(terms, part) for part in ("train", "validation", "test")}
    held_out = {term.name for term in terms.values() if term.part != "train"}
    for part, records in found.items():
        for true, turned in zip(records[::2], records[1::2], strict=True):
            child, parent = true["statement"].removesuffix(".").split(" is a kind of ")
            assert turned["statement"] == f"{parent} is a kind of {child}."
            assert (true["answer"], turned["answer"]) == ("yes", "no")
            [term] = [term for term in terms.values() if term.name == child]
            assert term.part == part
            assert parent in {terms[name].name for name in term.parents}
            assert part != "train" or parent not in held_out
    assert sum(map(len, found.values())) > 0


def test_the_word_that_gives_the_direction_away_is_left_out() -> None:
    changed = OBO.replace("name: Organ One", "name: Abnormal organ")
    assert changed != OBO
    terms = read_terms(changed, "x.obo")
    for part in ("train", "validation", "test"):
        for record in kind_pairs(terms, part):
            assert "bnormal" not in record["statement"]


def test_a_finished_folder_is_kept_and_another_refused(tmp_path: Path) -> None:
    file, out = tmp_path / "x.obo", tmp_path / "out"
    file.write_text(OBO)
    settings = OntologySettings(path=out, file=file, root="X:1", least=1)
    first = build_ontology(settings)
    made = (out / "manifest.json").stat().st_mtime_ns
    assert build_ontology(settings) == first
    assert (out / "manifest.json").stat().st_mtime_ns == made
    other = settings.model_copy(update={"root": "X:2"})
    with pytest.raises(UserError, match="was built with other settings") as caught:
        build_ontology(other)
    assert caught.value.found == "root: X:1 -> X:2"
    file.write_text(OBO + "\n")
    with pytest.raises(UserError, match="was built with other settings"):
        build_ontology(settings)
    assert build_ontology(settings, overwrite=True) == first
    file.unlink()
    assert find_artifact(out, wanted_ontology(settings)) is not None
    file.write_text(OBO)
    (out / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        build_ontology(settings, overwrite=True)


def test_equal_definitions_fall_into_one_part() -> None:
    terms = [f'[Term]\nid: X:{n}\nname: T{n}\ndef: "Some {n % 50} thing." []\n' for n in range(400)]
    found = read_terms("\n" + "\n".join(terms), "x.obo")
    for first, second in pairwise(range(0, 400, 50)):
        assert found[f"X:{first}"].part == found[f"X:{second}"].part
    parts = [term.part for term in found.values()]
    assert 0.6 < parts.count("train") / 400 < 1 and set(parts) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("text", "root", "message"),
    [
        ("no ontology", "X:1", "x.obo holds no terms"),
        (OBO, "X:99", "no term X:99 with terms below it"),
        (OBO, "X:8", "no term X:8 with terms below it"),
        (OBO.replace("id: X:8\n", ""), "X:1", "x.obo: a term has 0 ids"),
        (OBO.replace("name: Deep", "name: Deep\nis_a: X:4"), "X:1", "lies above itself"),
    ],
)
def test_an_ontology_that_is_none(tmp_path: Path, text: str, root: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_ontology(text, root, tmp_path / "out", place="x.obo", least=1, wanted=WANTED)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.obo"
    file.write_text(OBO)
    command = ["--quiet", "corpus", "ontology", str(file), "--out", str(tmp_path / "out")]
    assert run_with(command) == 2 and "--root is needed" in capsys.readouterr().err
    assert run_with([*command, "--root", "X:1"]) == 2
    assert "fewer than two branches of X:1 have 275 pairs" in capsys.readouterr().err
    assert run_with([*command, "--root", "X:1", "--least", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == {"organ one": 3, "organ two": 1}
    missing = [*command[:3], str(tmp_path / "none.obo"), *command[4:], "--root", "X:1"]
    assert run_with(missing) == 2 and "cannot be read" in capsys.readouterr().err

"""Points of a law: from a CSV, cleaned, or refused with the place of the fault."""

import math
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.laws.law import Point
from feldspar.plan.laws.law_points import clean_points, read_points


def write(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "flops,loss\n1e18,2.5\n2e19,2.25\n",
        "\ufeffflops, loss\r\n1e18, 2.5\r\n2e19, 2.25\r\n",
        'name,loss,flops\n"a, b",2.5,1e18\nc,2.25,2e19\n\n',
    ],
)
def test_columns_are_found_by_name(tmp_path: Path, text: str) -> None:
    assert read_points(write(tmp_path, text)) == [Point(1e18, 2.5), Point(2e19, 2.25)]


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("", "must have one column named flops", None),
        ("1e18,2.5\n", "must have one column named flops", None),
        ("flops\n1e18\n", "must have one column named loss", None),
        ("flops,loss,loss\n1,2,3\n", "must have one column named loss", None),
        ("flops,loss\n1e18,2.5\n2e19,low\n", "loss: 'low' is not a number", "points.csv:3"),
        ("flops,loss\n1e18\n", "loss: '' is not a number", "points.csv:2"),
    ],
)
def test_what_is_no_table_of_points_is_refused(
    tmp_path: Path, text: str, message: str, where: str | None
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_points(write(tmp_path, text))
    assert where is None or str(caught.value.where).endswith(where)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a CSV file nor a run folder"):
        read_points(tmp_path / "absent.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not a CSV file"):
        read_points(binary)


def test_points_are_sorted_and_doubles_averaged_aloud() -> None:
    points, warnings = clean_points(
        [Point(3e19, 2.0), Point(1e18, 2.6), Point(3e19, 2.2), Point(1e18, 2.6)]
    )
    assert points == (Point(1e18, 2.6), Point(3e19, 2.1))
    assert warnings == [
        "2 points have 1e+18 FLOPs (losses 2.6, 2.6): averaged",
        "2 points have 3e+19 FLOPs (losses 2, 2.2): averaged",
    ]
    assert clean_points(points) == (points, [])


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_values_without_a_logarithm_are_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"^loss: point 2 has loss"):
        clean_points([Point(1e18, 2.0), Point(2e18, value)])
    with pytest.raises(UserError, match=r"^flops: point 1 has flops"):
        clean_points([Point(value, 2.0)])

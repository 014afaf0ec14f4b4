"""Write the page and the figure of a fitted law from its record."""

from pathlib import Path
from typing import Any

from feldspar.core.files import write_atomically
from feldspar.core.json_files import write_json
from feldspar.report.canvas import Figure
from feldspar.report.figures import Band, Series, line_figure
from feldspar.report.page import Card, Fact, Section, Table, render_page

RECORD_NAME = "scaling.json"
FIGURE_NAME = "scaling.svg"
PAGE_NAME = "report.html"
FORM_NAMES = {
    "power": "(f / c)^(-a)",
    "power_plus_constant": "(f / c)^(-a) + b",
}


def write_scaling(record: dict[str, Any], folder: Path) -> None:
    """Write the record as scaling.json, then its figure and its page.

    Raises SetupError if packages of the extra ``report`` are not installed.
    """
    write_json(folder / RECORD_NAME, record)
    figure = scaling_figure(record)
    write_atomically(folder / FIGURE_NAME, figure.standalone)
    write_atomically(folder / PAGE_NAME, scaling_page(record, figure))


def scaling_figure(record: dict[str, Any]) -> Figure:
    """Draw losses over FLOPs, with the held-out one marked, and the law fitted to all points and
    without it."""
    held_out, samples = record["held_out"], record["curve"]
    x = [sample["flops"] for sample in samples]
    series = [
        Series("fitted to all", x, [sample["loss"] for sample in samples], colour=0),
        Series(
            "fitted without the held-out sizes",
            x,
            [sample["judged"] for sample in samples],
            is_reference=True,
        ),
    ]
    bands = []
    bounds = [sample["interval"] for sample in samples]
    if None not in bounds:
        low, high = ([bound[index] for bound in bounds] for index in (0, 1))
        bands = [Band("95 % of new runs", x, low, high)]
    unseen = {held_out["flops"], *(item["flops"] for item in held_out.get("others", ()))}
    for label, held in (("measured", False), ("held out", True)):
        chosen = [point for point in record["points"] if (point["flops"] in unseen) is held]
        losses = [point["loss"] for point in chosen]
        series.append(Series(label, [point["flops"] for point in chosen], losses, "markers"))
    return line_figure(
        finding(record), series, "training FLOPs", unit_of(record), log_x=True, bands=bands
    )


def scaling_page(record: dict[str, Any], figure: Figure) -> str:
    """Return the page: the law, its check, predictions, sizes, and all warnings."""
    held_out = record["held_out"]
    sections = [
        Section("Loss over FLOPs", [law_line(record), held_out_line(held_out)], figures=[figure]),
        Section(
            "Two forms",
            [
                f"Chosen by {record['chosen_by']}.",
                (
                    "Parameters and residuals belong to the fit to all points; "
                    "predictions of the held-out size belong to the fit without it."
                ),
            ],
            [_forms_table(record)],
        ),
    ]
    if record["predictions"]:
        text = f"By {record['predicted_by']}."
        sections.append(Section("Predictions", [text], [_predictions_table(record)]))
    if "sizes" in record:
        sections.append(Section("Sizes", tables=[_sizes_table(record["sizes"])]))
    basis = record["basis"]
    if basis is not None:
        sections.append(Section("What the law holds for", tables=[_basis_table(basis)]))
    if record["warnings"]:
        sections.append(Section("Doubts", record["warnings"]))
    points = record["points"]
    subtitle = (
        f"{len(points)} sizes from {points[0]['flops']:.3g} to {points[-1]['flops']:.3g} FLOPs, "
        f"{record['decades']:.2f} decades"
    )
    title = f"Scaling law {record.get('recipe', '')}".strip()
    return render_page(title, subtitle, sections, _card(record))


def _card(record: dict[str, Any]) -> Card:
    """Return the card: the law, and how well it predicted the size that it had not seen."""
    held_out, points = record["held_out"], record["points"]
    inside = held_out["inside_interval"]
    verdict, tone = (
        ("no interval", "neutral")
        if held_out["interval"] is None
        else (("prediction holds", "good") if inside else ("prediction fails", "bad"))
    )
    facts = [
        Fact("Error on the held-out size", f"{held_out['error_percent']:+.2f} %"),
        Fact("Exponent", f"{record['parameters']['exponent']:.3g}"),
        Fact("Residuals", f"{100 * record['residual_std']:.2f} %"),
        Fact("Sizes", str(len(points)), f"{record['decades']:.2f} decades of FLOPs"),
        Fact("Doubts", str(len(record["warnings"]))),
    ]
    return Card(verdict, tone, finding(record), facts)


def finding(record: dict[str, Any]) -> str:
    """Say in a sentence how well the law predicted the size that it had not seen."""
    held_out = record["held_out"]
    return (
        f"Smaller sizes predict {held_out['predicted']:.3f} for the largest, and it reaches "
        f"{held_out['observed']:.3f}"
    )


def unit_of(record: dict[str, Any]) -> str:
    """Return the unit of the losses, or "loss" if it is not known."""
    return "loss" if record["basis"] is None else record["basis"]["loss_unit"]


def law_line(record: dict[str, Any]) -> str:
    """Return the law in numbers, fitted to all points."""
    values = record["parameters"]
    constant = f" + {values['constant']:.4g}" if record["form"] == "power_plus_constant" else ""
    return (
        f"L(f) = (f / {values['scale_flops']:.4g})^(-{values['exponent']:.4g}){constant}, "
        f"residuals {100 * record['residual_std']:.2f} %"
    )


def held_out_line(held_out: dict[str, Any]) -> str:
    """Return the prediction for the largest size and its measured loss."""
    interval, inside = held_out["interval"], held_out["inside_interval"]
    where = f"{'inside' if inside else 'outside'} the interval {_bounds(interval)}"
    return (
        f"held out: {held_out['flops']:.4g} FLOPs, predicted {held_out['predicted']:.4f} from "
        f"{held_out['fitted_points']} smaller sizes, measured {held_out['observed']:.4f}: error "
        f"{held_out['error_percent']:+.2f} %, {'no interval' if interval is None else where}, "
        f"{held_out['extrapolation']:.3g} times the most FLOPs of the fit"
    )


def _bounds(interval: list[float] | None) -> str:
    return "none" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _forms_table(record: dict[str, Any]) -> Table:
    header = ["form", "a", "c", "b", "residuals %", "held-out predicted", "error %"]
    rows = []
    for form, fitted in record["forms"].items():
        if fitted is None:
            rows.append([FORM_NAMES[form], "too few points", *[""] * 5])
            continue
        values, judged = fitted["parameters"], fitted["held_out"]
        name = FORM_NAMES[form] + (", chosen" if form == record["form"] else "")
        shown = [f"{values[key]:.4g}" for key in ("exponent", "scale_flops", "constant")]
        told = ["not judged", ""]
        if judged is not None:
            told = [f"{judged['predicted']:.4f}", f"{judged['error_percent']:+.2f}"]
        rows.append([name, *shown, f"{100 * fitted['residual_std']:.2f}", *told])
    return Table(header, rows)


def _predictions_table(record: dict[str, Any]) -> Table:
    rows = [
        [
            f"{item['flops']:.4g}",
            f"{item['loss']:.4f}",
            _bounds(item["interval"]),
            f"{item['extrapolation']:.3g}",
        ]
        for item in record["predictions"]
    ]
    return Table(["FLOPs", "loss", "95 % of new runs", "times the largest fitted"], rows)


def _sizes_table(sizes: list[dict[str, Any]]) -> Table:
    rows = [
        [
            ", ".join(f"{key}={value}" for key, value in size["target"].items()) or "the recipe",
            f"{size['parameters']:,}",
            f"{size['tokens']:,}",
            f"{size['flops']:.4g}",
            f"{size['loss']:.4f}",
            ", ".join(f"{loss:.4f}" for loss in size["losses"]),
            f"{size['seconds']:.0f}",
        ]
        for size in sizes
    ]
    header = ["size", "parameters", "tokens", "FLOPs", "loss", "of each seed", "seconds"]
    return Table(header, rows)


def _basis_table(basis: dict[str, str]) -> Table:
    rows = [
        [name.replace("_", " ").replace("flops", "FLOPs"), text] for name, text in basis.items()
    ]
    return Table(["", "of the runs"], rows)

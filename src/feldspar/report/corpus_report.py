"""Write the page of a corpus: documents read, removed (with reasons), and duplicates.

It is made from ``report.json``, ``manifest.json`` and ``duplicates.parquet`` of a folder of
documents or of a deduplication.
"""

import json
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from feldspar.core.artifact import Artifact, open_artifact
from feldspar.core.errors import UserError, missing_extra
from feldspar.core.files import write_atomically
from feldspar.core.manifest import MANIFEST_NAME, is_manifest, kind_of
from feldspar.core.readable import amount
from feldspar.report.bars import grouped_bar_figure, heat_map
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, line_figure
from feldspar.report.page import Card, Fact, Section, Table, compare, render_page

KINDS = ("documents", "deduplication")
PAGE_NAME = "report.html"
TITLES = {
    "overlap": "in an evaluation set",
    "short": "too short",
    "exact": "exact copies",
    "near": "near duplicates",
}
SIMILARITY_BINS = 20


def write_corpus_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a finished folder, by default to FOLDER-report.html beside it.

    It is not written into the folder, because the folder's manifest names every file. Raises
    UserError if ``folder`` is neither a folder of documents nor of a deduplication.
    """
    target = out or folder.resolve().with_name(f"{folder.resolve().name}-{PAGE_NAME}")
    write_atomically(target, corpus_page(folder))
    return target


def corpus_page(folder: Path) -> str:
    """Return the page as HTML."""
    opened = _opened(folder)
    manifest = opened.manifest
    report = json.loads(opened.file("report.json").read_text(encoding="utf-8"))
    sections = [
        amounts_section(report),
        mixture_section(report),
        *decontamination_sections(report),
        *held_out_sections(report),
        matrix_section(report),
        lengths_section(report),
        clusters_section(report, _similarities(opened.file("duplicates.parquet"))),
        examples_section(report),
        Section("Settings", texts=[json.dumps(report["settings"], indent=2)], folded=True),
    ]
    kept = manifest.counts
    subtitle = f"feldspar {manifest.version}; {manifest.command}"
    return render_page(f"Corpus {folder.resolve().name}", subtitle, sections, _card(report, kept))


def _card(report: dict[str, Any], kept: Mapping[str, Any]) -> Card:
    """Return the card: what was read, kept and removed."""
    sources = report["sources"].values()
    read = sum(counts["read"]["documents"] for counts in sources)
    removed = read - kept["documents"]
    reasons = Counter[str]()
    for counts in sources:
        reasons.update({reason: each["documents"] for reason, each in counts["removed"].items()})
    headline = f"{kept['documents']:,} of {read:,} documents were kept"
    if reasons and max(reasons.values()):
        reason, most = reasons.most_common(1)[0]
        named = TITLES.get(reason, reason.replace("_", " "))
        headline += f"; most of the others ({most:,} of {removed:,}) were {named}"
    facts = [
        Fact("Documents kept", f"{kept['documents']:,}", f"{_share(removed, read)} removed"),
        Fact("Bytes kept", f"{amount(kept['bytes'])}B"),
        Fact("Sources", str(len(kept["sources"]))),
        Fact("Near or exact copies", f"{report['dropped']:,}", f"{report['edges']:,} pairs"),
    ]
    return Card("", "neutral", headline, facts)


def amounts_section(report: dict[str, Any]) -> Section:
    """Return a section: documents and bytes of each source, read, removed for each reason, kept."""
    tables = []
    reasons = list(next(iter(report["sources"].values()))["removed"])
    for unit in ("documents", "bytes"):
        columns = {
            name: [
                each[unit]
                for each in (
                    counts["read"],
                    *(counts["removed"][reason] for reason in reasons),
                    counts["kept"],
                )
            ]
            for name, counts in report["sources"].items()
        }
        columns["all sources"] = [sum(values) for values in zip(*columns.values(), strict=True)]
        titles = [TITLES.get(reason, reason.replace("_", " ")) for reason in reasons]
        header = [unit, "read", *titles, "kept", "removed"]
        rows = [
            [name, *(f"{value:,}" for value in values), _share(values[0] - values[-1], values[0])]
            for name, values in columns.items()
        ]
        tables.append(Table(header, rows))
    bad = report["bad_records"].items()
    left_out = ", ".join(f"{count:,} of {name}" for name, count in bad)
    words = [f"Bad records left out: {left_out or 'none'}."]
    replaced = {
        name: counts.get("replaced_characters", 0) for name, counts in report["sources"].items()
    }
    if any(replaced.values()):
        where = ", ".join(f"{count:,} of {name}" for name, count in replaced.items() if count)
        words.append(f"Characters that are not UTF-8, replaced by U+FFFD: {where}.")
    words += [
        f"{count:,} of {name}: {reason}."
        for name, counts in report["sources"].items()
        for reason, count in counts["noted"].items()
    ]
    if repeated := report.get("repeated_ids"):
        words.append(f"Documents with an id that another has: {repeated:,}.")
    local = {
        name: [counts["dropped_global"], counts["dropped_local"]]
        for name, counts in report["sources"].items()
    }
    rows = [[name, *(f"{value:,}" for value in values)] for name, values in local.items()]
    tables.append(Table(["duplicates", "across all sources", "within the source"], rows))
    return Section("Documents read, removed and kept", words, tables)


def mixture_section(report: dict[str, Any]) -> Section:
    """Return a section: shares of the sources in bytes, before and after."""
    shares = {}
    for label, act in (("read", "read"), ("kept", "kept")):
        sizes = {name: counts[act]["bytes"] for name, counts in report["sources"].items()}
        total = sum(sizes.values()) or 1
        shares[label] = {name: 100 * size / total for name, size in sizes.items()}
    rows = [
        [name, f"{shares['read'][name]:.2f}", f"{shares['kept'][name]:.2f}"]
        for name in shares["read"]
    ]
    return Section(
        "Mixture before and after",
        tables=[Table(["source", "% of bytes read", "% of bytes kept"], rows)],
        figures=[grouped_bar_figure("Share of bytes", shares, "%")],
    )


def held_out_sections(report: dict[str, Any]) -> list[Section]:
    """Return sections on training documents with a held-out copy; none without a split."""
    ways = report.get("copies_in_train")
    if not ways:
        return []
    rows = [
        [
            way,
            *(
                f"{amount[unit]:,}" if amount else "not sought"
                for amount in (copies["exact"], copies["near"])
                for unit in ("documents", "bytes")
            ),
        ]
        for way, copies in sorted(ways.items())
    ]
    used = report["settings"]["split"]["decontamination"] or "no copies"
    words = (
        "Number of training documents that have a copy among the validation and test "
        "documents, if exact or near copies were kept in one split. This corpus keeps "
        f"{used} in one split."
    )
    header = ["copies on one side", "exact copies", "bytes", "near copies", "bytes"]
    return [Section("Held-out documents in train", [words], [Table(header, rows)])]


def matrix_section(report: dict[str, Any]) -> Section:
    """Return heat maps: sources of removed and kept duplicates, and sources that share text."""
    names = list(report["sources"])
    lost = report["lost_to"]
    figures = []
    for unit in ("documents", "bytes"):
        values = [[lost[loser][keeper][unit] for keeper in names] for loser in names]
        title = f"Dropped {unit} of a source (row) by source of the kept duplicate (column)"
        figures.append(heat_map(title, names, names, values, "kept", "dropped", log=True))
    values = [[report["pairs"][first][second] for second in names] for first in names]
    title = "Pairs of duplicates between sources, before any was removed"
    figures.append(heat_map(title, names, names, values, "", "", log=True))
    if sizes := report.get("pair_bytes"):
        values = [[sizes[first][second] for second in names] for first in names]
        title = "Bytes of the shorter text of each of these pairs"
        figures.append(heat_map(title, names, names, values, "", "", log=True))
    if shared := report.get("duplicated"):
        for unit in ("documents", "bytes"):
            values = [[shared[own][other][unit] for other in names] for own in names]
            title = f"{unit.title()} of a source (row) with a duplicate in another (column)"
            figures.append(
                heat_map(title, names, names, values, "has a duplicate in", "", log=True)
            )
    return Section("Who duplicated whom", figures=figures)


def lengths_section(report: dict[str, Any]) -> Section:
    """Return a section: documents by length, read and kept, one line for each source."""
    lengths = report["lengths"]
    figures = []
    for label, key in (("as read", "read"), ("kept", "kept")):
        series = []
        for name, counts in lengths.items():
            total = sum(counts[key].values())
            sizes = sorted(int(size) for size in counts[key] if int(size))
            shares = [100 * counts[key][str(size)] / total for size in sizes]
            if sizes:
                series.append(Series(name, sizes, shares, "points"))
        figures.append(
            line_figure(f"Documents {label}", series, "bytes, from", "% of documents", log_x=True)
        )
    words = "Each point counts the documents from that many bytes up to twice as many."
    return Section("Lengths", [words], figures=figures)


def clusters_section(report: dict[str, Any], similarities: list[float | None]) -> Section:
    """Return a section: sizes of clusters, and similarity of removed documents to those that are
    kept."""
    below, settings = report["below_threshold"], report["settings"]
    paragraphs = [
        f"{report['dropped']:,} documents dropped, {report['edges']:,} pairs of duplicates; "
        + ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in report["candidates"].items())
        + "."
    ]
    if below is not None:
        limit = (settings.get("deduplicate") or settings).get("threshold")
        paragraphs.append(
            f"{100 * below:.2f} % of the dropped documents are less similar to the kept "
            f"one than the threshold {limit}: they are connected by a chain of pairs, or "
            "pairs were not compared."
        )
    figures = []
    sizes = {int(size): count for size, count in report["cluster_sizes"].items()}
    figures.append(
        line_figure(
            "Clusters by size",
            [Series("", list(sizes), list(sizes.values()), "markers")],
            "documents in the cluster",
            "clusters",
            log_x=True,
            log_y=True,
        )
    )
    known = [value for value in similarities if value is not None]
    if known:
        figures.append(similarity_figure(known))
    if len(known) < len(similarities):
        paragraphs.append(f"{len(similarities) - len(known):,} similarities were not measured.")
    return Section("Clusters", paragraphs, figures=figures)


def similarity_figure(values: list[float]) -> Figure:
    """Return the share of removed documents by their smallest similarity to the kept document."""
    bins = Counter(min(int(value * SIMILARITY_BINS), SIMILARITY_BINS - 1) for value in values)
    counts = [bins[number] for number in reversed(range(SIMILARITY_BINS))]
    shares = [100 * count / len(values) for count in accumulate(counts)]
    edges = [number / SIMILARITY_BINS for number in reversed(range(SIMILARITY_BINS))]
    title = "Dropped documents by similarity to the kept one"
    return line_figure(title, [Series("", edges, shares, "points")], "Jaccard similarity", "%")


def examples_section(report: dict[str, Any]) -> Section:
    """Return pairs of duplicates side by side."""
    title = "Pairs of duplicates"
    examples = report["examples"]
    if not examples:
        return Section(title, ["No pair of duplicates was found."])
    comparisons = []
    for example in examples:
        jaccard = example["jaccard"]
        similarity = "similarity not measured" if jaccard is None else f"J = {jaccard:.4f}"
        start = example["excerpt_start"]
        label = (
            f"{example['id_a']} ({example['origin_a']}) and {example['id_b']} "
            f"({example['origin_b']}): {similarity}"
            + (f"; from character {start:,}" if start else "")
        )
        comparisons.append(compare(label, example["excerpt_a"], example["excerpt_b"]))
    words = "Excerpts that begin shortly before the first difference; differences are marked."
    return Section(title, [words], comparisons=comparisons)


def decontamination_sections(report: dict[str, Any]) -> list[Section]:
    """Return sections on documents that were removed because an evaluation set contains them."""
    found = report.get("decontamination")
    if not found:
        return []
    rows = [
        [name, f"{each['ngrams']:,}", f"{each['documents']:,}", f"{each['bytes']:,}"]
        for name, each in found["sets"].items()
    ]
    header = ["set", "n-grams", "documents removed", "bytes removed"]
    words = "A document that overlaps with several sets counts in each."
    return [Section("Decontamination", [words], [Table(header, rows)])]


def _opened(folder: Path) -> Artifact:
    kind = kind_of(folder)
    if kind not in KINDS and not is_manifest(folder / MANIFEST_NAME):
        raise UserError(
            f"{folder} is not a corpus",
            found=kind,
            allowed="a folder that corpus build or corpus dedup made",
        )
    return open_artifact(folder, *KINDS)


def _similarities(path: Path) -> list[float | None]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    return parquet.read_table(path, columns=["jaccard"]).column("jaccard").to_pylist()


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"

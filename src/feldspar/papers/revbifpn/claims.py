"""The claims on RevBiFPN, judged by counted bytes, accuracies, gradients, losses and times."""

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean, median
from typing import Any

from feldspar.core.student_t import half_width
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.revbifpn.passes import CONTROL
from feldspar.papers.revbifpn.plain import LOGISTIC, plain_name

GB = 1e9
PAPER_GB = {"S4": 0.11, "S5": 0.23, "S6": 0.25, "B5": 1.44, "B6": 2.61, "B7": 5.05}
"""The paper's memory of an image in training, where it is printed."""
PAPER_GMACS = {"S0": 0.31, "S1": 0.62, "S2": 1.37, "S3": 3.33, "S4": 10.6, "S5": 21.8, "S6": 38.1}
RIVALS = {"S4": "B5", "S5": "B6"}
"""Sizes of like accuracy beside which the paper prints memory, but for S6 and B7."""
Counts = Mapping[str, Mapping[str, int]]
Rows = Mapping[str, Mapping[str, Any]]


def memory_claims(memory: Counts, depth: Mapping[str, Any], claims: StatedClaims) -> list[Claim]:
    """Judge what is counted on shapes."""
    return [
        _against_b7(memory, claims),
        _against_smaller(memory, claims),
        _without_reversibility(memory, claims),
        _by_depth(depth, claims),
        _as_printed(memory, claims),
    ]


def _against_b7(memory: Counts, claims: StatedClaims) -> Claim:
    name = "less-than-efficientnet-b7"
    own, other = memory["S6"], memory["B7"]
    ratio = other["alive"] / own["alive"]
    lowest = claims.limit(name, "figure") - claims.limit(name, "near")
    return claims.judged(
        name,
        f"{ratio:.1f} times less: {own['alive'] / GB:.3f} GB of S6 against "
        f"{other['alive'] / GB:.2f} GB of B7 (torchvision's layers, {other['pixels']} pixels); "
        f"tensors saved for the backward pass alone {other['saved'] / own['saved']:.1f} times less",
        held=ratio >= lowest,
        near_figure=claims.near(name, ratio),
    )


def _against_smaller(memory: Counts, claims: StatedClaims) -> Claim:
    name = "less-than-smaller-efficientnets"
    share = claims.limit(name, "share")
    told, held, near = [], True, True
    for own, other in RIVALS.items():
        ratio = memory[other]["alive"] / memory[own]["alive"]
        paper = PAPER_GB[other] / PAPER_GB[own]
        held &= ratio >= (1 - share) * paper
        near &= abs(ratio - paper) <= share * paper
        told.append(
            f"{own} {ratio:.1f} times less than {other} ({memory[own]['alive'] / GB:.3f} against "
            f"{memory[other]['alive'] / GB:.2f} GB)"
        )
    return claims.judged(name, ", ".join(told), held=held, near_figure=near)


def _without_reversibility(memory: Counts, claims: StatedClaims) -> Claim:
    name = "less-than-without-reversibility"
    ratios = {size: memory[size]["stored"] / memory[size]["alive"] for size in PAPER_GMACS}
    told = ", ".join(f"{size} {ratio:.1f}" for size, ratio in ratios.items())
    held = min(ratios.values()) >= claims.limit(name, "least")
    return claims.judged(name, f"times less than with stored activations: {told}", held=held)


def _by_depth(depth: Mapping[str, Any], claims: StatedClaims) -> Claim:
    name = "flat-in-depth"
    growth = {mode: values[-1] / values[0] for mode, values in depth["counted"].items()}
    same = depth["planned_step"] == depth["real_step"]
    held = (
        same
        and growth["reversible"] <= claims.limit(name, "growth")
        and growth["store"] >= claims.limit(name, "stored")
    )
    first, last = depth["extra_silos"][0], depth["extra_silos"][-1]
    shallow, deep = depth["counted"]["reversible"][0], depth["counted"]["reversible"][-1]
    rebuilt, stored = (
        ", ".join(f"{value / 1e6:.1f}" for value in depth["real_step"][mode])
        for mode in ("reversible", "store")
    )
    return claims.judged(
        name,
        f"from {first} to {last} extra silos x{growth['reversible']:.3f} ({shallow / 1e6:.2f} to "
        f"{deep / 1e6:.2f} MB an image of S0), stored x{growth['store']:.2f}; by depth, a real "
        f"step of 2 images of 64 pixels holds {rebuilt} MB, and {stored} MB where it stores, "
        f"{'as' if same else 'not as'} counted",
        held=held,
    )


def _as_printed(memory: Counts, claims: StatedClaims) -> Claim:
    name = "sizes-as-printed"
    own = {size: memory[size]["paper_multiply_adds"] / 1e9 for size in PAPER_GMACS}
    off = max(abs(own[size] / printed - 1) for size, printed in PAPER_GMACS.items())
    told = ", ".join(f"{size} {value:.3f}" for size, value in own.items())
    parameters = f"{memory['S0']['parameters']:,} (S0) to {memory['S6']['parameters']:,} (S6)"
    held = off <= claims.limit(name, "share")
    return claims.judged(name, f"{told} billion; parameters {parameters}", held=held)


def accuracy_claims(sizes: Rows, claims: StatedClaims) -> list[Claim]:
    """Judge the accuracies of the sizes, and those of the plain networks beside them."""
    own = [name for name in sizes if plain_name(name) in sizes] or list(sizes)
    pairs = list(pairwise(own))
    gains = [Gain.of(errors(sizes[large]), errors(sizes[small])) for small, large in pairs]
    steps = "; ".join(
        f"{large} makes {gain.worded('fewer', 'more')} errors than {small}{power(gain)}"
        for (small, large), gain in zip(pairs, gains, strict=True)
    )
    grown = claims.lower(
        "accuracy-grows-with-compute", f"{accuracies_in_words(sizes, own)}; {steps}", *gains
    )
    if plain_name(own[0]) not in sizes:
        return [grown]
    name = "competitive-at-equal-compute"
    beside = {size: Gain.of(errors(sizes[size]), errors(sizes[plain_name(size)])) for size in own}
    told = "; ".join(
        f"{size} makes {gain.worded('fewer', 'more')} errors than {plain_name(size)}{power(gain)}"
        for size, gain in beside.items()
    )
    rows = [*map(plain_name, own), LOGISTIC]
    held = all(gain.is_at_least(-claims.limit(name, "margin")) for gain in beside.values())
    return [
        grown,
        claims.judged(name, f"{accuracies_in_words(sizes, rows)}; {told}", held=held),
    ]


def accuracies_in_words(sizes: Rows, names: Sequence[str]) -> str:
    """Word accuracies with their multiply-adds."""
    return ", ".join(
        f"{name} {fmean(sizes[name]['accuracy']):.2%} with "
        f"{sizes[name]['multiply_adds'] / 1e6:.2f} million multiply-adds"
        for name in names
    )


def errors(row: Mapping[str, Any]) -> list[float]:
    """Return the share of errors by seed."""
    return [1 - accuracy for accuracy in row["accuracy"]]


def pass_claims(figures: Mapping[str, Any], claims: StatedClaims) -> list[Claim]:
    """Judge gradients, curves and times of rebuilt activations against stored ones."""
    return [
        _gradients(figures["gradients"], claims),
        _curves(figures["curves"], claims),
        _time(figures["seconds"], claims),
    ]


def _gradients(distances: Mapping[str, Sequence[float]], claims: StatedClaims) -> Claim:
    name = "gradients-are-equal"
    rounding, found = median(distances["rounding"]), median(distances["float32"])
    held = (
        found <= claims.limit(name, "times") * rounding
        and max(distances["float64"]) <= claims.limit(name, "double")
        and max(distances["grid"]) == 0
    )
    on_grid = "the same bits" if max(distances["grid"]) == 0 else f"{max(distances['grid']):.1e}"
    return claims.judged(
        name,
        f"distance as a share of the gradient: float32 {found:.1e}, where rounding alone gives "
        f"{rounding:.1e} (eight silos, median by seed of {len(distances['float32'])}); float64 at "
        f"most {max(distances['float64']):.1e}; on the grid {on_grid}",
        held=held,
    )


def _curves(curves: Mapping[str, Sequence[Sequence[float]]], claims: StatedClaims) -> Claim:
    name = "curves-are-equal"
    stored, rebuilt = curves["stored"], curves["rebuilt"]
    exact = curves["stored on the grid"] == curves["rebuilt on the grid"]
    own = fmean(apart(one, other) for one, other in zip(stored, rebuilt, strict=True))
    between = [apart(one, other) for one, other in combinations(stored, 2)]
    seeds = fmean(between) if between else 0.0
    return claims.judged(
        name,
        f"on the grid {'equal bit for bit' if exact else 'not equal'} over {len(stored[0])} steps "
        f"of each seed ({len(stored)}); off it {own:.1e} nats apart on average, two seeds "
        f"{seeds:.1e}",
        held=exact and own < seeds,
    )


def apart(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the mean distance of two curves, step by step."""
    return fmean(abs(own - their) for own, their in zip(one, other, strict=True))


def _time(seconds: Mapping[str, Sequence[float]], claims: StatedClaims) -> Claim:
    name = "one-more-forward-pass"
    stored, again = seconds["stored"], seconds[CONTROL]
    pairs = zip(seconds["rebuilt"], stored, again, strict=True)
    ratios = [own / ((one + other) / 2) for own, one, other in pairs]
    controls = [other / one for one, other in zip(stored, again, strict=True)]
    ratio, spread = fmean(ratios), half_width(ratios) or 0.0
    control, control_spread = fmean(controls), half_width(controls) or 0.0
    quiet = abs(control - 1) <= claims.limit(name, "control")
    return claims.judged(
        name,
        f"{ratio:.3f} times (+- {spread:.3f} over {len(ratios)} turns) the processor time of S0's "
        f"forward and backward pass with stored activations; control {control:.3f} "
        f"(+- {control_spread:.3f})",
        held=quiet and ratio + spread <= claims.limit(name, "most"),
        reading="" if quiet else "noisy",
    )

"""The claims of 2411.00999 on norm layers and on growing batches, judged by runs of any size."""

import math
import statistics
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from feldspar.papers.gns.equal_loss import BatchRuns, StepTime, loss_at, saved
from feldspar.papers.gns.norm_against_total import FINE_BLOCKS, farthest_from_mean
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import Figures
from feldspar.papers.kit.stated import StatedClaims

JUDGED_HALF_LIFE = 69
"""Steps; a decay of 0.99."""
TOKENS = "fewer tokens", "more tokens"
TIME = "less time", "more time"
RAMP_LOSS = "lower than the ramp's", "higher than the ramp's"
RAMP, LOOP = "ramp", "closed-loop"


def relation_claims(figures: Figures, claims: StatedClaims) -> list[Claim]:
    """Judge norm layers against the total, by the figures of ``relation_figures``."""
    if "relation" in figures:
        found = [slope_claim(figures, claims), smoothing_claim(figures, claims)]
    else:
        names = ("norm-layers-predict-total", "smoothing-raises-correlation")
        found = [claims.unrecorded(name) for name in names]
    return [*found, growth_claim(figures, claims), factor_claim(figures, claims)]


def by_half_life(figures: Figures) -> dict[int, dict[str, list[float]]]:
    """Return slope and correlation by seed, by the half-life of the averages in steps."""
    return {int(length): own for length, own in figures["relation"].items()}


def slope_claim(figures: Figures, claims: StatedClaims) -> Claim:
    """Judge slope and correlation of the total on norm layers."""
    name = "norm-layers-predict-total"
    found = by_half_life(figures)
    judged_at = max(length for length in found if length <= JUDGED_HALF_LIFE)
    slopes, correlations = found[judged_at]["slope"], found[judged_at]["correlation"]
    low, high = (claims.limit(name, own) for own in ("least_slope", "largest_slope"))
    is_steep = all(low <= slope <= high for slope in slopes)
    return claims.judged(
        name,
        f"slope {listed(slopes)}, r {listed(correlations)} by seed, averages of "
        f"{judged_at} steps; r of what changes over {FINE_BLOCKS} blocks beside the "
        f"common trend {listed(figures['beyond_trend'])}",
        held=is_steep and min(correlations) >= claims.limit(name, "least_r"),
        near_figure=claims.near(name, fmean(slopes)),
    )


def smoothing_claim(figures: Figures, claims: StatedClaims) -> Claim:
    """Judge the correlation of averages of several lengths."""
    found = {length: own["correlation"] for length, own in by_half_life(figures).items()}
    shortest, longest = min(found), max(found)
    pairs = zip(found[longest], found[shortest], strict=True)
    return claims.judged(
        "smoothing-raises-correlation",
        ", ".join(f"{length} steps: r {fmean(own):.3f}" for length, own in found.items()),
        held=all(long > short for long, short in pairs) and shortest < longest,
    )


def growth_claim(figures: Figures, claims: StatedClaims) -> Claim:
    """Judge how much the noise scale grows."""
    name = "noise-scale-grows"
    if "block_scales" not in figures:
        return claims.unrecorded(name)
    scales = np.array(figures["block_scales"]["total"])
    growth = scales[:, -1] / scales[:, 1]
    return claims.judged(
        name,
        f"from {scales[:, 1].mean():.1f} sequences in the second tenth of the tokens to "
        f"{scales[:, -1].mean():.1f} in the last, x{listed(growth.tolist())} by seed",
        held=bool((growth >= claims.limit(name, "times")).all()),
    )


def factor_claim(figures: Figures, claims: StatedClaims) -> Claim:
    """Judge how steady the factor from norm layers to total is, at every width."""
    name = "one-factor-serves-the-run"
    by_width = {"64": figures["factors"], **figures.get("width_factors", {})}
    away = max(stray(own) for own in by_width.values())
    words = "; ".join(f"width {width} {by_tenth(own)}" for width, own in by_width.items())
    return claims.judged(
        name,
        f"by tenth of the tokens from the second on: {words}",
        held=away <= claims.limit(name, "share"),
        away=away,
    )


def reading_claim(figures: Figures, claims: StatedClaims) -> Claim:
    """Judge how steady the factor of a model is that had learnt to read before."""
    name = "one-factor-serves-a-model-that-reads"
    factors = figures["reading_factors"]
    away, chance = stray(factors), max(figures["reading_stray_by_chance"])
    return claims.judged(
        name,
        f"by tenth of the tokens from the second on: {by_tenth(factors)}; it strays by {away:.0%}, "
        f"a constant factor would by {chance:.0%}, as steps scatter",
        held=away <= claims.limit(name, "share"),
        away=away,
    )


def stray(factors: Sequence[Sequence[float]]) -> float:
    """Return the largest share by which a factor lies off the mean of its run, from the second
    tenth on; infinite where a factor is."""
    late = np.array(factors)[:, 1:]
    if not np.isfinite(late).all():
        return math.inf
    return float(farthest_from_mean(late).max())


def by_tenth(factors: Sequence[Sequence[float]]) -> str:
    """Word the factor in each tenth from the second on, mean over the seeds."""
    return ", ".join(f"{value:.2f}" for value in np.array(factors)[:, 1:].mean(axis=0))


def batch_claims(
    batches: Mapping[str, BatchRuns], baseline: str, time: StepTime, claims: StatedClaims
) -> list[Claim]:
    """Judge the ramp and the closed loop against constant batches."""
    found = [
        tokens_claim(batches[RAMP], batches[baseline], claims),
        time_claim(batches[RAMP], batches[baseline], time, claims),
        loop_claim(batches, baseline, time, claims),
    ]
    if sum(map(is_constant, batches)) > 1:
        found += [
            ramp_against_constants_claim(batches, time, claims),
            loop_against_constants_claim(batches, claims),
        ]
    return found


def tokens_claim(ramp: BatchRuns, reference: BatchRuns, claims: StatedClaims) -> Claim:
    """Judge the tokens that the ramp saves against the constant batch that it ends at."""
    name = "ramp-saves-tokens"
    tokens = token_savings(ramp, reference)
    steps = " against ".join(f"{runs.curves[0].n_steps:,}" for runs in (ramp, reference))
    return claims.lower(
        name,
        f"{tokens.worded('fewer', 'more')} than {reference.name}, in {steps} steps; final "
        f"held-out loss {fmean(ramp.final_losses):.4f} against "
        f"{fmean(reference.final_losses):.4f}",
        tokens,
        near_figure=claims.near(name, tokens.mean),
    )


def time_claim(
    ramp: BatchRuns, reference: BatchRuns, time: StepTime, claims: StatedClaims
) -> Claim:
    """Judge the modelled time that the ramp saves against the same constant batch."""
    name = "ramp-saves-time"
    seconds = time_savings(ramp, reference, time)
    at_once = equal_time_gain(ramp, reference, time)
    return claims.lower(
        name,
        f"{seconds.worded('less', 'more')} than {reference.name}, a step taken as "
        f"{1000 * time.fixed_seconds:.2f} ms and {1e6 * time.seconds_per_token:.2f} us a token "
        f"(fitted to all runs); at equal time its loss is "
        f"{at_once.worded('lower', 'higher')}",
        seconds,
        near_figure=claims.near(name, seconds.mean),
    )


def ramp_against_constants_claim(
    batches: Mapping[str, BatchRuns], time: StepTime, claims: StatedClaims
) -> Claim:
    """Judge the ramp against the constant batch of the lowest loss."""
    ramp, best = batches[RAMP], batches[best_constant(batches)]
    tokens, seconds = token_savings(ramp, best), time_savings(ramp, best, time)
    return claims.lower(
        "ramp-beats-every-constant",
        f"of {sum(map(is_constant, batches))} constant batches {best.name} ends lowest, at "
        f"{fmean(best.final_losses):.4f} against the ramp's {fmean(ramp.final_losses):.4f}: the "
        f"ramp needs {tokens.worded(*TOKENS)} and {seconds.worded(*TIME)}",
        tokens,
    )


def loop_claim(
    batches: Mapping[str, BatchRuns], baseline: str, time: StepTime, claims: StatedClaims
) -> Claim:
    """Judge the closed loop against the ramp that was set by hand."""
    loop, ramp, reference = batches[LOOP], batches[RAMP], batches[baseline]
    better = Gain.of(loop.final_losses, ramp.final_losses)
    saved_words = token_savings(loop, reference).worded(*TOKENS)
    if loop.has_steps:
        saved_words += f" and {time_savings(loop, reference, time).worded(*TIME)}"
    ends = [
        curve.batches[-2 if len(curve.batches) > 1 else -1]
        for curve in loop.curves
        if curve.batches
    ]
    at_end = f", at the end {', '.join(map(str, ends))} sequences" if ends else ""
    return claims.kept(
        "closed-loop-matches-ramp",
        f"final held-out loss {better.worded(*RAMP_LOSS)}, in "
        f"{fmean([curve.n_steps for curve in loop.curves]):,.0f} steps{at_end}; {saved_words} than "
        f"{baseline}",
        better,
    )


def loop_against_constants_claim(batches: Mapping[str, BatchRuns], claims: StatedClaims) -> Claim:
    """Judge the closed loop against the constant batch of the lowest loss."""
    best = batches[best_constant(batches)]
    gain = Gain.of(batches[LOOP].final_losses, best.final_losses)
    return claims.lower(
        "closed-loop-beats-every-constant",
        f"final held-out loss {gain.lower_or_higher} than that of {best.name}, the best "
        "constant batch",
        gain,
    )


def overhead_claim(
    step_seconds: Mapping[str, Mapping[str, Sequence[float]]], claims: StatedClaims
) -> Claim:
    """Judge the median step by what is measured, at every width; ``none`` measures nothing."""
    name = "norm-layers-are-free"
    held, words = True, []
    for width, seconds in step_seconds.items():
        more = overheads(seconds)
        told = ", ".join(f"{own} {value:+.1%}" for own, value in more.items())
        words.append(f"width {width}: {told}")
        held &= more["norm"] <= claims.limit(name, "share") and more["norm"] < more["all"]
    said = f"processor time of a step, against no measurement: {'; '.join(words)}"
    return claims.judged(name, said, held=held)


def overheads(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the share of time that each kind of measurement adds: the median over turns of its
    step's time over that of the step without, which was taken in the same turn."""
    plain = seconds["none"]
    return {
        name: statistics.median(a / b for a, b in zip(own, plain, strict=True)) - 1
        for name, own in seconds.items()
        if own is not plain
    }


def token_savings(runs: BatchRuns, reference: BatchRuns) -> Gain:
    """Return the share of the reference's tokens saved on the way to its final loss, by seed."""
    pairs = zip(runs.curves, reference.curves, strict=True)
    shares = [saved(own.tokens, own.losses, ref.tokens, ref.losses) for own, ref in pairs]
    return Gain(tuple(shares))


def time_savings(runs: BatchRuns, reference: BatchRuns, time: StepTime) -> Gain:
    """Return the share of the reference's modelled time saved on the same way, by seed."""
    pairs = zip(runs.curves, reference.curves, strict=True)
    shares = [saved(time.of(own), own.losses, time.of(ref), ref.losses) for own, ref in pairs]
    return Gain(tuple(shares))


def equal_time_gain(runs: BatchRuns, reference: BatchRuns, time: StepTime) -> Gain:
    """Return the gain in loss where the shorter of two runs ends, by seed."""
    own_losses, reference_losses = [], []
    for own, ref in zip(runs.curves, reference.curves, strict=True):
        places = time.of(own), time.of(ref)
        end = min(places[0][-1], places[1][-1])
        own_losses.append(loss_at(places[0], own.losses, end))
        reference_losses.append(loss_at(places[1], ref.losses, end))
    return Gain.of(own_losses, reference_losses)


def best_constant(batches: Mapping[str, BatchRuns]) -> str:
    """Return the name of the constant batch of the lowest mean final loss."""
    constants = [name for name in batches if is_constant(name)]
    return min(constants, key=lambda name: fmean(batches[name].final_losses))


def is_constant(name: str) -> bool:
    """Return True for a choice of the recipes that is a constant batch."""
    return name.startswith("constant")


def listed(values: Sequence[float]) -> str:
    """Return the figures of the seeds in words."""
    return ", ".join(f"{value:.2f}" for value in values)

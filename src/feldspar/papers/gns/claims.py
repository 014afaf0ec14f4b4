"""What 2411.00999 claims of norm layers and of growing batches, judged by runs of any size."""

import statistics
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from feldspar.papers.gns.equal_loss import BatchRuns, StepTime, loss_at, saved
from feldspar.papers.gns.norm_against_total import FINE_BLOCKS
from feldspar.papers.kit.claims import Claim, judged, not_run, unrecorded
from feldspar.papers.kit.ladder import Gain
from feldspar.papers.kit.paper import Figures
from feldspar.recipe.sections.noise_scale import PAPER_FACTOR

JUDGED_HALF_LIFE = 69
"""Steps; a decay of 0.99."""
SLOPES = (1.1, 1.6)
LEAST_CORRELATION = 0.9
SAME_SLOPE = 0.1
"""At the paper's scale, a slope this near to 1.4 is the paper's."""
STEADY = 0.2
"""A factor whose blocks all lie within this share of their mean is one factor."""
GROWTH = 2.0
PAPER_SAVING = 0.18
SAME_SAVING = 0.05
LEAST_SAVING = 0.02
TOKENS = "fewer tokens", "more tokens"
TIME = "less time", "more time"
RAMP_LOSS = "lower than the ramp's", "higher than the ramp's"
"""Savings below this share of the run are noise in any case."""
MATCHES = 0.005
"""A loss that is higher by no more than this share is as good."""
FREE = 0.02
"""Time a step that does not count."""
RAMP, LOOP = "ramp", "closed-loop"


def relation_claims(figures: Figures, cost: str, at_paper_scale: bool) -> list[Claim]:
    """Norm layers against the total, by what ``relation_figures`` read, one value a seed."""
    return [
        *slope_claims(figures, cost, at_paper_scale),
        growth_claim(figures, cost, at_paper_scale),
        factor_claim(figures, cost, at_paper_scale),
    ]


def slope_claims(figures: Figures, cost: str, at_paper_scale: bool) -> list[Claim]:
    """Slope and correlation of averages of several lengths."""
    if "relation" not in figures:
        return [unrecorded("norm-layers-predict-total"), unrecorded("smoothing-raises-correlation")]
    found = {int(length): own for length, own in figures["relation"].items()}
    judged_at = max(length for length in found if length <= JUDGED_HALF_LIFE)
    slopes, correlations = found[judged_at]["slope"], found[judged_at]["correlation"]
    means = {length: fmean(own["correlation"]) for length, own in found.items()}
    shortest, longest = min(found), max(found)
    rises = all(
        long > short
        for short, long in zip(
            found[shortest]["correlation"], found[longest]["correlation"], strict=True
        )
    )
    return [
        judged(
            "norm-layers-predict-total",
            statement="The norm layers' noise scale gives the model's, by one factor.",
            paper=f"total = {PAPER_FACTOR} x norm layers; r above 0.96 (secondary sources)",
            ours=f"slope {listed(slopes)}, r {listed(correlations)} by seed, averages of "
            f"{judged_at} steps; r of what changes over {FINE_BLOCKS} blocks beside the "
            f"common trend {listed(figures['beyond_trend'])}",
            tolerance=f"slope {SLOPES[0]} to {SLOPES[1]} and r at least {LEAST_CORRELATION} with "
            "every seed",
            held=all(SLOPES[0] <= slope <= SLOPES[1] for slope in slopes)
            and min(correlations) >= LEAST_CORRELATION,
            same_quantity=at_paper_scale and abs(fmean(slopes) - PAPER_FACTOR) <= SAME_SLOPE,
            why="The gradients of norm layers carry the noise of the layers around them.",
            why_not="Slope or correlation lies outside.",
            cost=cost,
        ),
        judged(
            "smoothing-raises-correlation",
            statement="The longer the averages, the closer norm layers and total.",
            paper="r rises with the averages' length (figure)",
            ours=", ".join(f"{length} steps: r {value:.3f}" for length, value in means.items()),
            tolerance="r of the longest above r of the shortest with every seed",
            held=rises and shortest < longest,
            same_quantity=at_paper_scale,
            why="What differs between the two is mostly noise of single steps.",
            why_not="Longer averages do not bring them closer.",
            cost=cost,
        ),
    ]


def growth_claim(figures: Figures, cost: str, at_paper_scale: bool) -> Claim:
    """Judge how much the noise scale grows."""
    if "block_scales" not in figures:
        return unrecorded("noise-scale-grows")
    scales = np.array(figures["block_scales"]["total"])
    growth = scales[:, -1] / scales[:, 1]
    return judged(
        "noise-scale-grows",
        statement="The noise scale grows over training, so that a constant batch is too large "
        "at first or too small later.",
        paper="grows throughout (figure)",
        ours=f"from {scales[:, 1].mean():.1f} sequences in the second tenth of the tokens to "
        f"{scales[:, -1].mean():.1f} in the last, x{listed(growth.tolist())} by seed",
        tolerance=f"at least x{GROWTH:g} with every seed",
        held=bool((growth >= GROWTH).all()),
        same_quantity=at_paper_scale,
        why="The true gradient shrinks faster than its noise.",
        why_not="It grows less, or is undetermined.",
        cost=cost,
    )


def factor_claim(figures: Figures, cost: str, at_paper_scale: bool) -> Claim:
    """Judge how steady the factor from norm layers to total is."""
    factors = np.array(figures["factors"])[:, 1:]
    away = np.abs(factors / factors.mean(axis=1, keepdims=True) - 1).max()
    by_tenth = ", ".join(f"{value:.2f}" for value in factors.mean(axis=0))
    return judged(
        "one-factor-serves-the-run",
        statement="One factor from norm layers to total serves the whole run.",
        paper=f"{PAPER_FACTOR} throughout",
        ours=f"by tenth of the tokens from the second on: {by_tenth}",
        tolerance=f"within {STEADY:.0%} of its mean in every tenth and with every seed",
        held=bool(away <= STEADY),
        same_quantity=at_paper_scale,
        why=f"It strays by {away:.0%} at most.",
        why_not=f"It strays by {away:.0%}: measure it in the run (noise_scale.calibrate).",
        cost=cost,
    )


def saving_claims(
    batches: Mapping[str, BatchRuns], baseline: str, time: StepTime, cost: str, at_paper_scale: bool
) -> list[Claim]:
    """What the ramp saves, against the constant batch that it ends at and against the best."""
    ramp, reference = batches[RAMP], batches[baseline]
    tokens = token_savings(ramp, reference)
    seconds = time_savings(ramp, reference, time)
    steps = " against ".join(f"{runs.curves[0].n_steps:,}" for runs in (ramp, reference))
    at_once = equal_time_gain(ramp, reference, time)
    best = best_constant(batches)
    claims = [
        judged(
            "ramp-saves-tokens",
            statement="A batch that grows with the noise scale reaches the final loss of the "
            "constant batch that it ends at in fewer tokens.",
            paper=f"{PAPER_SAVING:.0%} fewer, in 18,953 steps against 9,033",
            ours=f"{tokens.worded('fewer', 'more')} than {baseline}, in {steps} steps; final "
            f"held-out loss {fmean(ramp.final_losses):.4f} against "
            f"{fmean(reference.final_losses):.4f}",
            tolerance=f"{tokens.needed}",
            held=tokens.is_clear,
            same_quantity=at_paper_scale and abs(tokens.mean - PAPER_SAVING) <= SAME_SAVING,
            why="Small batches make more of early tokens, where there is little noise.",
            why_not="The saving is not above the noise.",
            cost=cost,
        ),
        judged(
            "ramp-saves-time",
            statement="It takes less training time, where a step's time goes by its tokens.",
            paper=f"{PAPER_SAVING:.0%} less",
            ours=f"{seconds.worded('less', 'more')} than {baseline}, a step taken as "
            f"{1000 * time.fixed_seconds:.2f} ms and {1e6 * time.seconds_per_token:.2f} us a token "
            f"(fitted to all runs); at equal time its loss is "
            f"{at_once.worded('lower', 'higher')}",
            tolerance=f"{seconds.needed}",
            held=seconds.is_clear,
            same_quantity=at_paper_scale and abs(seconds.mean - PAPER_SAVING) <= SAME_SAVING,
            why="One device works through its micro-batches one by one: more steps cost little.",
            why_not="The steps that it takes more eat the tokens that it saves.",
            cost=cost,
        ),
        loop_claim(batches, baseline, time, cost),
    ]
    constants = [name for name in batches if is_constant(name)]
    if len(constants) > 1:
        claims.insert(2, best_constant_claim(ramp, batches[best], len(constants), time, cost))
        claims.append(loop_against_constants_claim(batches[LOOP], batches[best], cost))
    return claims


def best_constant_claim(
    ramp: BatchRuns, best: BatchRuns, n_constants: int, time: StepTime, cost: str
) -> Claim:
    """The ramp against the constant batch of the lowest loss."""
    tokens, seconds = token_savings(ramp, best), time_savings(ramp, best, time)
    return judged(
        "ramp-beats-every-constant",
        statement="It also beats the best constant batch.",
        paper="not compared: one constant batch, that of the ramp's end",
        ours=f"of {n_constants} constant batches {best.name} ends lowest, at "
        f"{fmean(best.final_losses):.4f} against the ramp's {fmean(ramp.final_losses):.4f}: the "
        f"ramp needs {tokens.worded(*TOKENS)} and {seconds.worded(*TIME)}",
        tolerance=f"{tokens.needed}, of the tokens",
        held=tokens.is_clear,
        same_quantity=False,
        why="No single batch suits all of the run.",
        why_not="A constant batch chosen for this length does as well or better; the ramp's gain "
        "is over a batch that is large from the start.",
        cost=cost,
    )


def loop_claim(batches: Mapping[str, BatchRuns], baseline: str, time: StepTime, cost: str) -> Claim:
    """The closed loop against the ramp that was set by hand."""
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
    return judged(
        "closed-loop-matches-ramp",
        statement="Steered by what is measured in the run, the batch does as well as the ramp that "
        "was set by hand.",
        paper="not compared: the ramp was set after a run whose noise scale had been measured",
        ours=f"final held-out loss {better.worded(*RAMP_LOSS)}, in "
        f"{fmean([curve.n_steps for curve in loop.curves]):,.0f} steps{at_end}; {saved_words} than "
        f"{baseline}",
        tolerance=f"higher by at most {MATCHES:.1%}, the whole interval",
        held=better.is_at_least(-MATCHES),
        same_quantity=False,
        why="The noise scale asks for batches like those of the ramp, without a run beforehand.",
        why_not="What it measures leads to worse batches than the ramp's, or the seeds do not "
        "tell.",
        cost=cost,
    )


def loop_against_constants_claim(loop: BatchRuns, best: BatchRuns, cost: str) -> Claim:
    """Judge the closed loop against the constant batch of the lowest loss."""
    gain = Gain.of(loop.final_losses, best.final_losses)
    return judged(
        "closed-loop-beats-every-constant",
        statement="Steered by what is measured in the run, the batch ends below every constant "
        "one.",
        paper="not compared: one constant batch, that of the ramp's end",
        ours=f"final held-out loss {gain.lower_or_higher} than that of {best.name}, the best "
        "constant batch",
        tolerance=f"lower by {gain.needed}",
        held=gain.is_clear,
        same_quantity=False,
        why="No single batch suits all of the run.",
        why_not="The difference is within the noise of the seed.",
        cost=cost,
    )


def overhead_claim(step_seconds: Mapping[str, Sequence[float]], cost: str) -> Claim:
    """The median step of short runs that differ in what they measure; ``none`` is one of them."""
    medians = {name: statistics.median(own) for name, own in step_seconds.items()}
    more = {name: value / medians["none"] - 1 for name, value in medians.items()}
    words = ", ".join(f"{name} {value:+.1%}" for name, value in more.items() if name != "none")
    return judged(
        "norm-layers-are-free",
        statement="Measuring the norm layers costs no time; measuring all layers does.",
        paper="0 % with a fused kernel; all layers cost 10 % more on an A10, over 40 % on an H100",
        ours=f"time a step on one thread, against no measurement: {words}",
        tolerance=f"norm layers at most {FREE:.0%}, all layers more than that",
        held=more["norm"] <= FREE < more["all"],
        same_quantity=False,
        why="Their partial sums are formed in the backward pass anyhow.",
        why_not="Layers of this width take as long to start as to compute; the share falls with "
        "width.",
        cost=cost,
    )


def larger_model_claim(cost: str) -> Claim:
    """What only a larger model can show."""
    return not_run(
        "larger-model",
        statement="Norm layers predict the noise scale of a 1.3B model across eight devices.",
        paper="shown against the estimate from the devices' gradients (figure)",
        reason="Needs a cluster; noise_scale.calibrate=ranks is that estimate.",
        cost=cost,
    )


def token_savings(runs: BatchRuns, reference: BatchRuns) -> Gain:
    """Share of the reference's tokens saved on the way to its final loss, by seed."""
    pairs = zip(runs.curves, reference.curves, strict=True)
    shares = [saved(own.tokens, own.losses, ref.tokens, ref.losses) for own, ref in pairs]
    return Gain(tuple(shares), LEAST_SAVING)


def time_savings(runs: BatchRuns, reference: BatchRuns, time: StepTime) -> Gain:
    """The same of the modelled time."""
    pairs = zip(runs.curves, reference.curves, strict=True)
    shares = [saved(time.of(own), own.losses, time.of(ref), ref.losses) for own, ref in pairs]
    return Gain(tuple(shares), LEAST_SAVING)


def equal_time_gain(runs: BatchRuns, reference: BatchRuns, time: StepTime) -> Gain:
    """How much lower the loss is once the shorter of the two is over, by seed."""
    own_losses, reference_losses = [], []
    for own, ref in zip(runs.curves, reference.curves, strict=True):
        places = time.of(own), time.of(ref)
        end = min(places[0][-1], places[1][-1])
        own_losses.append(loss_at(places[0], own.losses, end))
        reference_losses.append(loss_at(places[1], ref.losses, end))
    return Gain.of(own_losses, reference_losses)


def best_constant(batches: Mapping[str, BatchRuns]) -> str:
    """The constant batch of the lowest mean final loss."""
    constants = [name for name in batches if is_constant(name)]
    return min(constants, key=lambda name: fmean(batches[name].final_losses))


def is_constant(name: str) -> bool:
    """Whether a choice of the recipes is a constant batch."""
    return name.startswith("constant")


def listed(values: Sequence[float]) -> str:
    """Figures by seed."""
    return ", ".join(f"{value:.2f}" for value in values)

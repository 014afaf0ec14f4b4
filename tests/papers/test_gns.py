"""The noise scale's claims on made-up runs: each of them can fail; and what is read from logs."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feldspar.core.errors import UserError
from feldspar.core.json_files import json_values
from feldspar.papers.gns.claims import (
    batch_claims,
    overhead_claim,
    reading_claim,
    relation_claims,
)
from feldspar.papers.gns.equal_loss import (
    BatchRuns,
    Curve,
    StepTime,
    fit_step_time,
    reached,
    read_curve,
    saved,
)
from feldspar.papers.gns.experiment import (
    BATCH,
    PAPER,
    RATE,
    batch_trials,
    exact_trials,
    reading_trials,
    recipe_of,
    width_trials,
)
from feldspar.papers.gns.norm_against_total import (
    StepNoise,
    correlation_beyond_trend,
    read_step_noise,
    relation,
    relation_figures,
)
from feldspar.papers.kit.claims import UNRECORDED, Claim, Verdict
from feldspar.papers.kit.experiment import Again
from feldspar.papers.kit.paper import Scale, values_of
from feldspar.papers.kit.stated import StatedClaims
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.study.trials import Trial, TrialResult
from feldspar.train.run import train
from tests.papers.conftest import build_trunk_offline, judged_by, stated
from tests.train.conftest import Command, feldspar, metrics_of, recipe_file, shards_folder

__all__ = ["feldspar", "recipe_file", "shards_folder"]

CLAIMS = stated(PAPER)
AT_SCALE = stated(PAPER, at_paper_scale=True)
STEPS = 600
FREE = StepTime(0.0, 1.0)


def noises(
    factor: Callable[[np.ndarray], np.ndarray], growth: float = 20.0, scatter: float = 0.05
) -> list[StepNoise]:
    """Three seeds; the norm layers' noise scale grows from 2 sequences, the total is a factor."""
    found = []
    for seed in range(3):
        chance = np.random.default_rng(seed)
        share = np.arange(1, STEPS + 1) / STEPS
        norm = 2 + growth * share
        total = norm * factor(share)
        wobble = [1 + scatter * chance.standard_normal(STEPS) for _ in range(2)]
        noise = {"norm": norm * wobble[0], "total": total * wobble[1]}
        ones = {"norm": np.ones(STEPS), "total": np.ones(STEPS)}
        found.append(StepNoise(share * 1e6, noise, ones))
    return found


def by_name(claims: list[Claim]) -> dict[str, Claim]:
    return {claim.name: claim for claim in claims}


def related(seeds: list[StepNoise], claims: StatedClaims = CLAIMS) -> dict[str, Claim]:
    """The claims on norm layers and total, by figures as a record holds them."""
    return by_name(relation_claims(json_values(relation_figures(seeds)), claims))


def test_one_factor_throughout_is_recognised() -> None:
    found = related(noises(lambda s: 1.4 + 0 * s))
    assert {name: claim.borne_out for name, claim in found.items()} == {
        "norm-layers-predict-total": True,
        "smoothing-raises-correlation": True,
        "noise-scale-grows": True,
        "one-factor-serves-the-run": True,
    }
    assert {claim.verdict for claim in found.values()} == {Verdict.MECHANISM_SHOWN}
    name = "norm-layers-predict-total"
    at_scale = related(noises(lambda s: 1.4 + 0 * s), AT_SCALE)
    assert at_scale[name].verdict is Verdict.REPRODUCED
    other = related(noises(lambda s: 1.2 + 0 * s), AT_SCALE)
    assert other[name].verdict is Verdict.MECHANISM_SHOWN, "it holds, by another factor"


def test_a_factor_that_drifts_is_told() -> None:
    found = related(noises(lambda s: 3 - 1.8 * s))
    drift = found["one-factor-serves-the-run"]
    assert drift.verdict is Verdict.NOT_BORNE_OUT and "measure it in the run" in drift.reason
    assert "width 64 2.7" in drift.ours and "36%" in drift.reason
    steady = json_values(relation_figures(noises(lambda s: 1.4 + 0 * s)))
    drifting = json_values(relation_figures(noises(lambda s: 3 - 1.8 * s)))["factors"]
    wide = relation_claims(steady | {"width_factors": {"256": drifting}}, CLAIMS)
    assert by_name(wide)["one-factor-serves-the-run"].borne_out is False
    chance = {"reading_stray_by_chance": [0.05]}
    assert not reading_claim({"reading_factors": drifting} | chance, CLAIMS).borne_out
    assert reading_claim({"reading_factors": steady["factors"]} | chance, CLAIMS).borne_out


def test_a_constant_factor_strays_by_chance_as_far_as_its_steps_scatter() -> None:
    steps = np.arange(40.0)
    scattered = 1 + 0.3 * np.random.default_rng(0).standard_normal(40)
    for signal, least, most in ((np.ones(40), 0.0, 1e-12), (scattered, 0.1, 0.6)):
        groups = {"norm": (np.full(40, 2.0), np.ones(40)), "total": (np.full(40, 6.0), signal)}
        noise, squares = ({name: own[part] for name, own in groups.items()} for part in (0, 1))
        assert least <= StepNoise(steps, noise, squares).stray_by_chance(10) <= most


def test_what_norm_layers_do_not_say_is_not_claimed() -> None:
    found = related(noises(lambda s: 3 + 0 * s))
    assert found["norm-layers-predict-total"].borne_out is False, "the slope is 3"
    apart = noises(lambda s: 20 * (1.1 + np.sin(20 * s)) / (2 + 20 * s))
    found = related(apart)
    assert found["norm-layers-predict-total"].borne_out is False
    flat = related(noises(lambda s: 1 + 0 * s, growth=0.5))
    assert flat["noise-scale-grows"].borne_out is False
    assert flat["smoothing-raises-correlation"].ours.startswith("14 steps: r ")


def test_a_common_trend_is_no_correlation_beyond_it() -> None:
    seeds = noises(lambda s: 1.4 + 0 * s, scatter=0.3)
    assert all(relation(own, 69, 0.1).correlation > 0.95 for own in seeds)
    left = [correlation_beyond_trend(own, 30, 0.1) for own in seeds]
    assert abs(np.mean(left)) < 0.3, "beside the trend it is chance"
    waves = 1 + 0.5 * np.sin(np.arange(STEPS) / 15)
    for own in seeds:
        for group in ("norm", "total"):
            own.noise[group] = own.noise[group] * waves
        assert correlation_beyond_trend(own, 30, 0.1) > 0.9


def runs(name: str, final: float, batch: int, start: float = 4.0) -> BatchRuns:
    """Straight curves down to ``final``, three seeds that end a little apart."""
    tokens = list(np.linspace(0.1, 1.0, 10))
    curves = []
    for seed in range(3):
        end = final + 0.001 * seed
        losses = [start + (end - start) * place for place in tokens]
        steps = [round(1000 * place / batch) for place in tokens]
        curves.append(Curve(tokens, losses, steps[-1], steps, [batch] * 10))
    return BatchRuns(name, 0.01, tuple(curves))


def judged_batches(ramp: float, loop: float, time: StepTime = FREE) -> dict[str, Claim]:
    found = [
        runs("constant-8", 2.0, 8),
        runs("constant-64", 2.4, 64),
        runs("ramp", ramp, 32),
        runs("closed-loop", loop, 16),
    ]
    batches = {one.name: one for one in found}
    return by_name(batch_claims(batches, "constant-64", time, CLAIMS))


def test_a_ramp_that_saves_is_recognised() -> None:
    found = judged_batches(ramp=1.8, loop=1.8)
    assert all(claim.verdict is Verdict.MECHANISM_SHOWN for claim in found.values())
    assert "27.29%" in found["ramp-saves-tokens"].ours
    assert "constant-8 ends lowest" in found["ramp-beats-every-constant"].ours
    assert "than that of constant-8" in found["closed-loop-beats-every-constant"].ours
    closer = judged_batches(ramp=1.8, loop=1.995)["closed-loop-beats-every-constant"]
    assert closer.verdict is Verdict.NOT_BORNE_OUT and "0.25% lower" in closer.ours


def test_a_ramp_that_saves_only_against_a_bad_batch_is_said_to() -> None:
    found = judged_batches(ramp=2.2, loop=2.5)
    verdicts = {name: claim.borne_out for name, claim in found.items()}
    assert verdicts == {
        "ramp-saves-tokens": True,
        "ramp-saves-time": True,
        "ramp-beats-every-constant": False,
        "closed-loop-matches-ramp": False,
        "closed-loop-beats-every-constant": False,
    }
    words = found["ramp-beats-every-constant"].ours
    assert "needs 11.1" in words and "more tokens" in words and "-11" not in words
    assert "higher than the ramp's (" in found["closed-loop-matches-ramp"].ours


def test_steps_can_cost_more_than_tokens_save() -> None:
    found = judged_batches(ramp=2.2, loop=2.2, time=StepTime(1.0, 1.0))
    assert found["ramp-saves-tokens"].borne_out is True
    assert found["ramp-saves-time"].borne_out is False
    assert judged_batches(ramp=2.4, loop=2.4)["ramp-saves-tokens"].borne_out is False


def test_savings_are_signed_and_shares_of_the_reference() -> None:
    places, reference = [1.0, 2.0, 4.0], [3.0, 2.0, 1.0]
    assert reached(places, reference, 2.5) == pytest.approx(1.5)
    assert reached(places, reference, 3.5) == 1.0 and reached(places, reference, 0.5) is None
    assert saved(places, [3.0, 1.0, 0.5], places, reference) == pytest.approx(0.5)
    assert saved(places, reference, places, reference) == 0.0
    assert saved(places, [4.0, 3.0, 2.0], places, reference) == pytest.approx(-1.0)


def test_the_time_of_a_step_is_that_of_an_undisturbed_machine() -> None:
    times = {tokens: [0.01 + 2e-6 * tokens] * 20 for tokens in (512, 2048, 4096)}
    times[512][0] = 100.0
    fitted = fit_step_time([times, {4096: [0.01 + 2e-6 * 4096] * 9}])
    assert fitted.fixed_seconds == pytest.approx(0.01)
    assert fitted.seconds_per_token == pytest.approx(2e-6)
    assert fit_step_time([{100: [1.0, 2.0, 3.0]}]) == StepTime(0.0, 0.012)
    disturbed = {size: [value * 3 for value in own] for size, own in times.items()}
    assert vars(fit_step_time([times, disturbed])) == pytest.approx(vars(fit_step_time([times])))


def test_measuring_is_free_only_where_it_is() -> None:
    def judged(norm: float, every: float, wide: float = 1.0) -> Claim:
        # The median of ratios within turns does not see that the machine was slower in one turn.
        turns = {"none": [1.0, 3.0, 1.0], "norm": [norm, 3 * norm, 9.0], "all": [every, 3 * every]}
        turns["all"].append(every)
        at_512 = {"none": [1.0], "norm": [wide], "all": [1.3]}
        return overhead_claim({"256": turns, "512": at_512}, CLAIMS)

    free = judged(1.01, 1.3)
    assert free.borne_out is True and "width 256: norm +1.0%, all +30.0%" in free.ours
    assert judged(1.1, 1.3).borne_out is False
    assert judged(1.0, 1.0).borne_out is False
    assert judged(1.0, 1.3, wide=1.03).borne_out is False, "it must be free at every width"


def test_every_batch_reads_the_same_tokens_at_every_rate() -> None:
    for scale in (Scale.QUICK, Scale.SMALL):
        tokens = {
            plan_recipe(load_recipe(recipe_of(scale), list(trial.overrides)).recipe).timeline.length
            for trial in batch_trials(scale)
        }
        assert max(tokens) - min(tokens) < 64 * 64
    small = [values_of(trial) for trial in batch_trials(Scale.SMALL)]
    assert len(small) == 54 and {values["seed"] for values in small} == {0, 1, 2}
    assert len({(values[BATCH], values[RATE]) for values in small}) == 18
    assert [values_of(trial)[BATCH] for trial in batch_trials(Scale.PAPER)] == [
        "ramp",
        "constant",
        "closed-loop",
    ]
    for trial in (*exact_trials(Scale.SMALL), *width_trials(Scale.SMALL)):
        plan_recipe(load_recipe("gns/small", list(trial.overrides)).recipe)
    for trial in reading_trials(Scale.SMALL):
        plan_recipe(load_recipe("trunk", list(trial.overrides)).recipe)


def written(folder: Path, trial: Trial, final: float) -> TrialResult:
    """A run's log by a rule: loss falls to ``final``, the noise scale grows."""
    place = folder / trial.name
    place.mkdir(parents=True)
    rows = []
    for step in range(1, 161):
        scale = 0.3 * step * (1 + 0.1 * math.sin(step))
        loss = 4 + (final - 4) * step / 160
        row = {"step": step, "tokens": 2048 * step, "sequences": 32, "tokens_per_second": 4e5}
        for name, value in (("norm", scale), ("total", 1.4 * scale)):
            key = f"noise_scale/{name}"
            row |= {key: value, f"{key}/low": value, f"{key}/high": value}
            row |= {f"{key}/noise": value, f"{key}/signal_sq": 1.0}
        row |= {"noise_scale/factor": 1.3}
        rows.append(row | ({"validation/loss": loss} if step % 8 == 0 else {}))
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TrialResult(trial, place, final, {}, 2048 * 160, 1.0)


@pytest.mark.parametrize("scale", [scale for scale in Scale if scale is not Scale.OPEN])
def test_findings_are_read_from_logs(scale: Scale, tmp_path: Path) -> None:
    def final(trial: Trial) -> float:
        values = values_of(trial)
        worse = 0.1 * (values.get(RATE) == 0.03125) + 0.001 * values["seed"]
        return worse + {"ramp": 2.0, "closed-loop": 2.1}.get(values[BATCH], 2.5)

    results = {
        "batches": [written(tmp_path / "b", one, final(one)) for one in batch_trials(scale)],
        "exact": [written(tmp_path / "e", one, 2.5) for one in exact_trials(scale)],
    }
    if scale is not Scale.PAPER:
        results["widths"] = [written(tmp_path / "w", one, 2.5) for one in width_trials(scale)]
    found = judged_by(PAPER, results, scale)
    claims = by_name(list(found.claims))
    assert claims["ramp-saves-tokens"].borne_out is True
    assert claims["closed-loop-matches-ramp"].borne_out is False
    assert claims["larger-model"].borne_out is None
    widths = "width 256 1.40" in claims["one-factor-serves-the-run"].ours
    assert widths == (scale is not Scale.PAPER)
    assert ("ramp-beats-every-constant" in claims) == (scale is not Scale.PAPER)
    figures = PAPER.measure(results, scale)
    rates = {runs["rate"] for runs in figures["batches"].values()}
    assert rates == ({None} if scale is Scale.PAPER else {0.015625})
    factors = found.sections[0].tables[1].rows[4]
    assert factors[3:] == ["1.40", "-" if scale is Scale.PAPER else "1.30", "1.4"]
    assert found.figure is not None and "<svg" in found.figure.svg


def test_a_record_that_lacks_figures_is_judged_by_what_it_holds(tmp_path: Path) -> None:
    results = {
        "batches": [written(tmp_path / "b", one, 2.0) for one in batch_trials(Scale.QUICK)],
        "exact": [written(tmp_path / "e", one, 2.5) for one in exact_trials(Scale.QUICK)],
    }
    figures = json_values(PAPER.measure(results, Scale.QUICK))
    for key in ("relation", "block_scales", "rates"):
        del figures[key]
    for key in ("steps", "batches"):
        del figures["batches"]["closed-loop"][key]
    found = by_name(list(PAPER.judge(figures, Scale.QUICK, CLAIMS).claims))
    lacking = {name for name, claim in found.items() if claim.ours == UNRECORDED}
    assert lacking == {
        "norm-layers-predict-total",
        "smoothing-raises-correlation",
        "noise-scale-grows",
        "one-factor-serves-a-model-that-reads",
        "norm-layers-are-free",
    }
    assert found["one-factor-serves-the-run"].borne_out is not None
    loop = found["closed-loop-matches-ramp"].ours
    assert "sequences" not in loop and "time" not in loop and "tokens" in loop


def test_a_batch_that_diverged_at_every_rate_is_named(tmp_path: Path) -> None:
    trials = batch_trials(Scale.QUICK)
    results = {
        "batches": [
            written(tmp_path, one, math.inf if "ramp" in one.name else 2.0) for one in trials
        ]
    }
    with pytest.raises(UserError, match="the batch ramp diverged at every learning rate"):
        judged_by(PAPER, results, Scale.QUICK)


def test_a_real_run_that_measured_all_its_layers(recipe_file: Path, tmp_path: Path) -> None:
    short = ["phases.0.length=6 steps", "phases.1.length=2 steps", "evaluation.every=4 steps"]
    train(load_recipe(str(recipe_file), [*short, "noise_scale.coverage=all"]), tmp_path / "all")
    rows = metrics_of(tmp_path / "all")
    noise = read_step_noise(tmp_path / "all")
    assert noise.tokens.tolist() == [row["tokens"] for row in rows]
    assert noise.signal_sq["norm"].tolist() == [r["noise_scale/norm/signal_sq"] for r in rows]
    curve, times = read_curve(tmp_path / "all")
    measured = [row for row in rows if "validation/loss" in row]
    assert list(curve.losses) == [row["validation/loss"] for row in measured]
    assert sum(len(own) for own in times.values()) == 8
    assert curve.n_steps == len(rows) and list(curve.steps) == [row["step"] for row in measured]
    train(load_recipe(str(recipe_file), [*short, "noise_scale={}"]), tmp_path / "norm")
    with pytest.raises(UserError, match="no step measured norm layers and total both"):
        read_step_noise(tmp_path / "norm")


@pytest.mark.slow
def test_the_noise_scale_quickly_for_real(feldspar: Command, tmp_path: Path) -> None:
    """On the interpreter's own source, where CI has no other text."""
    text = ["tokenizer.sample_bytes=8000000", "shards.path=data/quickstart/bytes"]
    for command in (["corpus", "build", "supar/small"], ["tokens", "build", "supar/small", *text]):
        made = feldspar(*command, cwd=tmp_path, timeout=600)
        assert made.returncode == 0, made.stderr
    build_trunk_offline(feldspar, tmp_path)
    first = feldspar("reproduce", "gns", "--quick", "--json", cwd=tmp_path, timeout=1200)
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    assert record["runs"] == 4 + 1 + 2 + 1 + 1 and record["diverged"] == 0
    claims = {claim["name"]: claim for claim in record["claims"]}
    assert len(claims) == 12 and claims["larger-model"]["verdict"] == "needs scale"
    assert claims["noise-scale-grows"]["verdict"] == "no verdict"
    assert record["figures"]["batches"]["ramp"]["n_steps"][0] > 30
    page = (tmp_path / "runs" / "reproduce" / "gns-quick" / "report.html").read_text()
    assert "Batch over tokens" in page and "Held-out loss over modelled time" in page


def test_only_what_reads_on_from_a_trunk_trains_one() -> None:
    def runs(*names: str) -> list[str]:
        return [stage.name for stage in Again(names, {}).runs(PAPER, Scale.SMALL)]

    assert runs("exact", "widths") == ["exact", "widths"]
    assert runs("reading") == ["trunk", "reading"]

"""The policy that lets checkpoints go, against a plain restatement and its own properties."""

from hypothesis import given
from hypothesis import strategies as st

from feldspar.recipe.sections.runtime import KeepSettings
from feldspar.runtime.checkpoint_store import Candidate, best_of, positions_to_keep

TOKENS = st.lists(st.integers(0, 500), unique=True, max_size=25)
METRICS = st.one_of(st.none(), st.floats(allow_infinity=False, width=16))
POLICIES = st.builds(
    KeepSettings,
    last=st.integers(1, 5),
    best=st.sampled_from([None, "validation/loss"]),
    best_is=st.sampled_from(["lowest", "highest"]),
)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    return [Candidate(tokens, draw(METRICS)) for tokens in draw(TOKENS)]


@given(candidates(), POLICIES, st.one_of(st.none(), st.integers(1, 200)))
def test_what_is_kept(found: list[Candidate], keep: KeepSettings, every: int | None) -> None:
    stay = positions_to_keep(found, keep, every)
    tokens = sorted(candidate.position for candidate in found)
    assert set(tokens[-keep.last :]) <= stay <= set(tokens)
    if every is not None:
        for multiple in {t // every for t in tokens if t >= every}:
            assert min(t for t in tokens if t // every == multiple) in stay
    measured = [c for c in found if c.metric is not None and c.metric == c.metric]
    if keep.best and measured:
        best = (min if keep.best_is == "lowest" else max)(c.metric for c in measured)
        assert min(c.position for c in measured if c.metric == best) == best_of(found, keep)
        assert best_of(found, keep) in stay
    elif every is None:
        assert len(stay) == min(keep.last, len(tokens))


@given(candidates(), POLICIES, st.one_of(st.none(), st.integers(1, 200)))
def test_pruning_as_one_goes_is_pruning_at_the_end(
    found: list[Candidate], keep: KeepSettings, every: int | None
) -> None:
    alive: list[Candidate] = []
    for candidate in sorted(found, key=lambda c: c.position):
        alive.append(candidate)
        stay = positions_to_keep(alive, keep, every)
        alive = [c for c in alive if c.position in stay]
        assert positions_to_keep(alive, keep, every) == stay
    assert {c.position for c in alive} == positions_to_keep(found, keep, every)

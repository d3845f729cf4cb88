"""The rule: most queries within x of the best clean labels; never a row that another one beats."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.audit.grid import Row
from privacy.audit.proposal import Proposal, TapForecast, TapProposal, TrueLabels
from privacy.audit.recommendation import recommend
from privacy.release import TapRelease

LABELS = TapProposal("probabilities", "probabilities", 10)


def row(
    queries: int = 300,
    epsilon: float = 4.0,
    kept: float = 0.95,
    true: tuple[float, float] | None = None,
    hint: tuple[int, float] | None = None,
    teachers: int = 200,
) -> Row:
    """`true`: (clean, noisy) accuracy; `hint`: (dimensions, signal-to-noise)."""
    truth = None if true is None else TrueLabels(0.8, *true, 0.01)
    release = TapRelease("probabilities", "probabilities", 10, 1.0, 1000, teachers)
    taps = [TapForecast(release, 0.1, 0.3, 1.0, kept, 0.01, truth)]
    if hint is not None:
        of_hint = TapRelease("hint", "hint", hint[0], 1.0, 1000, teachers)
        taps.append(TapForecast(of_hint, 0.1, 1.0, hint[1], None, None))
    return Row(Proposal(epsilon, 1e-5, queries, (LABELS,), teachers=teachers), tuple(taps))


def chosen(*rows: Row, tolerance: float | None = None) -> Row:
    place = recommend(rows, tolerance).chosen
    assert place is not None
    return rows[place]


def test_the_most_queries_within_the_tolerance() -> None:
    few, more, many = row(100, kept=0.99), row(300, kept=0.96), row(1000, kept=0.94)
    assert chosen(few, more, many, tolerance=0.05) is more
    assert chosen(few, more, many, tolerance=0.02) is few
    assert chosen(few, more, many) is many  # at most a tenth of the labels changed


def test_true_labels_are_held_against_the_best_clean_ones_of_any_k() -> None:
    """Many teachers lose little to the noise, but each has learnt less."""
    many = row(1000, true=(0.90, 0.89), teachers=1000)
    few = row(300, true=(0.95, 0.94), teachers=200)
    assert chosen(many, few) is few
    assert chosen(many, few, tolerance=0.06) is many
    assert "94.0% of the labels are the true ones" in recommend([many, few]).reason


def test_ties_go_to_the_smaller_epsilon_then_to_better_labels_then_to_hints() -> None:
    assert chosen(row(epsilon=4.0), row(epsilon=2.0)).proposal.epsilon == 2.0
    assert chosen(row(kept=0.95), row(kept=0.96)).labels.agreement == 0.96
    over, wide, clear = row(hint=(8, 1.1)), row(hint=(16, 0.9)), row(hint=(4, 2.0))
    assert chosen(over, wide, clear, row()) is over
    assert chosen(wide, row(hint=(32, 0.5)), row()) is wide
    assert chosen(row(teachers=400), row(teachers=100)).proposal.teachers == 100


def test_where_none_is_within_it_says_so_and_names_the_nearest() -> None:
    rows = [row(100, kept=0.8), row(300, kept=0.6)]
    found = recommend(rows)
    assert found.chosen == 0
    assert "no combination has" in found.reason
    assert "80.0%" in found.reason


def test_each_epsilon_has_its_own_best() -> None:
    rows = [row(epsilon=1.0, queries=100), row(epsilon=4.0), row(epsilon=4.0, queries=100)]
    rows.append(Row(rows[0].proposal, refused="no"))
    assert recommend(rows).best == (0, 1)


def test_rows_that_drown_or_cannot_be_kept_are_never_recommended() -> None:
    refused = Row(row(5000).proposal, refused="too many queries")
    assert chosen(refused, row(100)).proposal.queries == 100
    found = recommend([refused, row(kept=0.3)])
    assert found.chosen is None
    assert found.reason.startswith("nothing")


def test_without_labels_the_hint_must_be_over_its_noise() -> None:
    def hint_only(queries: int, ratio: float) -> Row:
        release = TapRelease("hint", "hint", 8, 1.0, 1000, 200)
        tap = TapForecast(release, 0.1, 1.0, ratio, None, None)
        return Row(Proposal(4.0, 1e-5, queries, (LABELS,)), (tap,))

    assert (
        chosen(hint_only(100, 3.0), hint_only(300, 1.2), hint_only(900, 0.7)).proposal.queries
        == 300
    )


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_a_tolerance_out_of_range_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="--tolerance"):
        recommend([row()], tolerance)


_SHARES = st.sampled_from([0.2, 0.55, 0.8, 0.9, 0.94, 0.97, 1.0])


@st.composite
def grids(draw: st.DrawFn) -> list[Row]:
    known = draw(st.booleans())
    return draw(
        st.lists(
            st.builds(
                row,
                queries=st.sampled_from([100, 300, 1000]),
                epsilon=st.sampled_from([1.0, 4.0]),
                kept=_SHARES,
                true=st.tuples(_SHARES, _SHARES) if known else st.none(),
                hint=st.none()
                | st.tuples(st.sampled_from([4, 8]), st.sampled_from([0.3, 0.9, 1.1, 2.0])),
                teachers=st.sampled_from([100, 200]),
            ),
            min_size=1,
            max_size=12,
        )
    )


def merits(one: Row) -> tuple[float, ...]:
    """More is better in each: queries, −ε, worth of the labels, hint dimensions, hint s/n."""
    labels, *hints = one.taps
    worth = labels.true_labels.noisy if labels.true_labels else labels.agreement
    size = sum(tap.release.dimension for tap in hints)
    clearness = min((tap.signal_norm / tap.noise_norm for tap in hints), default=0.0)
    return one.proposal.queries, -one.proposal.epsilon, worth, size, clearness


def beaten(one: Row, others: Sequence[Row]) -> bool:
    own = merits(one)
    return any(
        all(a >= b for a, b in zip(merits(other), own, strict=True)) and merits(other) != own
        for other in others
    )


@settings(max_examples=300, deadline=None)
@given(grids(), st.sampled_from([None, 0.0, 0.05, 0.3]))
def test_a_recommended_row_is_never_dominated(rows: list[Row], tolerance: float | None) -> None:
    found = recommend(rows, tolerance)
    useful = [one for one in rows if one.labels.agreement >= 0.5]
    assert (found.chosen is None) == (not useful)
    for place in (*found.best, *([] if found.chosen is None else [found.chosen])):
        peers = (
            useful
            if place == found.chosen
            else [one for one in useful if one.proposal.epsilon == rows[place].proposal.epsilon]
        )
        assert rows[place] in peers
        assert not beaten(rows[place], peers)
    if found.chosen is not None:
        assert found.chosen in found.best

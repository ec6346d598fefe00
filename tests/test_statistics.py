"""The statistics are right: values worked out by hand, and SciPy's where it has the same thing; and made-up studies
whose truth is known, in which they are right as often as they say, and wrong ones are found out."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from harness import simulate as command
from harness.statistics.images import (
    Agreement,
    calibration_bins,
    difference_interval,
)
from harness.statistics.intervals import bca_interval, mean_interval, sample_spread
from harness.statistics.paired import (
    MOST_FLIPPED,
    holm,
    of_differences,
    paired,
    power,
    probability_of_improvement,
    seeds_needed,
    sign_flip_p,
    smallest_p,
    variance_shares,
)
from harness.statistics.simulated import BASELINE, CELLS, goals, simulate
from variants.fields import UsageError

SKEWED = np.random.default_rng(5).exponential(size=25)
near = pytest.approx
COUNTS = Agreement(both=50, only_first=10, only_second=30, neither=10)

# --- intervals -------------------------------------------------------------------------------------------------------


def test_bca_equals_scipy():
    """Both are random: at 100,000 resamples the ends agree to 2 % of the width, and the plain percentiles do not."""
    ours = bca_interval(SKEWED, seed=1, resamples=100_000)
    assert ours is not None
    theirs, plain = (
        stats.bootstrap((SKEWED,), np.mean, n_resamples=100_000, method=method, rng=2).confidence_interval
        for method in ("BCa", "percentile")
    )
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02 * width)
    assert abs(ours[1] - plain.high) > 0.04 * width, "an interval without the correction would have passed"


DRAWS = {
    "bca": lambda seed: bca_interval(SKEWED, seed),
    "images": lambda seed: difference_interval(Agreement(5003, 1007, 1501, 2489), seed),
    "improvement": lambda seed: probability_of_improvement(SKEWED[:12], SKEWED[12:], seed, resamples=500).interval,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_seed_reaches_the_draw(draw):
    assert draw(1) == draw(1) != draw(2)


# --- paired differences ----------------------------------------------------------------------------------------------


def test_paired_by_hand():
    """Differences 1, 2, 3; seed 9 and seed 4 have no partner. Mean 2, sd 1, se 1/sqrt(3) = .57735, t(2) = 4.30265:
    2.4841. t = 2 / .57735 = sqrt(12); with 2 degrees p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12/14) = .07418.
    Signs: of 8 sums of +-1 +-2 +-3 only 6 and -6 are as far from 0: 2/8."""
    found = paired({0: 76, 1: 77, 2: 78, 9: 1}, {2: 81, 1: 79, 0: 77, 4: 90})
    assert (found.n, found.dropped, found.mean, found.spread) == (3, 2, 2, 1)
    assert found.half == pytest.approx(2.4841, abs=1e-4)
    assert (
        found.t_p == pytest.approx(1 - math.sqrt(12 / 14)) and found.sign_flip_p == 0.25 == found.smallest_sign_flip_p
    )


def test_sign_flips_by_hand():
    """1, 1, -1: the sum is 1, and no sum of three odd numbers is nearer to 0. All of one sign: 2 of 2^n. Of .1, .2, .3
    and -.3 it is .3; with the first sign as it is: .9, .3, .3, -.3, .5, -.1, -.1, -.7, so 6 of 8; in floating point one
    of the .3 comes out a little smaller."""
    assert sign_flip_p([1, 1, -1]) == 1
    assert sign_flip_p([0.1, 0.2, 0.3, 0.4, 0.5]) == smallest_p(5) == 0.0625
    assert smallest_p(6) < 0.05 < smallest_p(5)
    assert sign_flip_p([1.0] * MOST_FLIPPED) == 2 / 2**MOST_FLIPPED and sign_flip_p([1.0] * (MOST_FLIPPED + 1)) is None
    assert sign_flip_p([0.1, 0.2, 0.3, -0.3]) == 0.75


def test_rounding_is_no_spread_and_the_smallest_real_one_is():
    """All the same but not 0: t is undecided, the signs are not. One image of 10,000 more, in percent, is a spread."""
    found = of_differences([0.3 - 0.1, 0.2, 0.4 - 0.2, 0.2, 0.2])
    assert (found.half, found.spread, found.t_p, found.sign_flip_p) == (None, 0, None, 0.0625)
    found = of_differences([100 * 0.7726 - 100 * 0.7725, 100 * 0.7727 - 100 * 0.7725])
    assert found.spread == pytest.approx(0.01 / math.sqrt(2), rel=1e-6) and found.t_p is not None


def test_holm_by_hand():
    """In order: 4 x .005 = .02, 3 x .01 = .03, 2 x .03 = .06, 1 x .04 = .04, which may not fall below .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == []


# --- images ----------------------------------------------------------------------------------------------------------


def test_image_bootstrap_by_hand_and_by_scipy():
    """30 - 10 of 100: .2; one image has variance .4 - .2^2 = .36, the mean of 100 has sd .06: .2 +- 1.96 x .06."""
    ours = difference_interval(COUNTS, seed=0, resamples=50_000)
    assert ours == pytest.approx((0.2 - 1.96 * 0.06, 0.2 + 1.96 * 0.06), abs=0.006)
    cases = np.repeat([0, -1, 1], [60, 10, 30])
    theirs = stats.bootstrap((cases,), np.mean, n_resamples=50_000, method="percentile", rng=1).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.011), "the means are multiples of .01"


def test_calibration_by_hand():
    """Bins of 1/15. Above 14/15: .95 right and .97 wrong, 1 right against 1.92: .92. On both sides of 10/15: .64 right
    (.36), .68 wrong (.68). .2 is the upper end of a bin, wrong, and .19 is in it, right: .61. Together 2.57 / 6."""
    confidence = np.array([0.95, 0.97, 0.64, 0.68, 0.2, 0.19])
    right = np.array([True, False, True, False, False, True])
    assert calibration_bins(confidence, right).calibration_error == pytest.approx(2.57 / 6)
    assert calibration_bins(np.array([1.0, 1.0, 0.0]), np.array([True, True, False])).calibration_error == 0
    assert calibration_bins(confidence, right, bins=1).calibration_error == pytest.approx(abs(3 - 3.63) / 6)


# --- runs, grids, power ----------------------------------------------------------------------------------------------


def test_improvement_equals_scipy():
    x, y = SKEWED[:9], SKEWED[9:16]
    found = probability_of_improvement(x, y, 0, resamples=50_000)
    assert found.probability == pytest.approx(stats.mannwhitneyu(x, y).statistic / (9 * 7))

    def share(x, y):
        return float(np.mean(np.subtract.outer(x, y) > 0))

    theirs = stats.bootstrap((x, y), share, n_resamples=10_000, method="percentile", vectorized=False, rng=1)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval), abs=0.025)


def test_variance_of_three_factors_by_hand():
    """Signs of each factor times 4, 3, 2; of the first and last together times 1; all three times .5; replicates
    +-.25. The squares are 16, 9, 4, 1, .25 and .0625, for all cells alike; nothing else acts together."""
    a, b, c = np.meshgrid(*[[-1, 1]] * 3, indexing="ij")
    cells = 4 * a + 3 * b + 2 * c + a * c + 0.5 * a * b * c
    found = variance_shares(cells[..., None] + np.array([-0.25, 0.25]))
    squares = {(0,): 16, (1,): 9, (2,): 4, (0, 1): 0, (0, 2): 1, (1, 2): 0, (0, 1, 2): 0.25}
    assert found == ({axes: near(square / 30.3125) for axes, square in squares.items()}, near(0.0625 / 30.3125))
    assert found and list(found[0]) == list(squares)


@pytest.mark.parametrize(("size", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_by_hand(size, seeds):
    """About (1.960 + .8416)^2 / d^2 + 1.96^2 / 2: 198.1, 33.3, 14.2, 9.8 for d = .2, .5, .8, 1, rounded up."""
    assert seeds_needed(size * 3, 3.0) == seeds_needed(-size, 1.0) == seeds
    assert power(seeds, size, 1) >= 0.8 > power(seeds - 1, size, 1)


def test_power_equals_scipy_and_is_known_where_scipy_has_nan():
    """SciPy has NaN for 20 seeds at 9.2 spreads, through which the search walked past the answer."""
    for seeds, size in ((2, 1.0), (5, 0.7), (5, 20.0), (40, 0.1)):
        bound, shift = stats.t.ppf(0.975, seeds - 1), size * math.sqrt(seeds)
        theirs = 1 - stats.nct.cdf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, min(shift, 9))
        assert power(seeds, size, 1.0) == pytest.approx(theirs, abs=1e-8)
    assert power(5, 0.0, 1.0) == pytest.approx(0.05) and power(20, 9.2, 1.0) == 1
    assert seeds_needed(9.2, 1.0) == 3 and seeds_needed(1e6, 1.0) == 2 and seeds_needed(1e-6, 1.0) is None


# --- made-up studies --------------------------------------------------------------------------------------------------


def with_z(values):
    """The interval that a person gets who takes 1.96 whatever n is; true coverage at n = 5: 87.8 %."""
    mean, _, n = mean_interval(values)
    return mean, 1.96 * (sample_spread(values) or 0.0) / math.sqrt(n), n


def z_p(values):
    mean, half, _ = with_z(values)
    return math.erfc(abs(mean) / (half / 1.96) / math.sqrt(2))


def test_the_real_statistics_reach_their_goals_and_the_command_says_so(capsys, monkeypatch):
    """Pairing: the sum over cells of sqrt(1.09 + 1 + noise^2) over that of sqrt(.09 + noise^2): 10.8 / 4.1 = 2.6."""
    found = simulate(studies=600, seeds=5)
    assert all(goal.reached for goal in goals(found)), [vars(goal) for goal in goals(found)]
    assert 0.78 < found.share("bca_covered") < 0.90 and found.share("any_false_unadjusted") > 0.15
    assert 2.4 < found.pairing_gain < 3.1
    monkeypatch.setattr(command, "simulate", lambda *args: found)
    assert command.main([]) == 0
    text = capsys.readouterr().out
    assert text.count("reached") == 3 and "0.0625" in text and "BCa" in text
    assert len(text.splitlines()) == 13 + len(CELLS) and str(BASELINE.noise) in text


def test_a_planted_z_interval_and_a_planted_z_test_are_caught(capsys, monkeypatch):
    wrong = simulate(300, 5, interval=with_z, test=z_p)
    assert [goal.reached for goal in goals(wrong)] == [False] * 3
    assert [goal.share for goal in goals(wrong)][:2] == pytest.approx([0.878, 0.878], abs=0.03)
    monkeypatch.setattr(command, "simulate", lambda *args: wrong)
    assert command.main([]) == 1 and capsys.readouterr().out.count("MISSED") == 3


def test_json_and_bad_requests(capsys):
    command.main(["--studies", "30", "--seeds", "2", "--json"])
    plain = json.loads(capsys.readouterr().out)
    assert plain["studies"] == 30 and plain["smallest_sign_flip_p"] == 0.5 and len(plain["power"]) == len(CELLS)
    assert all(goal["reached"] == (goal["low"] <= goal["share"] <= goal["high"]) for goal in plain["goals"])
    for words in (["--seeds", "1"], ["--draw", "-1"]):
        with pytest.raises(UsageError, match=words[0]):
            command.main(words)

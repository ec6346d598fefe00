"""Owns the proof that the simulation finds what is true, and finds out what is wrong.
Refuses to wait: a few hundred studies and bounds that still bite.
"""

import json
import math

import pytest

from harness import simulate as command
from harness.statistics.intervals import mean_interval, sample_spread
from harness.statistics.simulated import BASELINE, CELLS, Cell, goals, predicted_power, simulate
from variants.fields import UsageError


@pytest.fixture(scope="module")
def found():
    return simulate(studies=600, seeds=5)


def with_z(values):
    """The interval that a person gets who takes 1.96 whatever n is; true coverage at n = 5: 87.8 %."""
    mean, _, n = mean_interval(values)
    return mean, 1.96 * (sample_spread(values) or 0.0) / math.sqrt(n), n


def z_p(values):
    mean, half, _ = with_z(values)
    return math.erfc(abs(mean) / (half / 1.96) / math.sqrt(2))


def test_the_real_statistics_reach_their_goals(found):
    assert all(goal.reached for goal in goals(found)), [vars(goal) for goal in goals(found)]


def test_bca_undercovers_at_five_seeds_and_is_shown_to(found):
    assert 0.78 < found.bca_covered.share < 0.90


def test_a_planted_z_interval_is_caught():
    mean, difference, _ = goals(simulate(300, 5, interval=with_z))
    assert not mean.reached and not difference.reached
    assert mean.share == pytest.approx(0.878, abs=0.03) and difference.share == pytest.approx(0.878, abs=0.03)


def test_a_planted_z_test_is_caught():
    assert not goals(simulate(300, 5, test=z_p))[2].reached


def test_without_holm_false_findings_are_common(found):
    assert found.any_false_unadjusted.share > 0.15


def test_power_is_the_predicted_one(found):
    """600 studies: three standard errors are 6 points at most."""
    for cell, seen in zip(CELLS, found.seen):
        assert seen.share == pytest.approx(predicted_power(cell, 5), abs=0.06)
    assert predicted_power(Cell(0.0, 0.3), 5) == pytest.approx(0.05)


def test_pairing_takes_away_what_seeds_share(found):
    """Sum over the cells of sqrt(1.09 + 1 + noise^2) over the sum of sqrt(.09 + noise^2): 10.8 / 4.1 = 2.6."""
    assert 2.4 < found.pairing_gain < 3.1


def test_the_draw_reaches_the_studies():
    one, same, other = (command.to_plain(simulate(20, 3, draw)) for draw in (0, 0, 1))
    assert one == same and one | {"draw": 1} != other


def test_the_command_tells_what_it_found(capsys):
    code = command.main(["--studies", "600"])
    text = capsys.readouterr().out
    assert code == 0 and text.count("reached") == 3 and "0.0625" in text and "BCa" in text
    assert len(text.splitlines()) == 13 + len(CELLS) and str(BASELINE.noise) in text


def test_a_missed_goal_is_the_exit_code(capsys, monkeypatch):
    monkeypatch.setattr(command, "simulate", lambda *args: simulate(*args, interval=with_z))
    assert command.main(["--studies", "200"]) == 1
    assert capsys.readouterr().out.count("MISSED") == 2


def test_json(capsys):
    command.main(["--studies", "30", "--seeds", "2", "--json"])
    plain = json.loads(capsys.readouterr().out)
    assert plain["studies"] == 30 and plain["smallest_sign_flip_p"] == 0.5 and len(plain["power"]) == len(CELLS)
    assert [goal["reached"] for goal in plain["goals"]] == [
        goal["low"] <= goal["share"] <= goal["high"] for goal in plain["goals"]
    ]


@pytest.mark.parametrize("words", [["--seeds", "1"], ["--draw", "-1"]])
def test_bad_requests(words):
    with pytest.raises(UsageError, match=words[0]):
        command.main(words)

"""Judge the statistics on made-up studies whose truth is known: coverage, false findings, power.

A study is a baseline and seven cells over the same seeds; what a seed does is shared by all cells, so that pairing
matters; the noise is normal, of several sizes; three cells are true nulls. Each study is drawn once more with every
effect taken out, for the false findings. Exits with 1 if a goal is missed; below 1,000 studies chance can do that.

examples:
  python -m harness.simulate
  python -m harness.simulate --seeds 3
  python -m harness.simulate --studies 10000 --draw 1 --json
"""

import json
from typing import Any

from harness.commands import Parser, run_command, whole
from harness.statistics.paired import smallest_p
from harness.statistics.simulated import (
    BASELINE,
    CELLS,
    CLAIMS,
    SEED_SPREAD,
    Found,
    goals,
    predicted_power,
    simulate,
)
from variants.fields import UsageError


def parser() -> Parser:
    p = Parser("harness.simulate", __doc__ or "")
    p.add_argument("--studies", type=whole, default=2000, metavar="N", help="(default: 2000)")
    p.add_argument("--seeds", type=whole, default=5, metavar="N", help="of each cell, 2 or more (default: 5)")
    p.add_argument("--draw", type=int, default=0, metavar="N", help="another number, other studies (default: 0)")
    p.add_argument("--json", action="store_true", help="one object and nothing else")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.seeds < 2:
        raise UsageError(f"--seeds {args.seeds}: an interval needs 2 or more")
    if args.draw < 0:
        raise UsageError(f"--draw {args.draw}: 0 or more is needed")
    found = simulate(args.studies, args.seeds, args.draw)
    print(json.dumps(to_plain(found), indent=1) if args.json else "\n".join(lines_of(found)))
    return 0 if all(goal.reached for goal in goals(found)) else 1


def to_plain(found: Found) -> dict[str, Any]:
    return {
        **{name: getattr(found, name) for name in ("studies", "seeds", "draw", "pairing_gain")},
        "smallest_sign_flip_p": smallest_p(found.seeds),
        **{claim: found.share(claim) for claim in CLAIMS},
        "power": [
            {"effect": cell.effect, "noise": cell.noise, "seen": seen, "predicted": predicted_power(cell, found.seeds)}
            for cell, seen in zip(CELLS, found.power)
        ],
        "goals": [{**vars(goal), "reached": goal.reached} for goal in goals(found)],
    }


def lines_of(found: Found) -> list[str]:
    studies = "study" if found.studies == 1 else "studies"
    lines = [f"{found.studies:,} {studies} of {len(CELLS)} cells and a baseline, {found.seeds} seeds each", ""]
    for goal in goals(found):
        asked = f"at most {goal.high:.0%}" if goal.low == 0 else f"{goal.low:.0%} to {goal.high:.0%}"
        lines.append(f"{goal.name:<56} {goal.share:7.2%}  goal {asked}: {'reached' if goal.reached else 'MISSED'}")
    bca, unadjusted = found.share("bca_covered"), found.share("any_false_unadjusted")
    lines += [
        f"{'the BCa interval of a mean covers the truth':<56} {bca:7.2%}  no goal; 95% is its name",
        f"{'any false finding among all nulls, without Holm':<56} {unadjusted:7.2%}",
        "",
        f"pairing: the interval of a difference is {found.pairing_gain:.1f} times as long without it",
        f"sign-flip test: the smallest p at {found.seeds} seeds is {smallest_p(found.seeds):.4g}",
        "",
        f"how often the paired t-test sees an effect (p <= .05, before Holm; the baseline's noise is {BASELINE.noise}, "
        f"what seeds share {SEED_SPREAD})",
        "effect  noise     seen  predicted",
    ]
    for cell, seen in zip(CELLS, found.power):
        predicted = predicted_power(cell, found.seeds)
        lines.append(f"{cell.effect:6.1f} {cell.noise:6.1f}  {seen:7.2%}  {predicted:8.2%}")
    return lines


if __name__ == "__main__":
    run_command(main)

"""Compare two runs, or two cells over their seeds, from their records alone: no torch, no data set.

A and B are run folders, run ids, or cell ids (all seeds of the cell). Ids are looked up in results/runs if it holds a
finished run, else in results/reference, or in what --results names. Differences are B - A.

examples:
  python -m harness.compare c10-vit-d48l4p4-e10-s0-298330dc95 c10-vit-d48l4p4-e10-s1-94f25cb488
  python -m harness.compare CELL_ID OTHER_CELL_ID --results results/runs results/reference
  python -m harness.compare results/runs/RUN_ID /elsewhere/RUN_ID --json
"""

import json
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from harness.commands import Parser, place, run_command
from harness.datasets import title
from harness.evidence.cells import count, folders_of
from harness.evidence.contrast import Plain, contrast, side_of
from harness.evidence.writing import HOLE, difference, minutes, signed, whole
from harness.statistics.paired import MOST_SEEDS, WANTED

MOST_CLASSES = 10


def parser() -> Parser:
    p = Parser("harness.compare", __doc__ or "")
    p.add_argument("a", metavar="A", help="run folder, run id or cell id")
    p.add_argument("b", metavar="B", help="run folder, run id or cell id")
    p.add_argument("--results", type=place, nargs="+", action="extend", metavar="DIR", help="(default: see above)")
    p.add_argument("--json", action="store_true", help="one object and nothing else")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    folders = folders_of(args.results)
    found = contrast(side_of(args.a, folders), side_of(args.b, folders))
    print(json.dumps(found, indent=1, allow_nan=False) if args.json else "\n".join(lines_of(found)))
    return 0


def lines_of(found: Plain) -> list[str]:
    sides = {"A": found["a"], "B": found["b"]}
    lines = [
        f"{title(found['dataset'])}, {found['split']} images",
        *(f"{name}: {', '.join(side['run_ids'])}\n   {side['label']}{_failed(side)}" for name, side in sides.items()),
        "",
        *_block("differs in the config (A -> B)", [_change(row) for row in found["config"]], "nothing"),
    ]
    if found["made_with"]:
        lines += _block("was made with (A -> B)", [_change(row) for row in found["made_with"]])
    lines += _block("mean ± half-width of the 95% t-interval (number of runs)", _numbers(found["a"], found["b"]))
    lines += _block("accuracy, B - A, paired by seed (points)", _difference(found))
    if found["images"]:
        about = "image by image: about these trained models, not about their recipes"
        lines += _block(about, [line for pair in found["images"] for line in _images(pair)])
        lines += _block(*_classes(found["classes"]))
    if found["remarks"]:
        lines += _block("not compared", found["remarks"])
    return lines[:-1]


def _failed(side: Plain) -> str:
    return f"; {side['failed']} failed, left out" if side["failed"] else ""


def _block(head: str, lines: Sequence[str], otherwise: str = HOLE) -> list[str]:
    return [head, *(f"  {line}" for line in lines or [otherwise]), ""]


def _change(row: Plain) -> str:
    a, b = (", ".join(map(_short, values)) if values else HOLE for values in (row["a"], row["b"]))
    return f"{row['field']}: {a} -> {b}"


def _short(value: Any) -> str:
    """Of a digest, its beginning."""
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _numbers(*sides: Plain) -> list[str]:
    rows = {
        "accuracy (%)": [_spread(side["accuracy"]) for side in sides],
        "NLL": [_spread(side["nll"], ".4f") for side in sides],
        "calibration error (%)": [_spread(side["calibration_error"]) for side in sides],
        "parameters": [whole(side["params"]) for side in sides],
        "MACs an image": [whole(side["macs"]) for side in sides],
        "minutes of training": [_minutes(side) for side in sides],
    }
    return _aligned([["", "A", "B"], *([name, *texts] for name, texts in rows.items())])


def _spread(value: Plain | None, form: str = ".2f") -> str:
    if value is None:
        return HOLE
    half = "" if value["half"] is None else f" ± {value['half']:{form}}"
    return f"{value['mean']:{form}}{half} ({value['n']})"


def _minutes(side: Plain) -> str:
    taken = side["train_minutes"]
    return HOLE if taken is None else f"{minutes(taken['mean'])} on {side['device']}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    text = tabulate(rows, tablefmt="plain", disable_numparse=True)
    return [line.rstrip() for line in text.splitlines()]


def _difference(found: Plain) -> list[str]:
    d = found["difference"]
    dropped = [f"left out, because on one side alone: {count(d['dropped'], 'seed')}"] if d["dropped"] else []
    if d["mean"] is None:
        return ["undecided: no seed is on both sides", *dropped]
    # undecided where there is no p: one pair, or differences that all equal something else than 0
    verdict = "undecided" if d["t_p"] is None else f"paired t: p {_p(d['t_p'])}"
    lines = [f"{difference(d['mean'], d['half'])} (n = {d['n']}), {verdict}"]
    if d["sign_flip_p"] is not None:
        smallest = f"the smallest that {d['n']} pairs allow: {d['smallest_sign_flip_p']:.4g}"
        lines.append(f"sign-flip p {_p(d['sign_flip_p'])}; {smallest}")
    lines += dropped
    if d["mean"] and d["spread"]:
        seeds = found["seeds_to_resolve"]
        wanted = f"{seeds} seeds" if seeds else f"more than {MOST_SEEDS:,} seeds"
        power = f"{100 * WANTED:.0f} % power needs {wanted} (spread {d['spread']:.2f})"
        lines.append(f"if this is the true difference, {power}")
    return lines


def _p(p: float) -> str:
    if p < 1e-300:  # where floating point ends
        return "< 1e-300"
    return f"= {p:.2g}" if p >= 1e-4 else f"= {p:.0e}"


def _images(pair: Plain) -> list[str]:
    a, b = pair["seed_a"], pair["seed_b"]
    seeds = f"seed {a}" if a == b else f"seed {a} against {b}"
    counts, (low, high) = pair["counts"], pair["interval"]
    return [
        f"{seeds}: both right {counts['both']:,}, only A {counts['only_first']:,}, only B {counts['only_second']:,}, "
        f"both wrong {counts['neither']:,}",
        f"  B - A {signed(pair['difference'])} points, 95% over images {signed(low)} to {signed(high)}; "
        f"McNemar p {_p(pair['mcnemar_p'])}",
    ]


def _classes(classes: Sequence[Plain]) -> tuple[str, list[str]]:
    some = f", {MOST_CLASSES} of {len(classes)} classes" if len(classes) > MOST_CLASSES else ""
    rows = [["class", "A", "B", "B - A"]]
    for row in classes[:MOST_CLASSES]:
        rows.append([str(row["label"]), f"{row['a']:.2f}", f"{row['b']:.2f}", signed(row["difference"])])
    return f"accuracy by class (%), largest difference first{some}", _aligned(rows)


if __name__ == "__main__":
    run_command(main)

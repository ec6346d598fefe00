"""Compare two runs, two cells over their seeds, or anyone's results from CSV files.

From records alone, without torch and data. A and B are run folders, run ids, or cell ids (all seeds of the cell). Ids
are looked up in results/runs if it holds a finished run, else in results/reference, or in what --results names.
Differences are B - A.

A name that ends in .csv is a file of results that need not have been trained here, with the columns method, seed and
accuracy, and any others. Each method is compared with a base, paired by seed, with the tests and words of a study's
tables. Accuracies are shares if none of them is above 1, else percent. Where there is a column `dataset`, results are
compared within each data set, which is one family of tests; --by names other columns to compare within.

examples:
  python -m harness.compare c10-vit-d48l4p4-e10-s0-298330dc95 c10-vit-d48l4p4-e10-s1-94f25cb488
  python -m harness.compare CELL_ID OTHER_CELL_ID --results results/runs results/reference
  python -m harness.compare results/runs/RUN_ID /elsewhere/RUN_ID --json
  python -m harness.compare mine.csv theirs.csv --base vanilla --latex table.tex
  python -m harness.compare mine.csv --by dataset epochs --json
"""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from tabulate import tabulate

from harness.commands import Parser, new_file, place, run_command
from harness.datasets import title
from harness.evidence.cells import Cell, cell_of, count, folders_of, unique, usable
from harness.evidence.csv_results import Compared, compared
from harness.evidence.names import name_of
from harness.evidence.quality import Predictions, predictions_of
from harness.evidence.writing import HOLE, difference, minutes, p_value, signed, whole
from harness.records.read import Run, load_runs, read_run, reason
from harness.records.write import write_atomically
from harness.statistics.images import (
    agreement,
    calibration_bins,
    class_accuracy,
    confusion,
    difference_interval,
    mcnemar_p,
)
from harness.statistics.intervals import mean_interval
from harness.statistics.paired import MOST_SEEDS, WANTED, paired, seeds_needed
from variants.fields import UsageError, near_matches

MOST_NAMES, MOST_CLASSES = 8, 10
WIDTH, STDOUT = 120, Path("-")
PARTS = ("variant", "recipe")
SCALARS = ("variant_type", "precision", "compile", "holdout", "semantics", "seed", "weights_digest")
MADE_WITH = ("device_name", "torch", "source_digest", "data_digest")

Plain = dict[str, Any]
ById = dict[str, Predictions | None]  # by run id
Seeds = tuple[int, int]
Pair = tuple[Predictions, Predictions]


def parser() -> Parser:
    p = Parser("harness.compare", __doc__ or "")
    p.add_argument("a", metavar="A", help="run folder, run id or cell id; or a file of results")
    p.add_argument("b", metavar="B", nargs="*", help="the same; of files as many as there are")
    p.add_argument("--results", type=place, nargs="+", action="extend", metavar="DIR", help="(default: see above)")
    p.add_argument("--json", action="store_true", help="one object and nothing else")
    files = p.add_argument_group("of files of results")
    files.add_argument("--base", metavar="METHOD", help="what the others are compared with (default: the first one)")
    files.add_argument("--by", nargs="+", metavar="COLUMN", help="compare within each of its values (default: dataset)")
    files.add_argument("--latex", type=new_file, metavar="TEX", help="write the tables there; - prints them alone")
    return p


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    args = p.parse_args(arguments)
    names = [args.a, *args.b]
    files = [name for name in names if name.lower().endswith(".csv") and not Path(name).is_dir()]
    if others := [name for name in names if files and name not in files]:
        raise UsageError(f"{files[0]} is a file of results, and {others[0]} is not: its name does not end in .csv")
    if files:
        return of_files(args, [Path(name) for name in files])
    for option in ("base", "by", "latex"):
        if getattr(args, option) is not None:
            raise UsageError(f"--{option} is for files of results, whose names end in .csv")
    if not args.b:
        p.error("the following arguments are required: B (or names that end in .csv)")
    if args.b[1:]:
        p.error(f"unrecognized arguments: {' '.join(args.b[1:])} (only names that end in .csv may be many)")
    folders = folders_of(args.results)
    found = contrast(side_of(args.a, folders), side_of(args.b[0], folders))
    print(json.dumps(found, indent=1, allow_nan=False) if args.json else "\n".join(lines_of(found)))
    return 0


# --- files of results ------------------------------------------------------------------------------------------------


def of_files(args: Namespace, files: Sequence[Path]) -> int:
    if args.results:
        raise UsageError("--results is where runs lie: leave it out")
    if args.latex and args.latex.suffix.lower() == ".csv":
        raise UsageError(f"--latex {args.latex}: this is where the tables are written, and must not be a .csv")
    if args.latex == STDOUT and args.json:
        raise UsageError("--latex - and --json each print alone: choose one")
    found = compared(files, args.base, args.by)
    latex = "\n".join(one.table().to_latex() for one in found.comparisons)
    if args.latex == STDOUT:
        print(latex, end="")
    elif args.latex:
        try:
            write_atomically(args.latex, latex.encode())
        except OSError as error:
            raise UsageError(f"cannot write {args.latex}: {error.strerror}") from None
    if args.json:
        print(json.dumps(found.to_plain(), indent=1, allow_nan=False))
    elif args.latex != STDOUT:
        print("\n".join(lines_of_files(found, args)))
    return 0


def lines_of_files(found: Compared, args: Namespace) -> list[str]:
    told = "" if args.base else ", the first method (--base names another)"
    lines = [f"accuracies in the files: {found.written_as}; base: {found.base}{told}"]
    lines += [f"columns not used: {', '.join(found.unused)}"] if found.unused else []
    for one in found.comparisons:
        table = one.table()
        lines += ["", *([one.title, ""] if one.within else []), *_aligned([table.columns, *table.rows])]
        lines += ["", *(table.conclusions or ["One method: there is nothing to compare."])]
        lines += ["", *wrap(f"{one.caption} {table.on_wide}".strip(), WIDTH)]
    return [*lines, *(["", f"wrote {args.latex}"] if args.latex else [])]


# --- the comparison --------------------------------------------------------------------------------------------------


def contrast(a: Cell, b: Cell) -> Plain:
    """As `--json` prints it. Accuracies and calibration errors are in percent, differences in points, B - A."""
    if a.dataset != b.dataset:
        raise UsageError(f"A was judged on {a.dataset} and B on {b.dataset}: accuracies of two data sets say nothing")
    if judged_on(a) != judged_on(b):
        raise UsageError(f"A was judged on {judged_on(a)} and B on {judged_on(b)}: these are not the same images")
    if shared := {run_id(run) for run in a.runs} & {run_id(run) for run in b.runs}:
        raise UsageError(f"A and B share {', '.join(sorted(shared))}: a run cannot be compared with itself")
    split, remarks = a.runs[0].result["split"], list[str]()
    paired_by_seed = paired(a.by_seed(split), b.by_seed(split))
    predictions = {run_id(run): _predictions(run, remarks) for run in (*a.runs, *b.runs)}
    compared = _same_images(a, b, predictions, remarks)
    return {
        "dataset": a.dataset,
        "split": split,
        "a": _facts(a, split, predictions),
        "b": _facts(b, split, predictions),
        "config": _differing(a, b, _config),
        "made_with": _differing(a, b, _made_with),
        "difference": asdict(paired_by_seed),
        "seeds_to_resolve": seeds_needed(paired_by_seed.mean or 0.0, paired_by_seed.spread or 0.0),
        "images": [_of_images(seeds, *pair) for seeds, pair in compared],
        "classes": _of_classes([pair for _, pair in compared]),
        "remarks": remarks,
    }


def side_of(name: str, folders: Sequence[Path]) -> Cell:
    """A run's folder, a run id, or a cell id (all seeds of the cell under the folders)."""
    runs = [_read(Path(name))] if (Path(name) / "config.json").is_file() else _named(name, folders)
    side = cell_of(runs, name_of(runs[0].config))
    if not side.runs:
        raise UsageError(f"{runs[0].folder}: failed ({runs[0].result.get('reason')}), there is nothing to compare")
    return side


def _read(folder: Path) -> Run:
    try:
        run = read_run(folder)
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: unfinished, there is no {Path(str(error.filename)).name}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} cannot be read: {reason(error)}") from None
    if not usable(run):
        raise UsageError(f"{folder}: its record lacks what a comparison needs")
    return run


def _named(name: str, folders: Sequence[Path]) -> list[Run]:
    runs = [run for run in load_runs(folders) if usable(run)]
    for field in ("run_id", "cell_id"):
        if chosen := [run for run in runs if run.config.get(field) == name]:
            return sorted(unique(chosen), key=lambda run: run.config["seed"])
    where = ", ".join(map(str, folders))
    if not runs:
        raise UsageError(f"{name!r} is no run's folder, and there is no finished run under {where}")
    names = {str(run.config[field]) for run in runs for field in ("run_id", "cell_id") if run.config.get(field)}
    near = near_matches(name, names)
    if not near.startswith("did you mean") and len(names) > MOST_NAMES:
        near = f"it holds {len(names)} others"  # a study has hundreds
    raise UsageError(f"{name!r} is neither a run's folder nor an id under {where}: {near}")


def judged_on(side: Cell) -> str:
    """Two holdouts of another size are other images."""
    split, holdout = side.runs[0].result["split"], side.setting("holdout")
    return f"{split} (holdout {holdout:g})" if holdout else split


def run_id(run: Run) -> str:
    return run.config.get("run_id") or run.folder.name


def _facts(side: Cell, split: str, predictions: ById) -> Plain:
    """One side in numbers; `device` is where its minutes were measured, by runs alone on it."""
    known = [found for run in side.runs if (found := predictions[run_id(run)])]
    bins = [calibration_bins(p["confidence"], p["predicted"] == p["labels"]) for p in known]
    return {
        "run_ids": [run_id(run) for run in side.runs],
        "label": f"{side.variant}, {side.recipe}",
        "seeds": [run.config["seed"] for run in side.runs],
        "failed": len(side.failed),
        "accuracy": _mean(list(side.by_seed(split).values())),
        "nll": _mean(side.measured(f"{split}_nll")),
        "calibration_error": _mean([100 * of_run.calibration_error for of_run in bins]),
        "params": side.cost("params"),
        "macs": side.cost("macs"),
        "train_minutes": _mean(side.timed("train_seconds", 1 / 60)),
        "device": side.timed_device,
    }


def _mean(values: Sequence[float]) -> Plain | None:
    return dict(zip(("mean", "half", "n"), mean_interval(values))) if values else None


def _config(run: Run) -> Plain:
    """Every field that can change a result: where two sides differ, the ablation as the machine states it."""
    fields = {f"{part}.{name}": value for part in PARTS for name, value in (run.config.get(part) or {}).items()}
    return fields | {name: run.config[name] for name in SCALARS if name in run.config}


def _made_with(run: Run) -> Plain:
    return {name: run.env[name] for name in MADE_WITH if name in run.env}


def _differing(a: Cell, b: Cell, fields_of: Callable[[Run], Plain]) -> list[Plain]:
    """A field with each side's different values, in the order in which they come."""
    sides = [[fields_of(run) for run in side.runs] for side in (a, b)]
    rows = []
    for name in dict.fromkeys(name for side in sides for fields in side for name in fields):
        values: tuple[list[Any], list[Any]] = ([], [])
        for side, found in zip(sides, values):
            for fields in side:
                if name in fields and fields[name] not in found:  # some are lists, so that no set can hold them
                    found.append(fields[name])
        rows.append({"field": name, "a": values[0], "b": values[1]})
    return [row for row in rows if row["a"] != row["b"]]


# --- image by image --------------------------------------------------------------------------------------------------


def _predictions(run: Run, remarks: list[str]) -> Predictions | None:
    found, reason = predictions_of(run)
    if found is None:
        remarks.append(f"{run_id(run)}: no predictions to compare ({reason})")
        print(remarks[-1], file=sys.stderr)
    return found


def _same_images(a: Cell, b: Cell, predictions: ById, remarks: list[str]) -> list[tuple[Seeds, Pair]]:
    """Pairs of runs of one seed that judged the same images; two single runs are compared whatever their seeds, for
    then they are what was asked about."""
    single, kept = len(a.runs) == len(b.runs) == 1, []
    for first, second in product(a.runs, b.runs):
        seeds = first.config["seed"], second.config["seed"]
        of_first, of_second = predictions[run_id(first)], predictions[run_id(second)]
        if not (of_first and of_second and (single or seeds[0] == seeds[1])):
            continue
        if np.array_equal(of_first["labels"], of_second["labels"]):
            kept.append((seeds, (of_first, of_second)))
        else:
            remarks.append(f"{run_id(first)} and {run_id(second)}: the data differ, so no image is compared")
    return kept


def _of_images(seeds: Seeds, a: Predictions, b: Predictions) -> Plain:
    counts = agreement(a["labels"], a["predicted"], b["predicted"])
    return {
        "seed_a": seeds[0],
        "seed_b": seeds[1],
        "counts": asdict(counts),
        "difference": 100 * counts.difference,
        "interval": [100 * end for end in difference_interval(counts, seeds)],
        "mcnemar_p": mcnemar_p(counts.only_first, counts.only_second),
    }


def _of_classes(pairs: Sequence[Pair]) -> list[Plain]:
    """Accuracy by class, the mean over the pairs, largest difference first."""
    if not pairs:
        return []
    classes = 1 + max(int(max(one["labels"].max(), one["predicted"].max())) for pair in pairs for one in pair)
    a_K, b_K = (
        np.mean([class_accuracy(confusion(one["labels"], one["predicted"], classes)) for one in side], 0)
        for side in zip(*pairs)
    )
    labels = np.flatnonzero(~np.isnan(a_K)).tolist()
    rows = [{"label": k, "a": float(a_K[k]), "b": float(b_K[k]), "difference": float(b_K[k] - a_K[k])} for k in labels]
    return sorted(rows, key=lambda row: (-abs(row["difference"]), row["label"]))


# --- the comparison as text ------------------------------------------------------------------------------------------


def lines_of(found: Plain) -> list[str]:
    a, b = found["a"], found["b"]
    lines = [f"{title(found['dataset'])}, {found['split']} images"]
    for name, side in (("A", a), ("B", b)):
        failed = f"; {side['failed']} failed, left out" if side["failed"] else ""
        lines += [f"{name}: {', '.join(side['run_ids'])}", f"   {side['label']}{failed}"]
    some = f", {MOST_CLASSES} of {len(found['classes'])} classes" if len(found["classes"]) > MOST_CLASSES else ""
    blocks = {
        "differs in the config (A -> B)": [_change(row) for row in found["config"]] or ["nothing"],
        "was made with (A -> B)": [_change(row) for row in found["made_with"]],
        "mean ± half-width of the 95% t-interval (number of runs)": _numbers(a, b),
        "accuracy, B - A, paired by seed (points)": _difference(found),
        "image by image: about these trained models, not about their recipes": [
            line for pair in found["images"] for line in _images(pair)
        ],
        f"accuracy by class (%), largest difference first{some}": _classes(found["classes"]),
        "not compared": found["remarks"],
    }
    for head, block in blocks.items():
        if block:
            lines += ["", head, *(f"  {line}" for line in block)]
    return lines


def _change(row: Plain) -> str:
    """Of a digest, its beginning."""
    texts = [[str(value)[:12] if len(str(value)) == 64 else str(value) for value in row[side]] for side in ("a", "b")]
    a, b = (", ".join(values) or HOLE for values in texts)
    return f"{row['field']}: {a} -> {b}"


def _numbers(*sides: Plain) -> list[str]:
    times = [(side["train_minutes"], side["device"]) for side in sides]
    rows = {
        "accuracy (%)": [_spread(side["accuracy"]) for side in sides],
        "NLL": [_spread(side["nll"], ".4f") for side in sides],
        "calibration error (%)": [_spread(side["calibration_error"]) for side in sides],
        "parameters": [whole(side["params"]) for side in sides],
        "MACs an image": [whole(side["macs"]) for side in sides],
        "minutes of training": [f"{minutes(time['mean'])} on {device}" if time else HOLE for time, device in times],
    }
    return _aligned([["", "A", "B"], *([name, *texts] for name, texts in rows.items())])


def _spread(value: Plain | None, form: str = ".2f") -> str:
    if value is None:
        return HOLE
    half = "" if value["half"] is None else f" ± {value['half']:{form}}"
    return f"{value['mean']:{form}}{half} ({value['n']})"


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
        smallest = f"the smallest that {d['n']} pairs allow: {p_value(d['smallest_sign_flip_p'])}"
        lines.append(f"sign-flip p {_p(d['sign_flip_p'])}; {smallest}")
    lines += dropped
    if d["mean"] and d["spread"]:
        seeds = found["seeds_to_resolve"]
        wanted = f"{seeds} seeds" if seeds else f"more than {MOST_SEEDS:,} seeds"
        power = f"{100 * WANTED:.0f} % power needs {wanted} (spread {d['spread']:.2f})"
        lines.append(f"if this is the true difference, {power}")
    return lines


def _p(p: float) -> str:
    text = p_value(p)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


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


def _classes(classes: Sequence[Plain]) -> list[str]:
    first = classes[:MOST_CLASSES]
    rows = [[str(row["label"]), f"{row['a']:.2f}", f"{row['b']:.2f}", signed(row["difference"])] for row in first]
    return _aligned([["class", "A", "B", "B - A"], *rows]) if rows else []


if __name__ == "__main__":
    run_command(main)

"""Rebuild every table and figure from the records.

They are OUT/tables/*.{md,tex,csv}, OUT/figures/*.{pdf,png}, and what the paper says of them: OUT/numbers.tex and
OUT/studies.tex. With --html, OUT/index.html too: all of it as one page for a browser, which needs no network. With
--paper, OUT/main.pdf too, if a LaTeX is installed.

Reads results/runs if it holds a finished run, else results/reference; never both unless both are named. What a study
plans and no run has done is shown as a hole. The same records give the same bytes. Needs no torch and no data.
Every study that was run has tables, figures and conclusions, whatever --study names: of one that changes a base, the
base and another row; of a table or grid at least half.

examples:
  python -m harness.report
  python -m harness.report --results results/reference --readme README.md --html
  python -m harness.report --results results-quick/runs --out results-quick/paper --study quick
  python -m harness.report --html --results results/reference results/runs
  python -m harness.report --paper
  python -m harness.report --results machine-a/runs machine-b/runs --out /tmp/both
"""

from pathlib import Path

from harness.commands import Parser, as_typed, directory, place, run_command
from harness.evidence.captions import headed
from harness.evidence.cells import folders_of, read_costs, read_evidence
from harness.evidence.findings import beside_studies, findings
from harness.evidence.page.document import page
from harness.evidence.paper import (
    all_figures,
    all_tables,
    macros,
    read_parts,
    typeset,
    write_figures,
    write_results,
    write_tables,
    write_text,
)
from harness.evidence.tables.costs import read_measured
from harness.records.write import write_atomically
from harness.studies import STUDIES
from variants.fields import UsageError, near_matches

BENCHMARKS, COSTS = Path("results/bench"), Path("results/cost")


def parser() -> Parser:
    p = Parser("harness.report", __doc__ or "")
    p.add_argument("--results", type=place, nargs="+", action="extend", metavar="DIR", help="(default: see above)")
    p.add_argument("--out", type=directory, default=Path("paper"), metavar="DIR", help="(default: paper)")
    p.add_argument("--study", default="main", help=f"of the main table: {', '.join(STUDIES)} (default: main)")
    p.add_argument("--bench", type=directory, default=BENCHMARKS, metavar="DIR", help=f"(default: {BENCHMARKS})")
    p.add_argument("--cost", type=directory, default=COSTS, metavar="DIR", help=f"(default: {COSTS})")
    p.add_argument(
        "--readme", type=place, metavar="FILE", help="also put the main table between FILE's results markers"
    )
    p.add_argument(
        "--html", action="store_true", help="also write OUT/index.html: all results as one page for a browser"
    )
    p.add_argument("--paper", action="store_true", help="also typeset OUT/main.tex, if a LaTeX is installed")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.study not in STUDIES:
        raise UsageError(f"unknown study {args.study!r}: {near_matches(args.study, STUDIES)}")
    study = STUDIES[args.study]
    if args.readme:
        read_parts(args.readme)  # a README without markers is refused before anything is written
    evidence = read_evidence(folders_of(args.results), read_costs(args.cost))
    print(evidence.source if evidence.cells else f"{evidence.source} The tables hold no results.")
    if not evidence.costs:  # where the suite is installed and this is not its repository
        print(as_typed(f"{args.cost} holds no costs of the variants: python -m harness.cost --write counts them"))
    measured, found = read_measured(args.bench), findings(evidence)
    beside = beside_studies(evidence, args.study, found)
    pictured = beside if beside.cells else evidence  # while the main table is empty, what the studies have
    tables = all_tables(evidence, study, measured, found, beside)
    try:
        lines = write_tables(tables, args.out / "tables")
        lines += write_figures(all_figures(pictured, study, measured, found), pictured, args.out / "figures")
        lines += write_text(macros(evidence, study, found, pictured.cells), found, args.out)
        if args.readme:
            write_results(args.readme, tables[0], [headed(one) for one in found if not one.quick])
            lines.append(f"{args.readme}: the results between its markers")
        if args.html:
            text = page(evidence, args.study, found, tables)
            write_atomically(args.out / "index.html", text.encode())
            lines.append("index.html: open it in a browser")
        if args.paper:
            lines.append(typeset(args.out))
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or args.out}: {error.strerror or error}") from None
    sentences = [line for one in found for line in ("", *headed(one))]
    print("\n".join([f"wrote below {args.out}:", *lines, "", tables[0].to_markdown().rstrip("\n"), *sentences]))
    return 0


if __name__ == "__main__":
    run_command(main)

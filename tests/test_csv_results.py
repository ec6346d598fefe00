"""harness.compare on CSV files: by values worked out by hand, by SciPy, and by the suite's own tables. Every mistake of
a file is told with its line."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.compare import main
from harness.records.read import load_runs
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
HEAD = "method,seed,accuracy\n"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a file into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, name: str = "a.csv") -> str:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


def told(capsys, *words: str) -> str:
    assert main([*words]) == 0
    return capsys.readouterr().out


def plain(capsys, *words: str) -> dict[str, Any]:
    return json.loads(told(capsys, *words, "--json"))


def lines(method: str, *accuracies: float, more: str = "") -> str:
    return "".join(f"{method},{seed},{accuracy!r}{more}\n" for seed, accuracy in enumerate(accuracies))


# --- values ----------------------------------------------------------------------------------------------------------


def test_two_methods_by_hand(file, capsys):
    """Differences 1, 2, 3: 2 +- t(2) / sqrt(3) = 4.3027 / 1.7321 = 2.4841; t = 2 sqrt(3) = 3.4641: p = .07418;
    sign-flip 2 of 8; d = 2: 5 seeds. A: 50, 60, 70: 60 +- 4.3027 x 10 / 1.7321 = 24.84."""
    name = file(HEAD + lines("A", 0.5, 0.6, 0.7) + lines("B", 0.51, 0.62, 0.73) + "B,9,0.1\n")
    found = plain(capsys, name)
    assert (found["base"], found["written_as"], found["unused"]) == ("A", "shares", [])
    (group,) = found["comparisons"]
    a, b = group["methods"]
    assert a == {"method": "A", "seeds": [0, 1, 2], "mean": 60, "half": pytest.approx(24.8414, abs=1e-4), "n": 3}
    assert b["seeds"] == [0, 1, 2, 9] and b["mean"] == pytest.approx(49)
    (effect,) = group["comparisons"]
    assert (effect["method"], effect["against"], effect["n"], effect["dropped"]) == ("B", "A", 3, 1)
    assert effect["mean"] == pytest.approx(2) and effect["half"] == pytest.approx(2.4841, abs=1e-4)
    assert effect["t_p"] == effect["holm_p"] == pytest.approx(0.07418, abs=1e-5)
    assert effect["sign_flip_p"] == 0.25 and effect["seeds_to_resolve"] == 5
    assert effect["verdict"] == "not distinguishable"
    text = told(capsys, name)
    assert "shares; base: A, the first method (--base names another)" in text
    assert "B: +2.00 ± 2.48 points against A (n = 3, 1 seed unpaired, Holm p = 0.0742): not distinguishable" in text
    assert "80 % power would need 5 seeds." in text
    (effect,) = plain(capsys, name, "--base", "B")["comparisons"][0]["comparisons"]
    assert (effect["method"], effect["against"]) == ("A", "B") and effect["mean"] == pytest.approx(-2)
    assert "base: B\n" in told(capsys, name, "--base", "B")


def test_many_methods_by_scipy(file, capsys):
    """Holm over all that are tested; what has one pair is not."""
    rng = np.random.default_rng(0)
    base = rng.normal(70, 3, 5)
    scores = {f"m{k}": base + effect + rng.normal(0, 0.5, 5) for k, effect in enumerate((0.3, 2.0, -1.5, 0.0))}
    text = HEAD + lines("base", *base.tolist()) + "".join(lines(name, *of.tolist()) for name, of in scores.items())
    effects = {
        effect["method"]: effect
        for effect in plain(capsys, file(text + "lone,0,50\n"))["comparisons"][0]["comparisons"]
    }
    assert effects["lone"]["verdict"] == "undecided" and effects["lone"]["holm_p"] is None
    p = {name: float(stats.ttest_rel(of, base).pvalue) for name, of in scores.items()}
    least = 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        least = max(least, min(1, (len(p) - rank) * p[name]))
        effect, interval = effects[name], stats.ttest_rel(scores[name], base).confidence_interval()
        assert effect["t_p"] == pytest.approx(p[name]) and effect["holm_p"] == pytest.approx(least)
        assert effect["mean"] - effect["half"] == pytest.approx(interval.low)
        assert effect["mean"] + effect["half"] == pytest.approx(interval.high)
        decided = ("better" if effect["mean"] > 0 else "worse") if least <= 0.05 else "not distinguishable"
        assert effect["verdict"] == decided
    assert {effects[name]["verdict"] for name in p} == {"better", "worse", "not distinguishable"}


def test_the_numbers_of_records_give_the_suite_s_own_table(file, capsys):
    """Study final-norm, 10 epochs: its accuracies as a file give the study's columns but those on its models."""
    runs = load_runs([ROOT / "results" / "reference"])
    chosen = [run for run in runs if run.config["recipe"]["epochs"] == 10 and run.config["variant"]["pool"] == "seq"]
    if len(chosen) != 10:
        pytest.skip("these reference runs are not in this checkout")
    rows = [(run.config["variant"]["final_norm"], run.config["seed"], run.result["test_accuracy"]) for run in chosen]
    text = HEAD + "".join(f"norm={norm},{seed},{accuracy!r}\n" for norm, seed, accuracy in rows)
    with (ROOT / "paper" / "tables" / "study-final-norm-e10.csv").open() as table:
        suite = {row["row"]: row for row in csv.DictReader(table)}
    latex = told(capsys, file(text), "--base", "norm=none", "--latex", "-")
    for sign, own in ((r"$\pm$", "±"), ("$-$", "-"), ("---", "—"), (r" \\", "")):
        latex = latex.replace(sign, own)
    head, *body = [line.split(" & ") for line in latex.splitlines() if line.startswith(("norm", "method"))]
    assert len(body) == 2 and r"\textbf{61.56 ± 1.71 (5)}" in body[0]
    for row in body:
        for column, cell in zip(head[1:], row[1:]):
            assert cell.removeprefix(r"\textbf{").removesuffix("}") == suite[row[0]][column.replace("\\", "")]
    printed = told(capsys, "a.csv", "--base", "norm=none")
    row = suite["norm=tokens"]
    for column in ("effect (points)", "p", "Holm p", "sign-flip p (smallest)", "seeds to resolve", "verdict"):
        assert row[column] in printed
    assert "norm=tokens: -12.00 ± 10.12 points against norm=none (n = 5, Holm p = 0.0301): worse." in printed


# --- columns, units, several files -----------------------------------------------------------------------------------

TWO_SETS = "method,seed,accuracy,dataset,epochs\n" + "".join(
    lines(method, *(first + 0.1 * seed for seed in range(3)), more=f",{dataset},10")
    for method, first, dataset in (("A", 0.5, "c10"), ("B", 0.6, "c10"), ("A", 0.3, "c100"), ("C", 0.31, "c100"))
)


def test_results_of_two_data_sets_are_never_compared(file, capsys):
    name = file(TWO_SETS)
    found = plain(capsys, name)
    assert [group["within"] for group in found["comparisons"]] == [{"dataset": "c10"}, {"dataset": "c100"}]
    pairs = [[effect["method"] for effect in group["comparisons"]] for group in found["comparisons"]]
    assert pairs == [["B"], ["C"]] and found["unused"] == ["epochs"]
    text = told(capsys, name, "--by", "Dataset", "epochs")
    assert "dataset c10, epochs 10\n" in text and "columns not used" not in text
    latex = told(capsys, name, "--latex", "-")
    assert r"\label{tab:compare-c10}" in latex and r"\label{tab:compare-c100}" in latex
    assert latex.count(r"\toprule") == 2 and latex.startswith("% written by python -m harness.compare")
    with pytest.raises(UsageError, match=r"line 8: A with seed 0 stands in .*; .* each dataset: --by epochs dataset$"):
        main([name, "--by", "epochs"])


def test_what_spreadsheets_write_is_read(file, capsys):
    plainly = file(HEAD + "Ä x,0,74.3\nÄ x,1,75.3\nB,0,74.9\nB,1,76.1\n", "plain.csv")
    sheet = file(
        b"\xef\xbb\xbf"
        + "Seed;Method ;ACCURACY;;\r\n0;Ä x;74,3;;\r\n1;Ä x;75,3%;;\r\n;;;;\r\n\r\n0; B;74,9\r\n"
        '1;"B";76,1;;\r\n'.encode(),
        "sheet.csv",
    )
    assert plain(capsys, sheet) == plain(capsys, plainly)
    broken = file(Path(plainly).read_text().replace("Ä x", '"Ä\n x"').replace("74.3", '"74,3"'), "broken.csv")
    assert plain(capsys, broken) == plain(capsys, plainly)
    tabs = file(Path(plainly).read_text().replace(",", "\t").replace("\n", "\r"), "tabs.csv")
    assert plain(capsys, tabs) == plain(capsys, plainly)


def test_files_are_read_as_one_and_say_where_a_line_stands(file, capsys):
    first, second = file(HEAD + lines("A", 50, 60)), file(HEAD + lines("B", 51, 62), "b.csv")
    assert "B: +1.50 ± 6.35 points against A" in told(capsys, first, second)
    with pytest.raises(UsageError, match=r"^b.csv, line 2: A with seed 1 stands in a.csv, line 3 already$"):
        main([first, file(HEAD + "A,1,0.3\n", "b.csv")])


def test_percent_or_shares(file, capsys):
    assert plain(capsys, file(HEAD + "A,0,1\nA,1,0.0\n"))["comparisons"][0]["methods"][0]["mean"] == 50
    assert plain(capsys, file(HEAD + "A,0,74.3\nA,1,0\n"))["written_as"] == "percent"
    chance = file(HEAD + "A,0,74.5\nA,1,0.5\n")  # of a thousand classes, say
    with pytest.raises(UsageError, match=r"a.csv, line 3: 0.5 looks like a share, and 74.5 in a.csv, line 2"):
        main([chance])
    signed = file(HEAD + "A,0,74.5\nA,1,0.5%\n")
    assert plain(capsys, signed)["comparisons"][0]["methods"][0]["mean"] == 37.5


def test_what_decides_nothing_says_so(file, capsys):
    text = told(capsys, file(HEAD + "A,0,50\nB,0,51\nC,1,52\n"))
    assert "B: +1.00 points against A (n = 1): undecided, one pair says nothing of the spread." in text
    assert "C: undecided, no seed is on both sides (against A)." in text
    assert "Nothing is tested: that takes two seeds on both sides, with differences that are not equal." in " ".join(
        text.split()
    )
    alike = " ".join(told(capsys, file(HEAD + lines("A", 50, 52) + lines("B", 51, 53))).split())
    assert "every pair differs by the same" in alike and "with differences that are not equal." in alike
    assert "One method: there is nothing to compare." in told(capsys, file(HEAD + "A,0,50\nA,1,51\n"))
    lone = TWO_SETS + "B,0,0.5,svhn,10\n"
    assert "B: undecided, no seed is on both sides (against A)." in told(capsys, file(lone))


def test_latex_goes_into_a_file(file, capsys, tmp_path):
    name = file(HEAD + lines("A_1", 50, 60) + lines("B & C", 51, 62))
    assert told(capsys, name, "--latex", "t.tex").endswith("\nwrote t.tex\n")
    written = Path("t.tex").read_text()
    assert written == told(capsys, name, "--latex", "-") and r"A\_1 & 55.00" in written and r"B \& C & 56.50" in written
    assert json.loads(told(capsys, name, "--json", "--latex", "t.tex"))["base"] == "A_1"


# --- mistakes --------------------------------------------------------------------------------------------------------

BAD = {
    "": "a.csv holds nothing",
    HEAD: "a header and no result",
    "A,0,50\nA,1,51\n": "line 1: this is no header; the columns method, seed and accuracy",
    "\n\nmethods,seed,accuracy\nA,0,1\n": "line 3: no column 'method'; did you mean methods",
    "method,seed,test\nA,0,1\n": "line 1: no column 'accuracy'; choose from method, seed, test",
    "method,seed,accuracy,Seed\nA,0,1,2\n": "line 1: two columns are called 'seed'",
    f"{HEAD}A,0,fifty\n": "line 2: accuracy 'fifty' is no number",
    f"{HEAD}A,0,nan\n": "line 2: accuracy 'nan' is no number",
    f"{HEAD}A,zero,50\n": "line 2: seed 'zero' is no whole number",
    f"{HEAD}A,0.5,50\n": "line 2: seed '0.5' is no whole number",
    f"{HEAD}A,0,50\n,1,50\n": "line 3: no method",
    f"{HEAD}A,0\n": "line 2: no accuracy",
    f"{HEAD}A,0,74,3\n": "line 2: 4 cells, and the header has 3 columns",
    f"{HEAD}A,0,101\n": "line 2: an accuracy of 101% is not possible",
    f"{HEAD}A,0,-0.1\n": "line 2: an accuracy of -10% is not possible",
    f"{HEAD}A,0,50\n\nA,0,51\n": "line 4: A with seed 0 stands in a.csv, line 2 already",
    f'{HEAD}"A,0,50\n': "line 2: unexpected end of data",
    "method,seed,accuracy,lr\nA,0,50,1\nA,0,50,2\n": "to compare within each lr: --by lr",
    "method,seed,accuracy,dataset\nA,0,50,\n": "line 2: no dataset",
}


@pytest.mark.parametrize(("text", "reason"), BAD.items(), ids=BAD.values())
def test_a_bad_file_is_refused_with_the_line(file, text, reason):
    with pytest.raises(UsageError) as refusal:
        main([file(text)])
    assert reason in str(refusal.value) and "a.csv" in str(refusal.value) and "\n" not in str(refusal.value)


def test_bytes_that_are_no_text_are_refused(file):
    for content, line in ((HEAD.encode() + b"\xe4,0,50\n", 2), (HEAD.encode("utf-16"), 1)):
        with pytest.raises(UsageError, match=f"a.csv, line {line}: no UTF-8"):
            main([file(content)])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["a.csv", "--base", "a"], "no such method; choose from A"),
        (["a.csv", "--by", "epochs"], "line 2: no epochs"),
        (["a.csv", "--latex", "b.csv"], "must not be a .csv"),
        (["a.csv", "--latex", "-", "--json"], "choose one"),
        (["a.csv", "--results", "."], "leave it out"),
        (["a.csv", "b"], "b is not: its name does not end in .csv"),
        (["none.csv"], "none.csv cannot be read: No such file"),
        (["a", "b", "--base", "A"], "--base is for files of results"),
    ],
)
def test_what_does_not_go_together_is_refused(file, words, reason):
    file(HEAD + "A,0,50\n")
    with pytest.raises(UsageError) as refusal:
        main(words)
    assert reason in str(refusal.value)

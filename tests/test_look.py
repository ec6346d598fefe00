"""harness.look: the figures of a trained run and of variants, and what it says where there is none."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness import look, run
from harness.commands import run_command
from harness.data.load import load
from harness.evidence.figures.drawing import drawn, read_digest
from harness.looking import figures
from harness.looking.subject import of_run, of_variant
from harness.records.read import Run, read_run
from variants.weights import FILE

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = [make.__name__.replace("_", "-") for make in figures.FIGURES]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """On digits with a patch of 2, so that a map has 4 x 4 patches; shifted and mixed, so that there is something to
    see of it."""
    out = tmp_path_factory.mktemp("runs")
    words = ["--variant", "compact", "--dataset", "digits", "--recipe", "quick", "--epochs", "3", "--holdout", "0.1"]
    words += ["--set", "variant.patch=2", "variant.depth=2", "recipe.augment=crop", "recipe.mix=cutmix"]
    assert run.main([*words, "--device", "cpu", "--out", str(out), "--quiet"]) == 0
    (folder,) = out.iterdir()
    return read_run(folder)


def told(capsys: Any, *words: Any) -> Any:
    """What --json prints of the first model."""
    capsys.readouterr()
    assert look.main([*map(str, words), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    return found


def test_every_figure_of_a_run_is_written_and_shows_something(trained, tmp_path, capsys):
    found = told(capsys, trained.folder, "--out", tmp_path)
    assert list(found) == ALL and not [why for why in found.values() if isinstance(why, str)]
    folder = tmp_path / trained.folder.name
    assert found["distance"] == [str(folder / "distance.pdf"), str(folder / "distance.png")]
    assert {path.name for path in folder.iterdir()} == {f"{name}.{end}" for name in ALL for end in ("png", "pdf")}
    for name in ALL:
        pdf, png = folder / f"{name}.pdf", folder / f"{name}.png"
        assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 4000 and read_digest(png)
        with Image.open(png) as image:
            assert image.width > 700 and np.asarray(image.convert("L")).std() > 15, f"{name} is nearly empty"


def subject_of(trained: Run, *words: str) -> Any:
    return of_run(trained, look.parser().parse_args([str(trained.folder), *words]))


def test_what_the_figures_show(trained):
    """Numbers, not pixels: the images on the sheet are those that were judged, and mistakes are the record's."""
    subject, data = subject_of(trained), load("digits", Path("data"))
    judged, recorded = data.train.part(slice(144)), trained.predictions()
    assert np.array_equal(judged.labels, recorded["labels"])
    sheet = [one for row in figures.contact_sheet(subject).data["rows"] for one in row]
    for nth, one in enumerate(sheet):
        truth, said, sure = judged.labels[nth], recorded["predicted"][nth], recorded["confidence"][nth]
        assert one["text"] == f"{truth}\n→ {said}, {100 * sure:.0f} %"
        assert (one["color"] == figures.VERMILION) == (truth != said)
        assert np.array_equal(pixels(one), judged.images[nth])
    assert len(sheet) == 30

    plan = figures.mistakes(subject).data
    shown = [one for row in plan["rows"] for one in row]
    wrong = recorded["predicted"] != recorded["labels"]
    assert f"its {wrong.sum()} mistakes on 144 images" in plan["caption"] and len(shown) == min(18, wrong.sum())
    first = np.flatnonzero(wrong)[recorded["confidence"][wrong].argmax()]
    assert np.array_equal(pixels(shown[0]), judged.images[first])
    assert shown[0]["text"].startswith(f"{recorded['labels'][first]}\n→ {recorded['predicted'][first]}, ")

    rows = figures.augmented(subject).data["rows"]
    assert [len(row) for row in rows] == [9] * 4 and np.array_equal(pixels(rows[0][0]), data.train.images[144])
    assert len({one["base64"] for row in rows for one in row}) > 20, "views of an image are all alike"

    (row, *_), heads = figures.attention(subject).data["rows"], figures.attention(subject).data["heads"]
    assert heads == ["image", "block 1", "block 2"]
    np.testing.assert_allclose(row[2]["map"], subject.attention[1][0].mean((0, 1)).view(4, 4), rtol=1e-5)
    assert "mean over all patches" in figures.attention(subject).data["caption"]
    assert "sequence pooling" in figures.rollout(subject).data["caption"]
    assert np.array(figures.pooling(subject).data["rows"][0][1]["map"]).sum() == pytest.approx(1)


def pixels(one: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(figures.base64.b64decode(one["base64"]), np.uint8).reshape(one["shape"])


def test_a_chosen_block_or_head(trained):
    subject = subject_of(trained, "--block", "2")
    plan = figures.attention(subject)
    assert plan.name == "attention-block2" and plan.data["heads"] == ["image", *(f"head {n}" for n in range(1, 5))]
    expected = subject.attention[1][0, 2].mean(0).view(4, 4)  # of the first image, head 3
    np.testing.assert_allclose(plan.data["rows"][0][3]["map"], expected, rtol=1e-5)
    both = figures.attention(subject_of(trained, "--block", "2", "--head", "3"))
    assert both.name == "attention-block2-head3" and both.data["heads"] == ["image", "head 3"] * 3
    np.testing.assert_allclose(both.data["rows"][0][1]["map"], expected, rtol=1e-5)
    heads = figures.attention(subject_of(trained, "--head", "3"))
    assert heads.data["heads"] == ["image", "block 1", "block 2"] and "head 3" in heads.data["caption"]
    np.testing.assert_allclose(heads.data["rows"][0][2]["map"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("--block 3", "the blocks 1 to 2"),
        ("--head 5", "the heads 1 to 4"),
        ("--images nosuch.png", "nosuch.png"),
        ("--dataset digits", "are for variants"),
        ("--set recipe.lr=1", "without a recipe"),
    ],
)
def test_what_a_run_has_not(trained, words, answer, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        run_command(look.main, [str(trained.folder), *words.split(), "--out", str(tmp_path / "out")])
    assert left.value.code == 2 and answer in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_run_without_weights_is_a_sentence(trained, tmp_path, capsys):
    folder = shutil.copytree(trained.folder, tmp_path / trained.folder.name)
    (folder / FILE).unlink()
    with pytest.raises(SystemExit) as left:
        run_command(look.main, [str(folder), "--out", str(tmp_path / "out")])
    assert (
        left.value.code == 2
        and "no weights: it is no finished run, or one with --no-weights" in capsys.readouterr().err
    )


def test_a_wrong_name_names_runs_and_variants(trained, capsys):
    for name, answer in ((trained.folder.name[:-1], trained.folder.name), ("compct", "compact")):
        with pytest.raises(SystemExit) as left:
            run_command(look.main, [name, "--results", str(trained.folder.parent)])
        assert left.value.code == 2 and f"did you mean {answer}" in capsys.readouterr().err


def test_images_of_ones_own(trained, tmp_path, capsys):
    """Any size, on their side or with another number of channels. What is about the run's own images is left out."""
    upright = Image.new("L", (40, 20))
    upright.paste(255, (0, 0, 20, 20))  # white on the left
    exif = upright.getexif()
    exif[0x0112] = 6  # to be turned right by a quarter: white on top
    upright.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (9, 30), "red").save(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("no image")
    subject = subject_of(trained, "--images", str(tmp_path))
    assert subject.images.shape == (2, 8, 8, 3) and subject.texts == ("b.png", "turned.jpg")
    assert subject.images[1, :3].mean() > 200 and subject.images[1, 5:].mean() < 60
    found = told(capsys, trained.folder, "--images", tmp_path, "--out", tmp_path / "out")
    left_out = {name for name, why in found.items() if isinstance(why, str)}
    assert left_out == {"augmented", "mistakes"} and "others were given" in found["mistakes"]
    sheet = figures.contact_sheet(subject).data["rows"][0]
    assert sheet[0]["text"].startswith("b.png\n→ ") and sheet[0]["color"] == figures.BLACK


def test_resnet18_has_no_attention_and_its_other_figures(tmp_path, capsys):
    words = ["--dataset", "digits", "--out", str(tmp_path)]
    found = told(capsys, "resnet18", *words)
    assert all("not available for timm's resnet18" in found[name] for name in ("attention", "rollout", "distance"))
    assert "no embedding" in found["positions"] and "alone" in found["contact-sheet"]
    assert found["filters"][1] == str(tmp_path / "resnet18" / "filters.png") and Path(found["filters"][1]).exists()
    assert look.main(["timm:deit_tiny_distilled_patch16_224", "--set", "variant.patch=4", *words]) == 0
    printed = capsys.readouterr().out
    assert printed.count(".pdf .png") == 5 and "pooling: none: it has no pooling weights" in printed


def test_a_variant_s_title_says_what_was_set():
    words = ["compact", "--set", "variant.depth=1", "variant.pool=mean", "--dataset", "digits"]
    assert of_variant("compact", look.parser().parse_args(words)).title == "compact, depth=1, pool=mean, untrained"


def test_a_long_title_stays_on_the_page(trained, monkeypatch):
    """Above a confusion matrix, whose names of classes push it to the right."""
    changes = (
        "epochs=2",
        "augment=crop,flip",
        "attention_scale=learned",
        "depth=3",
        "mask_diagonal=true",
        "tokenizer=shifted",
    )
    monkeypatch.setattr(figures, "name_of", lambda config: ("compact", "common", changes))
    plan = figures.confusion(replace(subject_of(trained), classes=("a very long name of a class",) * 10))
    with Image.open(io.BytesIO(drawn(plan, {})[1])) as image:
        assert np.asarray(image.convert("L"))[:, -1].min() == 255

"""harness.predict: images of any size and mode become what the model sees, and files that are no image are named."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from harness import predict
from harness.commands import run_command
from harness.data.folder import any_image
from harness.data.load import load
from tests.copies import image_folder
from variants.catalog import config_of
from variants.fields import UsageError
from variants.weights import Card, to_bytes

SIDE = 8
CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Of a model of the catalogue that tells the mean of one channel from another's, whatever lies where."""
    config = config_of("compact", SIDE, 3)
    model: Any = config.module()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for channel in range(3):
            model.tokenizer.conv.weight[channel, channel] = 1 / config.patch**2
            model.head.weight[channel, channel] = 5.0
    card = Card("compact", "vit", vars(config), "colours", CLASSES, (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    path.write_bytes(to_bytes(model.state_dict(), card))
    return path


def run(capsys, *words: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        run_command(predict.main, [*map(str, words), "--device", "cpu"])
    return (left.value.code, *capsys.readouterr())  # type: ignore[return-value]


def expected(pixel: tuple[int, int, int]) -> np.ndarray:
    logits = 5 * (np.array(pixel) / 255 - (0.1, 0.2, 0.3)) / (0.5, 0.25, 0.125)
    return np.exp(logits) / np.exp(logits).sum()


def told(line: str) -> dict[str, float]:
    return {one["class"]: one["probability"] for one in json.loads(line)["top"]}


def test_pixels_are_scaled_as_the_file_says(weights, tmp_path, capsys):
    colours = [(200, 100, 30), (0, 0, 0), (17, 220, 250)]
    for number, colour in enumerate(colours):
        Image.new("RGB", (SIDE, SIDE), colour).save(tmp_path / f"{number}.png")
    code, out, err = run(capsys, weights, tmp_path, "--json")
    assert (code, err) == (0, "")
    for line, colour in zip(out.splitlines(), colours, strict=True):
        found = told(line)
        np.testing.assert_allclose([found[name] for name in CLASSES], expected(colour), atol=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)


# --- what an image becomes -------------------------------------------------------------------------------------------


def half(mode: str, left: Any, right: Any) -> Image.Image:
    """16 x 16, its left half of one colour and its right half of another."""
    image = Image.new(mode, (16, 16), right)
    ImageDraw.Draw(image).rectangle((0, 0, 7, 15), fill=left) if mode not in ("I;16",) else None
    return image


def palette(transparent: bool) -> Image.Image:
    image = half("RGB", (255, 0, 0), (0, 0, 255)).quantize(2)
    if transparent:
        image.info["transparency"] = image.getpixel((15, 0))
    return image


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.repeat(np.where(np.arange(16) < 8, 60_000, 257 * 3), 16).reshape(16, 16).T.astype("u2"))


MODES = {  # file -> (image, what its left and right half look like)
    "grey.png": (half("L", 90, 200), (90,) * 3, (200,) * 3),
    "two.png": (half("1", 0, 1), (0,) * 3, (255,) * 3),
    "grey-alpha.png": (half("LA", (90, 255), (200, 0)), (90,) * 3, (255,) * 3),
    "rgb.png": (half("RGB", (1, 2, 3), (250, 5, 0)), (1, 2, 3), (250, 5, 0)),
    "rgba.png": (half("RGBA", (10, 20, 30, 255), (0, 0, 0, 51)), (10, 20, 30), (204,) * 3),
    "palette.png": (palette(False), (255, 0, 0), (0, 0, 255)),
    "palette-transparent.png": (palette(True), (255, 0, 0), (255,) * 3),
    "palette.gif": (palette(False), (255, 0, 0), (0, 0, 255)),
    "16-bit.png": (sixteen_bits(), (233,) * 3, (3,) * 3),
    "16-bit.tiff": (sixteen_bits(), (233,) * 3, (3,) * 3),
    "cmyk.tiff": (half("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), (255, 0, 0), (0, 0, 0)),
    "cmyk.jpg": (half("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), (255, 0, 0), (0, 0, 0)),
}


@pytest.mark.parametrize("name", MODES)
def test_any_mode_becomes_rgb_over_white(name, tmp_path):
    image, left, right = MODES[name]
    image.save(tmp_path / name)
    found = any_image(tmp_path / name, 16)
    assert found.shape == (16, 16, 3) and found.dtype == np.uint8
    for column, colour in ((3, left), (12, right)):
        assert np.abs(found[8, column].astype(int) - colour).max() <= (8 if name.endswith("jpg") else 1)


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    half("RGB", "red", "blue").save(tmp_path / "turned.jpg", exif=exif)
    found = any_image(tmp_path / "turned.jpg", 16).astype(int)
    assert (found[3, :, 0] > 200).all() and (found[12, :, 2] > 200).all(), "red was left and is above"


def test_size_is_brought_to_the_model_s_as_data_sets_are(tmp_path):
    """The same pixels as those of a data set read with a size; of any size the centre square."""
    image_folder(tmp_path / "seen", size=20)
    data = load(f"folder:{tmp_path / 'seen'}@12", tmp_path)
    images = {data.test.images[i].tobytes() for i in range(len(data.test))}
    assert images == {any_image(path, 12).tobytes() for path in (tmp_path / "seen" / "test").rglob("*.png")}
    wide = Image.new("RGB", (90, 30), "white")
    wide.paste("black", (20, 0, 70, 30))
    wide.save(tmp_path / "wide.png")
    assert not any_image(tmp_path / "wide.png", 8).any()
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    assert (any_image(tmp_path / "dot.png", 8) == (255, 0, 0)).all()


def test_what_cannot_be_meant_is_refused(tmp_path):
    Image.new("F", (4, 4), 0.5).save(tmp_path / "fractions.tiff")
    with pytest.raises(UsageError, match="fractions for pixels"):
        any_image(tmp_path / "fractions.tiff", 8)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path) -> Path:
    for name, colour in {"a": "red", "sub/b": "lime", "sub/deep/c": "blue"}.items():
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image, and not named")
    return tmp_path / "photos"


def test_folders_are_searched_and_a_table_names_the_likeliest_first(weights, photos, capsys):
    code, out, err = run(capsys, weights, photos, photos / "a.png", "--top", 2)
    lines = [line.split() for line in out.splitlines()]
    assert (code, err, len(lines)) == (0, "", 3), "each once"
    names = [str(photos / name) for name in ("a.png", "sub/b.png", "sub/deep/c.png")]
    assert [(line[0], line[2]) for line in lines] == list(zip(names, CLASSES))
    assert all(len(line) == 5 and line[1].endswith("%") for line in lines)


def test_csv_has_a_line_for_each_image_and_rank(weights, photos, capsys):
    code, out, _ = run(capsys, weights, photos, "--csv", "--top", 99)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [row["rank"] for row in rows] == ["1", "2", "3"] * 3
    assert [row["class"] for row in rows if row["rank"] == "1"] == list(CLASSES)
    assert sum(float(row["probability"]) for row in rows[:3]) == pytest.approx(1)


def test_batches_change_nothing(weights, photos, monkeypatch, capsys):
    _, whole, _ = run(capsys, weights, photos, "--json")
    monkeypatch.setattr(predict, "BATCH", 2)
    _, parts, _ = run(capsys, weights, photos, "--json")
    assert [json.loads(line)["image"] for line in parts.splitlines()] == [
        json.loads(line)["image"] for line in whole.splitlines()
    ]
    for one, other in zip(whole.splitlines(), parts.splitlines()):
        assert told(one) == pytest.approx(told(other))


def test_a_broken_file_is_named_and_the_others_go_on(weights, photos, capsys):
    content = (photos / "a.png").read_bytes()
    (photos / "sub" / "broken.png").write_bytes(content[: len(content) // 2])
    code, out, err = run(capsys, weights, photos, photos / "notes.txt", photos / "absent.png")
    assert code == 1 and len(out.splitlines()) == 3
    assert [name in line for name, line in zip(("broken.png", "notes.txt", "absent.png"), err.splitlines())] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("run_name", "images", "words"),
    [
        ("RUN", "photos/notes.txt", "none of these is an image"),
        ("RUN", "empty", "no image in"),
        ("RUN", "absent.png", "absent.png"),
        ("absent", "photos", "no weights"),
        ("photos/a.png", "photos", "no whole safetensors file"),
    ],
)
def test_what_cannot_be_done_exits_2(weights, photos, run_name, images, words, monkeypatch, capsys):
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    code, out, err = run(capsys, weights if run_name == "RUN" else run_name, images)
    assert (code, out) == (2, "") and words in err and "Traceback" not in err


def test_a_run_id_is_enough(weights, photos, tmp_path, monkeypatch, capsys):
    (tmp_path / "results" / "runs" / "mine").mkdir(parents=True)
    shutil.copy(weights, tmp_path / "results" / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "mine", "photos")[:2] == run(capsys, "results/runs/mine", "photos")[:2]

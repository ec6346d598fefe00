"""Records: what goes in comes out; identity holds what can change a result and nothing else."""

import errno
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from harness.config import plan_id, resolve, run_config_from_plain
from harness.datasets import DATASETS
from harness.records.environment import environment, source_digest
from harness.records.lock import holder, owned
from harness.records.read import load_runs, read_run, run_state
from harness.records.schema import EPOCH_FIELDS, FILES, RESULT_FIELDS, SCHEMA, SINCE_2, SINCE_3
from harness.records.write import RunWriter, write_atomically
from tests.resealed import reseal
from variants.fields import UsageError

CONFIG = resolve("compact", DATASETS["c10"], "common")


OWN = (
    "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Own:\n"
    "    image_size: int = 32\n    num_classes: int = 10\n"
    "    def module(self): ...\nOWN = Own()\n"
)


def result(**changes):
    return dict.fromkeys(RESULT_FIELDS) | {"outcome": "ok", "split": "test", "test_accuracy": 0.5} | changes


def write(folder, config=CONFIG, **changes):
    writer = RunWriter(folder / config.run_id)
    writer.begin(config.to_plain(), {"device": "cpu"}, {"params": 1})
    for epoch, loss in ((1, 2.0), (2, 1.0)):
        writer.epoch(dict.fromkeys(EPOCH_FIELDS) | {"epoch": epoch, "train_loss": loss})
    predictions = {"labels": np.array([1, 2], np.uint16), "predicted": np.array([1, 0], np.uint16)}
    predictions |= {"confidence": np.array([0.5, 0.25], np.float32)}
    writer.finish(result(**changes), predictions)
    return writer.folder


def test_round_trip(tmp_path):
    folder = write(tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    run = read_run(folder)
    assert run.ok and run.result["test_accuracy"] == 0.5 and [e["train_loss"] for e in run.epochs()] == [2.0, 1.0]
    assert run.predictions()["confidence"].tolist() == [0.5, 0.25]
    assert run_config_from_plain(run.config) == CONFIG
    assert run_config_from_plain(run.config).run_id == CONFIG.run_id == folder.name


@pytest.mark.parametrize("line", ['{"epoch": 1', '{"epoch": 1}, {"epoch": 2}', '"epoch"', '{"epoch": NaN}'])
def test_a_line_that_is_no_epoch_is_refused(tmp_path, line):
    folder = write(tmp_path)
    (folder / "epochs.jsonl").write_text(f'{{"epoch": 1}}\n{line}\n')
    reseal(folder)
    with pytest.raises(ValueError, match=r"epochs\.jsonl, line 2"):
        read_run(folder).epochs()


@pytest.mark.parametrize("name", ["vanilla", "timm", "vit-224", "timm:resnet18"])
def test_a_run_can_be_repeated_from_its_config_alone(name):
    config = resolve(name, DATASETS["svhn"], "common", settings=["recipe.crop_scale=.5,1"], seed=3, label="mine")
    plain = json.loads(json.dumps(config.to_plain()))
    again = run_config_from_plain(plain)
    assert again == config and again.run_id == plain["run_id"] and again.plan_id == plan_id(plain)


def test_a_run_exists_when_its_result_does(tmp_path):
    folder = tmp_path / CONFIG.run_id
    assert run_state(folder) == "missing"
    writer = RunWriter(folder)
    writer.begin(CONFIG.to_plain(), {}, {})
    assert run_state(folder) == "unfinished" and load_runs([tmp_path]) == []
    writer.finish(result(outcome="failed", reason="why"))
    assert run_state(folder) == "failed"
    writer.begin(CONFIG.to_plain(), {}, {})
    assert run_state(folder) == "unfinished"
    writer.finish(result())
    assert run_state(folder) == "done"
    (folder / "cost.json").unlink()
    assert run_state(folder) == "failed", "what cannot be read must be trained again"


def test_incomplete_results_and_nan_are_refused(tmp_path):
    writer = RunWriter(tmp_path / "x")
    writer.begin(CONFIG.to_plain(), {}, {})
    with pytest.raises(ValueError, match="params"):
        writer.finish({k: v for k, v in result().items() if k != "params"})
    with pytest.raises(ValueError):
        writer.finish(result(test_nll=float("nan")))
    assert run_state(tmp_path / "x") == "unfinished"


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("harness.records.write.os.fsync", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    path, there = tmp_path / "file", []
    monkeypatch.setattr("harness.records.write.os.fsync", lambda handle: there.append(path.exists()))
    write_atomically(path, b"new")
    assert there == [False] and path.read_bytes() == b"new"


def test_unreadable_runs_are_named_and_do_not_stop_the_others(tmp_path, capsys):
    write(tmp_path)
    for name, text in {"broken": "{", "old": json.dumps({"schema": 99})}.items():
        folder = write(tmp_path / name).rename(tmp_path / f"{name}-run")
        (folder / "result.json").write_text(text)
    assert len(load_runs([tmp_path])) == 1
    errors = capsys.readouterr().err
    assert "broken-run" in errors and "old-run" in errors and "schema 99" in errors


IDENTICAL = [{"label": "other"}, {"variant_name": "renamed"}, {"recipe_name": "published"}, {"overrides": ("a",)}]
DIFFERENT = [{"seed": 1}, {"precision": "bf16"}, {"compile": True}, {"holdout": 0.1}, {"dataset": "c100"}]


@pytest.mark.parametrize("changes", IDENTICAL)
def test_labels_are_no_part_of_the_identity(changes):
    assert replace(CONFIG, **changes).run_id == CONFIG.run_id


@pytest.mark.parametrize("changes", DIFFERENT)
def test_what_can_change_a_result_is_part_of_the_identity(changes):
    assert replace(CONFIG, **changes).run_id != CONFIG.run_id


@pytest.mark.parametrize(
    "setting", ["recipe.lr=2e-3", "recipe.augment=flip", "variant.pool=mean", "variant.norm_eps=1e-6"]
)
def test_every_field_of_variant_and_recipe_is_part_of_the_identity(setting):
    assert resolve("compact", DATASETS["c10"], "common", settings=[setting]).run_id != CONFIG.run_id


def test_a_whole_number_for_a_float_is_the_same_experiment():
    ids = {resolve("compact", DATASETS["c10"], "common", settings=[f"recipe.clip={v}"]).run_id for v in ("1", "1.0")}
    ids.add(replace(CONFIG, recipe=replace(CONFIG.recipe, clip=1)).run_id)
    assert ids == {CONFIG.run_id}


def test_seeds_share_a_cell():
    other = replace(CONFIG, seed=1)
    assert other.cell_id == CONFIG.cell_id and other.run_id != CONFIG.run_id


def test_a_folder_s_place_is_no_part_of_the_identity():
    here, there = (replace(CONFIG, dataset=f"folder:{path}/birds") for path in ("/a", "/b/c"))
    assert here.run_id == there.run_id and "/" not in here.run_id


def test_a_person_s_own_class_is_identified_by_its_code(tmp_path):
    file = tmp_path / "own.py"
    ids = []
    for code in (OWN, OWN, OWN + "# changed\n"):
        file.write_text(code)
        ids.append(resolve(f"{file}:OWN", DATASETS["c10"]).run_id)
    assert ids[0] == ids[1] != ids[2]


def test_overrides_have_the_last_word_and_are_kept():
    config = resolve(
        "compact", DATASETS["svhn"], "s1", epochs=20, settings=["recipe.augment=crop,flip", "recipe.lr=.5"]
    )
    assert config.recipe.augment == ("crop", "flip") and config.recipe.lr == 0.5
    assert (config.recipe.epochs, config.recipe.warmup_epochs, config.recipe.schedule_epochs) == (20, 5, 200)
    assert config.overrides == ("epochs=20", "recipe.augment=crop,flip", "recipe.lr=.5")


def test_autoaugment_by_hand_is_the_data_set_s_policy():
    config = resolve("compact", DATASETS["svhn"], settings=["recipe.augment=crop,autoaugment"])
    assert config.recipe.augment == ("crop", "autoaugment-svhn")
    config = resolve("compact", DATASETS["c10"], settings=["recipe.augment=autoaugment-pil,crop"])
    assert config.recipe.augment == ("autoaugment-pil-cifar", "crop")


def test_two_own_files_of_one_name_stay_apart(tmp_path):
    ids = []
    for place, code in (("a", "x = 1"), ("b", "x = 2")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "own.py").write_text(OWN + code)
        ids.append(resolve(f"{tmp_path / place / 'own.py'}:OWN", DATASETS["c10"]))
    assert ids[0].run_id != ids[1].run_id


def test_the_recipe_s_rates_reach_the_variant():
    assert resolve("patch2", DATASETS["c10"], "published").variant.drop_path == 0.1
    assert resolve("vit-224", DATASETS["c10"], "published").variant.dropout == 0.1
    assert resolve("timm", DATASETS["c10"], "s0n").variant.head_dropout == 0.3


def test_a_rate_that_the_variant_does_not_have_is_refused(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(UsageError, match="head_dropout"):
        resolve(f"{tmp_path / 'own.py'}:OWN", DATASETS["c10"], "s0n")


def test_the_recipe_of_a_source_is_called_published():
    assert resolve("vanilla", DATASETS["c10"], "s1").recipe_name == "published"
    assert resolve("compact", DATASETS["c10"], "s1").recipe_name == "s1"


BAD = [
    ({"recipe_name": "comon"}, "common"),
    ({"settings": ["recipe.lrr=1"]}, "lr"),
    ({"settings": ["variant.pol=mean"]}, "pool"),
    ({"settings": ["recipe.lr=fast"]}, "float is needed"),
    ({"settings": ["recipe.lr"]}, "recipe.NAME=VALUE"),
    ({"settings": ["lr=1"]}, "recipe.NAME=VALUE"),
    ({"settings": ["recipe.lr=-1"]}, "above 0"),
    ({"settings": ["recipe.mix=cutmixx"]}, "cutmix"),
    ({"settings": ["recipe.augment=flip,cropp"]}, "crop"),
    ({"settings": ["recipe.mix_per_image=maybe"]}, "true or false"),
    ({"settings": ["variant.patch=5"]}, "does not divide"),
    ({"settings": ["variant.heads=5"]}, "does not divide"),
    ({"settings": ["recipe.lr=1", "recipe.lr=2"]}, "twice"),
    ({"settings": ["variant.num_classes=5"]}, "data set's"),
    ({"settings": ["variant.image_size=16"]}, "data set's"),
    ({"epochs": 0}, "at least 1"),
    ({"batch_size": 0}, "at least 1"),
    ({"seed": -1}, "seed"),
    ({"holdout": 1.0}, "below 1"),
    ({"precision": "fp8"}, "fp32"),
]


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_bad_requests_name_the_reason(changes, words):
    with pytest.raises(UsageError, match=words):
        resolve("compact", DATASETS["c10"], **changes)


def test_environment_ties_a_run_to_code_and_machine():
    env = environment({"device": "cpu"}, "abc")
    assert env["data_digest"] == "abc" and len(env["source_digest"]) == 64 and env["torch"] and env["python"]


def test_source_digest_follows_the_code(tmp_path):
    for part in ("variants", "harness"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.py").write_text("x = 1\n")
    first = source_digest(tmp_path)
    (tmp_path / "other.py").write_text("y = 2\n")
    assert source_digest(tmp_path) == first
    (tmp_path / "harness" / "a.py").write_text("x = 2\n")
    assert source_digest(tmp_path) != first


def test_planning_and_reading_need_no_torch():
    modules = "harness.studies, harness.config, harness.records.read, harness.records.environment"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_fields_that_came_later_leave_older_identities_alone():
    plain = CONFIG.to_plain()
    assert plain["recipe"].pop("train_share") == 1.0
    assert run_config_from_plain(plain).run_id == CONFIG.run_id and plan_id(plain) == CONFIG.plan_id
    tenth = replace(CONFIG, recipe=replace(CONFIG.recipe, train_share=0.1))
    assert tenth.run_id != CONFIG.run_id and tenth.plan_id != CONFIG.plan_id
    assert replace(CONFIG, precision="bf16").plan_id == CONFIG.plan_id


def test_a_run_is_running_while_its_lock_is_held(tmp_path):
    folder = tmp_path / "a"
    with owned(folder):
        assert run_state(folder) == "missing", "nothing is written yet"
        RunWriter(folder).begin(CONFIG.to_plain(), {}, {})
        assert run_state(folder) == "running"
    assert run_state(folder) == "unfinished"


def test_where_the_system_refuses_to_lock_the_run_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    def refused(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("harness.records.lock.fcntl.flock", refused)
    with owned(tmp_path) as lock:
        assert holder(tmp_path) is None
        lock.check()
    assert "no locks here (No locks available)" in capsys.readouterr().err


def test_a_record_of_schema_1_is_read_with_nulls_and_one_to_come_is_refused(tmp_path, capsys):
    for name, schema in {"old": 1, "new": SCHEMA + 1}.items():
        folder = tmp_path / name
        writer = RunWriter(folder)
        writer.begin(CONFIG.to_plain(), {}, {})
        writer.finish(result())
        plain = json.loads((folder / "result.json").read_text())
        plain = {key: value for key, value in plain.items() if key not in (*SINCE_2, *SINCE_3)} | {"schema": schema}
        (folder / "result.json").write_text(json.dumps(plain))
        (folder / "config.json").write_text(json.dumps(CONFIG.to_plain() | {"schema": schema}))
    (old,) = load_runs([tmp_path])
    assert old.folder.name == "old" and not old.sealed
    assert [old.result[name] for name in (*SINCE_2, *SINCE_3)] == [None] * len(SINCE_2 + SINCE_3)
    assert set(RESULT_FIELDS) <= old.result.keys()
    errors = capsys.readouterr().err
    assert f"new: result.json has schema {SCHEMA + 1}, this version reads 1 to {SCHEMA}" in errors

"""Records: what goes in comes out; identity holds what can change a result and nothing else; what is damaged is set
aside before a run is trained in its place."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness import sweep
from harness.config import RunConfig, plan_id, resolve, run_config_from_plain
from harness.datasets import DATASETS
from harness.records import write as writing
from harness.records.environment import source_digest
from harness.records.lock import BusyError, holder, owned
from harness.records.read import done_run, finished_under, load_runs, read_run, run_state
from harness.records.schema import EPOCH_FIELDS, FILES, RESULT_FIELDS, SCHEMA, SINCE_2, SINCE_3
from harness.records.write import RunWriter, set_aside, write_atomically
from tests.resealed import reseal
from variants.fields import UsageError

CONFIG = resolve("compact", DATASETS["c10"], "common")
SMALL = resolve("compact", DATASETS["digits"], "quick", epochs=1)


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
    found = read_run(folder)
    assert found.ok and found.result["test_accuracy"] == 0.5 and [e["train_loss"] for e in found.epochs()] == [2.0, 1.0]
    assert found.predictions()["confidence"].tolist() == [0.5, 0.25]
    assert run_config_from_plain(found.config) == CONFIG
    assert run_config_from_plain(found.config).run_id == CONFIG.run_id == folder.name


@pytest.mark.parametrize("line", ['{"epoch": 1', '{"epoch": 1}, {"epoch": 2}', '"epoch"', '{"epoch": NaN}'])
def test_a_line_that_is_no_epoch_is_refused(tmp_path, line):
    folder = write(tmp_path)
    (folder / "epochs.jsonl").write_text(f'{{"epoch": 1}}\n{line}\n')
    reseal(folder)
    with pytest.raises(ValueError, match=r"epochs\.jsonl, line 2"):
        read_run(folder).epochs()


def test_a_run_exists_when_its_result_does(tmp_path):
    folder = tmp_path / CONFIG.run_id
    with owned(folder):
        assert run_state(folder) == "missing"
        writer = RunWriter(folder)
        writer.begin(CONFIG.to_plain(), {}, {})
        assert run_state(folder) == "running"
    assert run_state(folder) == "unfinished" and load_runs([tmp_path]) == []
    with pytest.raises(ValueError, match="params"):
        writer.finish({k: v for k, v in result().items() if k != "params"})
    with pytest.raises(ValueError):
        writer.finish(result(test_nll=float("nan")))
    assert run_state(folder) == "unfinished"
    writer.finish(result(outcome="failed", reason="why"))
    assert run_state(folder) == "failed"
    writer.begin(CONFIG.to_plain(), {}, {})
    assert run_state(folder) == "unfinished"
    writer.finish(result())
    assert run_state(folder) == "done"
    (folder / "cost.json").unlink()
    assert run_state(folder) == "failed", "what cannot be read must be trained again"


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("harness.records.write.os.fsync", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


# --- identity and what a request becomes -----------------------------------------------------------------------------


def test_a_folder_s_place_is_no_part_of_the_identity():
    here, there = (replace(CONFIG, dataset=f"folder:{path}/birds") for path in ("/a", "/b/c"))
    assert here.run_id == there.run_id and "/" not in here.run_id


def test_a_person_s_own_class_is_identified_by_its_code(tmp_path):
    file, ids = tmp_path / "own.py", []
    for code in (OWN, OWN, OWN + "# changed\n"):
        file.write_text(code)
        ids.append(resolve(f"{file}:OWN", DATASETS["c10"]).run_id)
    assert ids[0] == ids[1] != ids[2]
    with pytest.raises(UsageError, match="head_dropout"):  # a rate of the recipe that it has no field for
        resolve(f"{file}:OWN", DATASETS["c10"], "s0n")


def resolved(*settings, dataset="c10", recipe="common", **changes):
    return resolve("compact", DATASETS[dataset], recipe, settings=list(settings), **changes)


def test_overrides_have_the_last_word_and_are_kept():
    config = resolved("recipe.augment=crop,flip", "recipe.lr=.5", dataset="svhn", recipe="s1", epochs=20)
    assert config.recipe.augment == ("crop", "flip") and config.recipe.lr == 0.5
    assert (config.recipe.epochs, config.recipe.warmup_epochs, config.recipe.schedule_epochs) == (20, 5, 200)
    assert config.overrides == ("epochs=20", "recipe.augment=crop,flip", "recipe.lr=.5")
    # autoaugment by hand is the data set's policy
    assert resolved("recipe.augment=autoaugment", dataset="svhn").recipe.augment == ("autoaugment-svhn",)
    assert resolved("recipe.augment=autoaugment-pil").recipe.augment == ("autoaugment-pil-cifar",)


def test_the_data_set_s_own_size_may_be_set_and_no_other():
    assert resolved("variant.image_size=32", "variant.num_classes=10").run_id == resolved().run_id
    for setting in ("variant.image_size=16", "variant.num_classes=9"):
        with pytest.raises(UsageError, match="image_size=32 and num_classes=10 are the data set's"):
            resolved(setting)


def test_what_a_variant_takes_from_its_recipe_and_a_recipe_from_its_source():
    assert resolve("patch2", DATASETS["c10"], "published").variant.drop_path == 0.1
    assert resolve("vit-224", DATASETS["c10"], "published").variant.dropout == 0.1
    assert resolve("timm", DATASETS["c10"], "s0n").variant.head_dropout == 0.3
    names = [resolve(variant, DATASETS["c10"], "s1").recipe_name for variant in ("vanilla", "compact")]
    assert names == ["published", "s1"], "the recipe of a source is called published"


def test_source_digest_follows_the_code(tmp_path):
    path, digests = tmp_path / "harness" / "a.py", []
    path.parent.mkdir()
    for where, text in ((path, "x = 1"), (tmp_path / "other.py", "y = 2"), (path, "x = 2")):
        where.write_text(text)
        digests.append(source_digest(tmp_path))
    assert digests[0] == digests[1] != digests[2]


def test_fields_that_came_later_leave_older_identities_alone():
    plain = CONFIG.to_plain()
    assert plain["recipe"].pop("train_share") == 1.0
    assert run_config_from_plain(plain).run_id == CONFIG.run_id and plan_id(plain) == CONFIG.plan_id
    tenth = replace(CONFIG, recipe=replace(CONFIG.recipe, train_share=0.1))
    assert tenth.run_id != CONFIG.run_id and tenth.plan_id != CONFIG.plan_id
    assert replace(CONFIG, precision="bf16").plan_id == CONFIG.plan_id


# --- locks and disks --------------------------------------------------------------------------------------------------


def test_a_run_whose_lock_was_removed_stops_before_it_writes(tmp_path):
    with owned(tmp_path / "run") as lock:
        lock.check()
        lock.path.unlink()
        with owned(tmp_path / "run"), pytest.raises(UsageError, match="was removed while this run was being trained"):
            lock.check()


def test_a_folder_that_another_process_removes_is_made_again_and_a_file_in_its_place_is_said(tmp_path, monkeypatch):
    real, times = os.open, iter([FileNotFoundError(errno.ENOENT, "gone"), FileExistsError(errno.EEXIST, "there")])

    def opened(path, *rest):
        if str(path).endswith("lock") and (error := next(times, None)):
            raise error
        return real(path, *rest)

    monkeypatch.setattr("harness.records.lock.os.open", opened)
    with owned(tmp_path / "run") as lock:
        lock.check()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write into .*file"), owned(tmp_path / "file"):
        pass


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    """What cannot be read for now may be sound, and may be done."""
    folder = write(tmp_path, SMALL)
    before, found = files_in(folder), done_run(folder)
    assert found is not None and found.config == read_run(folder).config

    def silent(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", silent)
        for ask in (done_run, set_aside):
            with pytest.raises(OSError, match="Input/output"):
                ask(folder)
    assert files_in(folder) == before and run_state(folder) == "done"


def test_where_the_system_refuses_to_lock_the_run_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    def refused(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("harness.records.lock.fcntl.flock", refused)
    with owned(tmp_path):
        assert holder(tmp_path) is None
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


# --- records that are set aside: named, kept byte for byte, never counted ---------------------------------------------

SWEEP_WORDS = ["quick", "--variants", "compact", "--epochs", "1", "--device", "cpu"]


def cut(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def seeds(*numbers: int) -> list[RunConfig]:
    return [resolve("compact", DATASETS["digits"], "quick", epochs=1, seed=number) for number in numbers]


def test_a_sweep_trains_a_damaged_cell_anew_and_the_others_stay(tmp_path, capsys, one_thread):
    for config in seeds(0, 1, 2):
        write(tmp_path, config)
    damaged, *sound = (tmp_path / config.run_id for config in seeds(1, 0, 2))
    before, others = files_in(cut(damaged, "predictions.npz")), [files_in(folder) for folder in sound]
    words = [*SWEEP_WORDS, "--seeds", "3", "--out", str(tmp_path)]
    assert sweep.main([*words, "--status"]) == 0
    assert "seed 1: its record cannot be used: predictions.npz is not what the run wrote" in capsys.readouterr().out
    assert files_in(damaged) == before, "looking moves nothing"
    assert sweep.main([*words, "--jobs", "1"]) == 0
    printed = capsys.readouterr()
    place = tmp_path / f"unreadable-{damaged.name}"
    assert "3 runs, 2 done, 1 to train" in printed.out
    assert f"{damaged}: predictions.npz is not what the run wrote; set aside as {place.name}" in printed.err
    assert files_in(place) == before and [files_in(folder) for folder in sound] == others
    assert sorted(one.config["seed"] for one in load_runs([tmp_path])) == [0, 1, 2] and run_state(damaged) == "done"
    assert sweep.main([*words, "--status"]) == 0
    printed = capsys.readouterr().out
    assert "all done" in printed and f"set aside, since what they hold is no record: {place.name}" in printed


def test_reading_names_a_damaged_record_and_moves_nothing(tmp_path, capsys):
    for config in seeds(0, 1):
        write(tmp_path, config)
    damaged = cut(tmp_path / SMALL.run_id, "result.json")
    set_aside(cut(write(tmp_path, seeds(2)[0]), "config.json"))
    capsys.readouterr()
    there = sorted(tmp_path.rglob("*"))
    assert [one.config["seed"] for one in load_runs([tmp_path])] == [1]
    printed = capsys.readouterr().err
    assert f"skipped {damaged}: result.json is not what the run wrote" in printed
    assert f"left out {tmp_path / 'unreadable-'}" in printed and sorted(tmp_path.rglob("*")) == there


def test_what_is_done_makes_way_and_a_failed_an_unfinished_run_and_an_empty_folder_stay(tmp_path):
    done, failed = write(tmp_path, SMALL), write(tmp_path, seeds(1)[0], outcome="failed", reason="it fell")
    begun, empty = tmp_path / "begun", tmp_path / "empty"
    RunWriter(begun).begin(SMALL.to_plain(), {}, {})
    empty.mkdir()
    before = [files_in(folder) for folder in (done, failed, begun, empty)]
    places = [set_aside(folder) for folder in (done, failed, begun, empty)]
    assert places == [tmp_path / f"replaced-{done.name}", None, None, None]
    assert [files_in(place or folder) for place, folder in zip(places, (done, failed, begun, empty))] == before
    assert run_state(failed) == "failed" and run_state(done) == "missing"


def test_each_gets_a_place_of_its_own_and_what_belongs_to_no_record_stays(tmp_path):
    places = []
    for _ in range(3):
        folder = cut(write(tmp_path, SMALL), "env.json")
        (folder / "checkpoint-000001-00000001.pt").write_bytes(b"state")
        places.append(set_aside(folder))
        assert files_in(folder) == {"checkpoint-000001-00000001.pt": b"state"}
    name = f"unreadable-{SMALL.run_id}"
    assert [place and place.name for place in places] == [name, f"{name}-2", f"{name}-3"]
    assert all(place and set(files_in(place)) == set(FILES) for place in places)


@pytest.mark.parametrize("moment", range(1, len(FILES) + 1))
def test_ended_in_between_nothing_is_lost_and_nothing_is_counted(tmp_path, monkeypatch, moment):
    folder = cut(write(tmp_path, SMALL), "epochs.jsonl")
    before, moves, replace = files_in(folder), iter(range(1, 100)), os.replace

    def ending(old: Path, new: Path) -> None:
        if next(moves) == moment:
            raise KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "replace", ending)
        with pytest.raises(KeyboardInterrupt):
            set_aside(folder)
    assert run_state(folder) == "failed", "what is left is never taken for a run to be gone on with, nor for a record"
    set_aside(folder)
    assert files_in(folder) == {} and finished_under(tmp_path) == []
    found = {name: content for place in tmp_path.glob("unreadable-*") for name, content in files_in(place).items()}
    assert found == before


def test_nobody_sets_aside_what_another_process_is_at(tmp_path):
    """The record is damaged when this process looks; the other, which has the lock, is about to mend it."""
    from harness.experiment import run_cell
    from harness.training.device import choose

    folder = cut(write(tmp_path, SMALL), "result.json")
    before = files_in(folder)
    with owned(folder):
        with pytest.raises(BusyError):
            run_cell(SMALL, Path("data"), tmp_path, choose("cpu"), quiet=True)
        assert {name: content for name, content in files_in(folder).items() if name != "lock"} == before
        write(tmp_path, SMALL)
    healed = files_in(folder)
    assert run_cell(SMALL, Path("data"), tmp_path, choose("cpu"), quiet=True).ok
    assert files_in(folder) == healed and list(tmp_path.glob("unreadable-*")) == []


@pytest.mark.parametrize("named", [{"schema": 2}, {"schema": 2, "files": None}])
def test_a_seal_that_was_taken_off_is_missed(tmp_path, named):
    """Calling a record older than it is does not make its digests unnecessary."""
    folder = write(tmp_path, SMALL)
    plain = json.loads((folder / "result.json").read_bytes()) | named
    for lacking in ({"digest"}, {"digest", "files"}):
        (folder / "result.json").write_text(json.dumps({k: v for k, v in plain.items() if k not in lacking}))
        with pytest.raises(ValueError, match=r"is not what the run wrote|config.json has schema 3, result.json 2"):
            read_run(folder)

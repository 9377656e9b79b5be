"""The spec's promises: one object from file, dict and overrides; all faults in one report; settling; round trips."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.paths import SOURCE
from unalike import progress
from unalike.errors import SpecError
from unalike.sanitize import one_line
from unalike.spec import ACTIONS, Experiment, load_spec, schema_for, settle, template_for
from unalike.spec.actions import STANDALONE_ACTIONS
from unalike.spec.faults import suggestion
from unalike.spec.fields import declared_fields, expectation, top_level
from unalike.spec.overrides import apply_overrides
from unalike.spec.reading import format_value, parse_yaml, plain
from unalike.spec.shorthand import BY_ACTION, SHORTHAND, long_name

SKILL = SOURCE / "unalike" / "skill"


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(*args, **kwargs)
    return str(caught.value)


def write(folder: Path, text: str, name: str = "spec.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_file_dict_and_overrides_give_one_thing(tmp_path: Path) -> None:
    file = write(tmp_path, "train:\n  num_epochs: 3\n  optim:\n    trunk: {base_lr: 1e-4}\n")
    from_file = load_spec("train", file)
    from_dict = load_spec("train", {"train": {"num_epochs": 3, "optim": {"trunk": {"base_lr": 1e-4}}}})
    text = ["train.num_epochs=3", "train.optim.trunk.base_lr=1e-4", "train.recipe=tao"]
    nested = {"train": {"num_epochs": 3, "recipe": "tao"}, "train.optim.trunk": {"base_lr": 1e-4}}
    assert from_file.to_dict() == from_dict.to_dict()
    assert from_file.to_dict() == load_spec("train", None, text).to_dict() == load_spec("train", None, nested).to_dict()
    assert from_file.train.optim.trunk.base_lr == 1e-4


def test_spec_files_and_dicts_are_never_changed(tmp_path: Path) -> None:
    text = "train: {num_epochs: 3}  # mine\n"
    file, given_dict = write(tmp_path, text), {"train": {"num_epochs": 3}, "model": None}
    load_spec("train", file, ["train.num_epochs=4"], data="photos")
    load_spec("train", given_dict, ["train.num_epochs=4"], data="photos")
    assert file.read_text() == text
    assert given_dict == {"train": {"num_epochs": 3}, "model": None}


def test_all_faults_stand_in_one_report() -> None:
    spec = {"trian": 1, "train": {"batch_size": "x", "optim": {"name": "Adm", "steps": [3, 2]}}, "dataset": {"prob": 2}}
    message = refused("train", spec, ["nonsense", "model.feat_dim=1"])
    assert message.splitlines()[0] == "7 faults"
    for part in ("trian: unknown key; did you mean 'train'?", "train.batch_size: found 'x', expected a whole number",
                 "train.optim.name: found 'Adm'", "did you mean 'Adam'", "train.optim.steps: found [3, 2]",
                 "dataset.prob: found 2, expected a number >= 0 and <= 1", "nonsense", "model.feat_dim: found 1"):  # fmt: skip
        assert part in message


def test_one_fault_is_one_line(tmp_path: Path) -> None:
    file = write(tmp_path, "train: {num_epoch: 3}\n")
    assert (
        refused("train", file) == f"{file}: train.num_epoch: unknown key; did you mean 'num_epochs' or 'head_epochs'?"
    )


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ({"num_epochs": 3, "train": {"num_epochs": 4}}, "given twice, as num_epochs"),
        ({"train.num_epochs": 3}, "dotted key"),
        ({"base_lr": 3}, "train.optim.embedder.base_lr"),
        ({3: 4}, "found a key 3"),
        ({"train": {None: 4}}, "train: found a key null"),
        ({"train": 3}, "train: found 3, expected a section"),
        ({"train": {"num_epochs": None}}, "found null, expected a whole number"),
        ({"train": {"num_epochs": True}}, "found true, expected a whole number"),
        ({"model": {"backbone": False}}, "found false, expected text, not empty; YAML reads no, off and false as false: put a name in quotes"),
        ({"dataset": {"train_dataset": 7}}, "YAML reads it as a number: put a name in quotes"),
        ({"dataset": {"cache": {"mode": True}}}, "YAML reads yes, on and true as true: put a name in quotes"),
        ({"train": {"num_epochs": "3"}}, "without quotes"),
        ({"train": {"num_epochs": 3.5}}, "found 3.5"),
        ({"train": {"clip_grad_norm": float("nan")}}, "found .nan"),
        ({"train": {"clip_grad_norm": float("inf")}}, "found .inf"),
        ({"train": {"smooth_loss": 1}}, "found 1, expected true or false"),
        ({"model": {"backbone": ""}}, "model.backbone: found '', expected text, not empty"),
        ({"dataset": {"prob": -0.1}}, "expected a number >= 0 and <= 1"),
        ({"train": {"optim": {"trunk": {"base_lr": 0}}}}, "expected a number > 0"),
        ({"train": {"gpu_ids": [0, "a"]}}, "found 'a' at index 1, expected a list of whole numbers"),
        ({"train": {"num_epochs": 10**5000, "batch_size": 10**5000}}, "train.batch_size: found a"),
        ({"dataset": {"pixel_std": [0, 1, 1]}}, "expected a list of numbers > 0"),
    ],
)  # fmt: skip
def test_messages(spec: dict[Any, Any], part: str) -> None:
    assert part in refused("train", spec)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"), ("# nothing\n", "is empty"), ("[1, 2]", "holds a list"), ("just words", "holds a text"),
        ("a: [1", "not valid YAML"), ("train: {num_epochs: 1}\ntrain: {num_epochs: 2}", "'train' is repeated"),
        ("train:\n  seed: 1\n  seed: 2", "'seed' is repeated in line 3"), ("? [a, b]\n: 1", "a key is a list"),
        ("a: !!python/object:os.system {}", "not valid YAML"), ("a: !!bool maybe", "not valid YAML"),
        ("a: !!timestamp x", "YAML"), ("a: &x [*x]", "YAML"), ("a: \x00", "not valid YAML"), ("--- a\n--- b", "YAML"),
        ("a: " + "[" * 3000, "YAML"), ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        (("a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*d,*d,*d,*d,*d,*d,*d,*d,*d]"), "unfolds to more than"),
    ],
)  # fmt: skip
def test_bad_files_are_said_clearly(tmp_path: Path, text: str, part: str) -> None:
    message = refused("train", write(tmp_path, text))
    assert part in message
    assert "spec.yaml" in message or "spec is nested" in message


def test_missing_files_folders_and_bytes(tmp_path: Path) -> None:
    write(tmp_path, "a: 1", "other.yaml")
    assert "files beside it: other.yaml" in refused("train", tmp_path / "spec.yaml")
    assert "there is no folder" in refused("train", tmp_path / "no" / "spec.yaml")
    assert "is a folder" in refused("train", str(tmp_path))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "is not text" in refused("train", tmp_path / "bytes.yaml")
    assert "no spec file" in refused("train", "a\x00b")
    assert "the spec is a int" in refused("train", 3)
    assert "no action 'trian'; expected one of train, evaluate" in refused("trian")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E5", 1e5), ("-2e+3", -2000.0), (".5e1", 5.0), ("1.5e-3", 1.5e-3), ("1e", "1e"), ("e1", "e1"),
     ("2026-01-01", "2026-01-01"), ("12", 12), ("'1e-4'", "1e-4"), ("null", None), ("", None), ("{a: 1}", {"a": 1})],
)  # fmt: skip
def test_yaml_values(text: str, value: object) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


def test_yaml_merge_keys(tmp_path: Path) -> None:
    anchors = "train:\n  optim:\n    trunk: &g {base_lr: 1e-3, momentum: 0.5}\n    embedder:\n      <<: *g\n      momentum: 0.8\n"
    optim = load_spec("train", write(tmp_path, anchors)).train.optim
    assert (optim.embedder.base_lr, optim.embedder.momentum) == (1e-3, 0.8)


# Texts of at most a megabyte that took minutes, gigabytes or an exception of PyYAML's own.
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)
ALIASES = "a0: &a0 [1, 2]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
BOMBS = {
    "merge keys": MERGES, "aliases": ALIASES, "contains itself": "a: &a {<<: *a}", "contains itself in a list": "&a [*a]",
    "base 60, by its tag": "a: !!int 1" + ":1" * 400_000, "float of base 60": "a: !!float 1" + ":1" * 300_000 + ".0",
    "digits": "a: " + "1" * 1_000_000, "hexadecimal": "a: 0x" + "f" * 1_000_000, "depth": "[" * 100_000,
    "keys": "? " * 300_000, "megabytes": "a: b\n" * 250_000, "many values": "a: [" + "1," * 110_000 + "]",
    "a tag that does not fit": "a: !!int x", "merge of a text": "a: {<<: b}", "no such tag": "!" * 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_bombs_are_refused_in_bounded_time(name: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"^.{1,400}$"):
        parse_yaml(BOMBS[name])
    assert time.process_time() - start < 10


def test_many_unknown_keys_are_refused_in_bounded_time_and_length() -> None:
    start = time.process_time()
    with pytest.raises(SpecError) as caught:
        load_spec("train", {"train": {f"num_epochz{number}": 1 for number in range(20_000)}})
    assert "20000 faults" in str(caught.value)
    assert "did you mean 'num_epochs'" in str(caught.value)
    assert str(caught.value).endswith("and 19950 more")
    with pytest.raises(SpecError, match=r"^a{100}\.\.\.: unknown key of 900000 characters$"):
        load_spec("train", {"a" * 900_000: 1})
    assert time.process_time() - start < 10


@pytest.mark.parametrize("text", ["12:30", "1" + ":1" * 400_000, "1." * 100_000, "1" * 500_000 + "x"])
def test_texts_that_look_like_numbers_stay_text(text: str) -> None:
    start = time.process_time()
    assert parse_yaml(text) == text
    assert time.process_time() - start < 2


def test_merged_keys_are_those_of_pyyaml() -> None:
    text = "d: &d {a: 1, b: 2}\ne: &e {a: 3, c: 4}\nf: {<<: [*d, *e], b: 9}\ng: {b: 7, <<: *d}\nh: {<<: *e, <<: *d}\n"
    assert parse_yaml(text) == yaml.safe_load(text)


def test_plain_turns_foreign_scalars_into_python() -> None:
    numpy = pytest.importorskip("numpy")
    spec = {"train": {"num_epochs": numpy.int64(3), "clip_grad_norm": numpy.float32(0.5)}, "results_dir": Path("out")}
    experiment = load_spec("train", spec)
    assert (experiment.train.num_epochs, experiment.train.clip_grad_norm) == (3, 0.5)
    assert experiment.results_dir == "out"
    assert plain((1, {"a": (2,)})) == [1, {"a": [2]}]
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SpecError, match="nested too deeply"):
        plain(loop)
    assert len(format_value("x" * 1000)) <= 60


def test_overrides_of_text_fields_keep_their_text() -> None:
    experiment = load_spec(
        "train", None, ["results_dir=2024", "model.backbone=[x", "model_name=true", "wandb.name=1e5"]
    )
    assert (experiment.results_dir, experiment.model.backbone) == ("2024", "[x")
    assert (experiment.model_name, experiment.wandb.name) == ("true", "1e5")
    assert load_spec("train", {"results_dir": "x"}, ["results_dir=null"]).results_dir is None


def test_overrides_that_cannot_be_read() -> None:
    message = refused("train", None, ["a", "=3", "a..b=1", "train.num_epochs=[1", "train.seed.x=3"])
    assert message.startswith("5 faults")
    assert "train.seed" in message
    assert "is 5, not a section" in refused("train", {"train": 5}, ["train.seed=1"])


def test_overrides_reach_into_free_parameters() -> None:
    spec = {"train": {"loss": {"name": "CosFaceLoss", "parameters": {"scale": 10}}}}
    both = load_spec("train", spec, ["train.loss.parameters.margin=0.2"]).train.loss
    assert both.parameters == {"scale": 10, "margin": 0.2}
    assert load_spec("train", spec, ["train.loss.parameters={margin: 0.2}"]).train.loss.parameters == {"margin": 0.2}


def test_every_short_name_stands_for_a_field() -> None:
    for key in (*SHORTHAND, *BY_ACTION):
        for action in ACTIONS:
            assert long_name(key, action) in declared_fields()
    assert load_spec("train", None, ["num_epochs=7", "batch_size=8"]).train.num_epochs == 7
    assert load_spec("evaluate", None, {"batch_size": 8}).evaluate.batch_size == 8
    assert load_spec("train", None, {"batch_size": 8}).train.batch_size == 8
    assert load_spec("export", None, ["trt_engine=x"]).gen_trt_engine.trt_engine == "x"


@pytest.mark.parametrize(
    "overrides",
    [["num_epochs=3", "train.num_epochs=4"], ["train.num_epochs=3", "num_epochs=3"],
     {"num_epochs": 3, "train": {"num_epochs": 3}}],
)  # fmt: skip
def test_both_spellings_at_once_are_refused(overrides: Any) -> None:
    assert "train.num_epochs: given twice" in refused("train", None, overrides)


def test_a_short_name_wins_over_the_file_and_a_later_override_over_an_earlier() -> None:
    assert load_spec("train", {"train": {"num_epochs": 9}}, ["num_epochs=3"]).train.num_epochs == 3
    assert load_spec("train", None, ["train.seed=3", "train.seed=4"]).train.seed == 4
    assert "given twice" in refused("evaluate", None, ["batch_size=3", "eval_batch_size=3"])


@pytest.mark.parametrize(
    ("action", "path"),
    [("train", "dataset.train_dataset"), ("evaluate", "dataset.val_dataset.reference"),
     ("inference", "inference.input_path"), ("embed", "embed.source"), ("check", "dataset.train_dataset")],
)  # fmt: skip
def test_data_folder_goes_where_the_action_reads_it(action: str, path: str) -> None:
    value: Any = load_spec(action, None, data=Path("photos"))
    assert value.is_set(path)
    for part in path.split("."):
        value = getattr(value, part)
    assert value == "photos"
    assert "given twice" in refused(action, None, [f"{path}=other"], data="photos")


def test_question_marks_and_empty_sections_are_unset() -> None:
    spec = {"evaluate": {"checkpoint": "???"}, "train": None, "dataset": {"val_dataset": None}}
    experiment = load_spec("evaluate", spec)
    assert experiment.evaluate.checkpoint is None
    assert not experiment.is_set("evaluate.checkpoint")
    assert not experiment.is_set("train")
    assert experiment.dataset.val_dataset is None
    assert load_spec("evaluate", {"dataset": {"val_dataset": "???"}}, data="x").dataset.val_dataset.reference == "x"


def test_recipe_follows_how_the_spec_was_given(tmp_path: Path) -> None:
    assert load_spec("train").train.recipe == "unalike"
    assert load_spec("train", None, ["num_epochs=3"], data="photos").train.recipe == "unalike"
    assert load_spec("train", {"train": {"num_epochs": 3}}).train.recipe == "tao"
    assert load_spec("train", write(tmp_path, "model: {}")).train.recipe == "tao"
    assert load_spec("train", {"train": {"recipe": "unalike"}}).train.recipe == "unalike"
    assert load_spec("train", {}, ["train.recipe=unalike"]).train.recipe == "unalike"


def test_the_template_of_the_skill_is_of_taos_recipe(tmp_path: Path) -> None:
    text = template_for("train", recipe=False)
    assert "recipe:" not in text and "recipe: unalike" in template_for("train")
    assert load_spec("train", write(tmp_path, text)).to_dict() == load_spec("train", {}).to_dict()
    train = load_spec("train", write(tmp_path, text)).train
    assert (train.recipe, train.optim.name, train.batch_size, train.optim.trunk.base_lr) == ("tao", "Adam", 4, 3.5e-4)
    assert "recipe" not in schema_for("train")["default"]["train"]


def test_automl_policy_order(tmp_path: Path) -> None:
    file = write(tmp_path, "automl_policy: off\n")
    assert load_spec("train").policy() == "auto"
    assert load_spec("train", {}).policy() == "off"
    assert load_spec("train", file).automl_policy == "off"
    assert load_spec("train", None, ["automl_policy=off"]).policy() == "off"
    assert load_spec("train", {"automl_policy": "auto"}).policy() == "auto"
    assert load_spec("train", {"automl_policy": "auto"}).policy("off") == "off"
    assert load_spec("train", {"automl_policy": True}).policy() == "auto"  # TAO's bare `on`
    assert "one of auto, off or null" in refused("train", {"automl_policy": 1})


@pytest.mark.parametrize("word", ["auto", "true", "false"])
def test_pretrained_takes_words_and_yaml_booleans(word: str) -> None:
    assert load_spec("train", None, [f"model.pretrained={word}"]).model.pretrained == word


def test_wandb_acts_only_when_asked_for() -> None:
    assert not load_spec("train").is_set("wandb.enable")
    assert not load_spec("train").wandb.enable
    assert not load_spec("train", {"wandb": {"project": "x"}}).wandb.enable
    asked = load_spec("train", {"wandb": {"enable": True}})
    assert asked.is_set("wandb.enable")
    assert asked.wandb.enable
    again = load_spec("train", yaml.safe_load(load_spec("train").to_yaml()))
    assert not again.wandb.enable


def test_encryption_key_is_said_once_and_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    progress._said.clear()
    load_spec("train", {"encryption_key": "tlt_encode"})
    load_spec("train", {"encryption_key": "tlt_encode"})
    assert capsys.readouterr().err == "encryption_key is not used here: nothing is encrypted\n"


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("dataset.gaussian_blur.kernel=[4,4]", "two odd numbers"), ("dataset.gaussian_blur.kernel=[3]", "two odd numbers"),
        ("dataset.gaussian_blur.kernel=[-1,3]", "two odd numbers"), ("dataset.gaussian_blur.kernel=[449,3]", "half"),
        ("dataset.gaussian_blur.sigma=[2,1]", "smaller first"), ("dataset.crop.scale=[0.5,0.1]", "smaller first"),
        ("dataset.crop.scale=[0.5,1.1]", "at most 1.0"),
        ("dataset.decoding.range=[5,2]", "the lowest and the highest value, such as 0,4095"),
        ("dataset.decoding.range=[nan,2]", "the lowest and the highest value"),
        ("automl.minutes=1e30", "<= 527040"), ("automl.minutes=inf", "<= 527040"), ("dataset.crop.ratio=[1]", "two numbers"),
        ("train.optim.steps=[40,40]", "rising"), ("train.optim.steps=[-1]", "rising"),
        ("train.gpu_ids=[]", "as many as train.num_gpus, 1"), ("train.gpu_ids=[-1]", "different indices"),
        ("evaluate.gpu_ids=[]", "as many as evaluate.num_gpus, 1"), ("dataset.pixel_mean=[0.5]", "3 numbers"),
        ("dataset.pixel_mean=[123.7,116.3,103.5]", "scale 0 to 1"), ("dataset.pixel_std=[58,57,57]", "divide those of the scale"),
        ("model.input_channels=1", "3 (gray images are read as RGB)"),
        ("export.batch_size=0", "-1 (open)"), ("gen_trt_engine.batch_size=0", "-1 (open)"),
        ("train.checkpointer.save_top_k=0", "-1 (all)"), ("dataset.manifest_columns.label=path", "different columns"),
    ],
)  # fmt: skip
def test_conditions(override: str, part: str) -> None:
    message = refused("train", None, [override])
    assert part in message
    assert "\n" not in message


def test_conditions_between_fields_the_user_wrote() -> None:
    assert load_spec("train", None, ["train.num_gpus=3"]).train.gpu_ids == [0, 1, 2]
    assert load_spec("train", None, ["train.num_gpus=2", "train.gpu_ids=[3,1]"]).train.gpu_ids == [3, 1]
    frozen = ["train.train_trunk=false", "train.train_embedder=false"]
    assert "nothing would be trained" in refused("train", None, frozen)
    load_spec("evaluate", None, frozen)
    trt = "gen_trt_engine.tensorrt."
    load_spec("gen_trt_engine", None, [f"{trt}min_batch_size=4"])
    assert "at least" in refused("gen_trt_engine", None, [f"{trt}min_batch_size=4", f"{trt}max_batch_size=2"])
    load_spec("train", None, ["dataset.gaussian_blur.enabled=false", "dataset.gaussian_blur.kernel=[449,449]"])


def test_settle_respects_the_user() -> None:
    experiment = load_spec("train", None, ["train.batch_size=8", "train.loss.name=ArcFaceLoss"])
    assert settle(experiment, "train.num_epochs", 13, "recipe")
    assert experiment.train.num_epochs == 13
    assert not settle(experiment, "train.batch_size", 64, "recipe")
    assert settle(experiment, "train.batch_size", 8, "recipe")
    assert not settle(experiment, "train.loss", {"name": "CosFaceLoss", "parameters": {}}, "recipe")
    assert settle(experiment, "train.miner", {"name": None, "parameters": {}}, "recipe")
    assert settle(experiment, "dataset.pixel_mean", (0.5, 0.5, 0.5), "trunk")
    assert (experiment.train.miner.name, experiment.dataset.pixel_mean) == (None, [0.5, 0.5, 0.5])
    assert [s.path for s in experiment.settled] == ["train.num_epochs", "train.miner", "dataset.pixel_mean"]
    assert not experiment.is_set("train.num_epochs")


def test_settle_refuses_what_is_not_declared_so() -> None:
    experiment = load_spec("train")
    for path in ("train.seed", "train.nothing", "nothing.at.all", "train.seed.deeper"):
        with pytest.raises(KeyError, match="not a field that may be settled"):
            settle(experiment, path, 3, "why")
    with pytest.raises(SpecError, match="cannot be settled"):
        settle(experiment, "train.batch_size", 0, "why")


def test_settle_warns_where_the_user_contradicts_the_trunk(capsys: pytest.CaptureFixture[str]) -> None:
    progress._said.clear()
    experiment = load_spec("train", {"dataset": {"pixel_mean": [0.1, 0.2, 0.3]}})
    for _ in range(2):
        assert not settle(experiment, "dataset.pixel_mean", [0.5, 0.5, 0.5], "mean of lite0")
    text = capsys.readouterr().err
    assert text == "warning: dataset.pixel_mean is [0.1, 0.2, 0.3], as you set it; mean of lite0: [0.5, 0.5, 0.5]\n"


def test_assignment_is_validated() -> None:
    experiment = load_spec("train")
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        experiment.train.num_epochs = 0


@pytest.mark.parametrize("action", ACTIONS)
def test_template_loads_to_what_no_spec_gives(tmp_path: Path, action: str) -> None:
    text = template_for(action)
    experiment = load_spec(action, write(tmp_path, text))
    assert experiment.to_dict() == load_spec(action).to_dict()
    for path, declared in declared_fields().items():
        if declared.facts.get("settled"):
            assert not experiment.is_set(path), path
    assert max(map(len, text.splitlines())) <= 120


def test_template_with_every_line_uncommented_is_valid(tmp_path: Path) -> None:
    lines = template_for("train").splitlines()
    bare = [line.replace("# ", "", 1) if _is_field(line) else line for line in lines]
    text = "\n".join(line for line in bare if not line.lstrip().startswith("#"))
    full = load_spec("train", write(tmp_path, text))
    want = load_spec("train").to_dict()
    want["dataset"]["val_dataset"] = {"reference": None, "query": None}
    assert full.to_dict() == want
    assert full.is_set("train.num_epochs")


def _is_field(line: str) -> bool:
    word = line.strip().removeprefix("# ").partition(":")
    return bool(word[1]) and word[0] in {p.rpartition(".")[2] for p in declared_fields()}


def test_three_spellings_resolve_to_one_thing(tmp_path: Path) -> None:
    """No spec, the template, and the first run's experiment.yaml, each after the same facts were settled."""

    def resolved(spec: Path | None) -> Experiment:
        experiment = load_spec("train", spec)
        if experiment.train.recipe == "unalike":
            for path, value in facts.items():
                settle(experiment, path, value, "fact")
        return experiment

    facts = {"train.num_epochs": 13, "dataset.pixel_mean": [0.498] * 3, "train.optim.loss_lr": 1e-2,
             "train.loss": {"name": "CosFaceLoss", "parameters": {"margin": 0.2}}, "dataset.train_height": 176,
             "train.miner": {"name": None, "parameters": {}}, "train.gpu_ids": [0]}  # fmt: skip
    first = resolved(None)
    assert resolved(write(tmp_path, template_for("train"))).to_dict() == first.to_dict()
    again = resolved(write(tmp_path, first.to_yaml(), "experiment.yaml"))
    assert again.to_dict() == first.to_dict()
    assert again.to_yaml() == first.to_yaml()


def test_a_runs_yaml_decides_nothing_for_later_actions(tmp_path: Path) -> None:
    again = load_spec("export", write(tmp_path, load_spec("train").to_yaml(), "experiment.yaml"))
    open_fields = ("export.opset_version", "evaluate.batch_size", "gen_trt_engine.tensorrt.max_batch_size")
    assert not any(again.is_set(path) for path in open_fields)
    assert again.is_set("export.batch_size")
    settle(again, "export.opset_version", 18, "the exporter's own")
    assert yaml.safe_load(again.to_yaml())["export"]["opset_version"] == 18
    chosen = load_spec("train", None, ["export.opset_version=16"]).to_yaml()
    assert yaml.safe_load(chosen)["export"]["opset_version"] == 16


@pytest.mark.parametrize("action", ACTIONS)
def test_schema_is_valid_and_agrees_with_loading(action: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = schema_for(action)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    json.dumps(schema, allow_nan=False)
    assert not list(validator.iter_errors(schema["default"]))
    assert not list(validator.iter_errors(load_spec(action).to_dict()))
    assert not list(validator.iter_errors(yaml.safe_load(template_for(action))))
    standalone = action in STANDALONE_ACTIONS
    assert list(validator.iter_errors({"trian": {}}))
    for tree in ({"train": {"num_epochs": "3"}}, {"train": {"num_epochs": 0}}, {"model": {"backbone": ""}}):
        assert list(validator.iter_errors(tree))
        refused(action, tree)
    for tree in ({"model": {"pretrained": True, "backbone": "tf_efficientnet_lite0"}}, {"automl_policy": False}):
        assert bool(list(validator.iter_errors(tree))) == standalone
        if standalone:
            assert f"a spec for {action} holds {' and '.join(top_level(action))}" in refused(action, tree)
        else:
            load_spec(action, tree)
    for other in STANDALONE_ACTIONS:
        assert bool(list(validator.iter_errors({other: {}}))) == (other != action)
        if other != action:
            assert other in refused(action, {other: {}})


@pytest.mark.parametrize(
    ("action", "tree"),
    [
        ("train", {"train": {"optim": {"trunk": {"base_lr": 1.5, "weight_decay": 3.0, "bias_lr_factor": 0.5}}}}),
        ("train", {"num_epochs": 3, "batch_size": 8, "trunk_learning_rate": 1e-3}),
        ("train", {"dataset": {"color_augmentation": {"enable": True}}, "train": {"grad_clip": 1.0}, "num_gpus": 1}),
        (
            "gen_trt_engine",
            {"gen_trt_engine": {"input_width": 3, "tensorrt": {"data_type": "Fp16", "force_ptq": False}}},
        ),
    ],
)
def test_a_schema_accepts_what_a_spec_may_hold(action: str, tree: dict) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert not list(jsonschema.Draft202012Validator(schema_for(action)).iter_errors(tree))
    load_spec(action, tree)
    assert list(jsonschema.Draft202012Validator(schema_for("train")).iter_errors({"train": {"optim": {"gamma": -1}}}))


def test_what_has_no_schema() -> None:
    with pytest.raises(ValueError, match="no schema"):
        schema_for("trian")
    with pytest.raises(ValueError, match="no template"):
        template_for("trian")


def test_every_field_has_help_and_an_expectation() -> None:
    for path, declared in declared_fields().items():
        assert len(declared.info.description or "") > 10, path
        assert expectation(declared) not in ("", "a value"), path


def test_suggestions() -> None:
    assert suggestion("train.optim.trunk.base_ir") == "did you mean 'base_lr'?"
    assert suggestion("optim.gamma") == "did you mean 'train.optim.gamma'?"
    assert suggestion("zzzzzz") == ""
    assert suggestion("epochs").startswith("did you mean 'train.num_epochs'"), (
        "a word of a field, those of training first"
    )
    assert suggestion("margin").startswith("did you mean 'train.")
    for path in ("train.optim.lr", "train.optim.learning_rate"):
        assert suggestion(path).startswith("did you mean 'train.optim.embedder.base_lr' or 'train.optim.trunk.base_lr'")


# Hypothesis: whatever is done to a spec, the answer is an Experiment or a SpecError that names the key.

# A busy machine must not fail these for their time.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)
PATHS = sorted(declared_fields())


def action_of(path: str) -> str:
    """An action whose spec may hold the field."""
    first = path.partition(".")[0]
    return first if first in STANDALONE_ACTIONS else "train"


def nest(path: str, value: object) -> dict[Any, Any]:
    tree: Any = value
    for part in reversed(path.split(".")):
        tree = {part: tree}
    return tree


@relaxed
@given(st.sampled_from(PATHS), VALUES)
def test_any_value_anywhere_loads_or_is_refused_by_name(path: str, value: object) -> None:
    try:
        load_spec(action_of(path), nest(path, value))
    except SpecError as error:
        assert path in str(error)


@relaxed
@given(
    st.sampled_from([p for p, d in declared_fields().items() if d.section]), st.text(min_size=1, max_size=12), VALUES
)
def test_unknown_keys_are_refused_by_name(path: str, key: str, value: object) -> None:
    if f"{path}.{key}" in declared_fields():
        return
    tree = nest(path, {key: value})
    if value == "???":
        return
    with pytest.raises(SpecError) as caught:
        load_spec(action_of(path), tree)
    assert one_line(f"{path}.{key}") in str(caught.value)


@relaxed
@given(st.sampled_from([p for p, d in declared_fields().items() if d.kind in (int, float, bool)]), st.data())
def test_wrong_types_are_refused_by_name(path: str, data: st.DataObject) -> None:
    kind = declared_fields()[path].kind
    wrong = {
        int: st.text() | st.booleans() | st.just(0.5),
        float: st.text() | st.booleans(),
        bool: st.text() | st.integers(),
    }
    value = data.draw(wrong[kind] | st.lists(st.integers(), max_size=2))
    if value == "???":
        return
    with pytest.raises(SpecError, match=path.replace(".", r"\.")):
        load_spec(action_of(path), nest(path, value))


@relaxed
@given(
    st.lists(st.text(max_size=20) | st.builds("{}={}".format, st.sampled_from(PATHS), st.text(max_size=12)), max_size=3)
)
def test_any_override_loads_or_is_refused(overrides: list[str]) -> None:
    try:
        load_spec("train", None, overrides)
    except SpecError as error:
        assert str(error)


@relaxed
@given(VALUES)
def test_any_mapping_of_overrides_loads_or_is_refused(value: object) -> None:
    if isinstance(value, dict):
        try:
            load_spec("train", None, value)
        except SpecError as error:
            assert str(error)


@relaxed
@given(st.text(max_size=40))
def test_any_yaml_text_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError as error:
        assert "\n" not in str(error)


def test_apply_overrides_reports_and_goes_on() -> None:
    tree: dict[Any, Any] = {}
    faults = apply_overrides(tree, ["train.seed=3", "bad"], "train")
    assert tree == {"train": {"seed": 3}}
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("action", "override", "most"),
    [("train", "train.num_epochs=5000000000", 2**32 - 1),
     ("bench_engine", "bench_engine.batches=1,99999999999999999999999", 2**32 - 1),
     ("evaluate", "evaluate.threads=2000", 1024), ("evaluate", "evaluate.streams=4294967295", 1024)],
)  # fmt: skip
def test_whole_numbers_beyond_all_measure(action: str, override: str, most: int) -> None:
    with pytest.raises(
        SpecError, match=f"{override.split('=')[0]}: found .*, expected whole numbers of at most {most}"
    ):
        load_spec(action, overrides=[override])


@pytest.mark.parametrize("text", ["nan", "-1", "0", "1.5", "abc", "3x", "x", "3x4x5"])
def test_a_size_that_is_none_is_one_fault(text: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec("export_maps", overrides=[f"export_maps.size={text}"])
    assert "\n" not in str(raised.value) and "one side, or height x width" in str(raised.value)


@pytest.mark.parametrize("text", ["photos #2", "#2", "&co", "a: b", "007", "no", "2024-01-02", "[x]", "C:\\x"])
def test_an_override_of_a_text_is_the_text(text: str) -> None:
    assert load_spec("train", None, [f"dataset.train_dataset={text}"]).dataset.train_dataset == text
    assert load_spec("train", None, ['dataset.train_dataset="a #b"']).dataset.train_dataset == "a #b"


def test_zeros_in_front_are_of_a_name(tmp_path: Path) -> None:
    file = write(tmp_path, "dataset: {train_dataset: 007}\nmodel: {backbone: 010}\n")
    spec = load_spec("train", file)
    assert (spec.dataset.train_dataset, spec.model.backbone) == ("007", "010")
    for text, remedy in (("017", "write it without a zero in front"), ("3.0", "write 3"), ("1e1", "write 10")):
        line = refused("train", write(tmp_path, f"train: {{num_epochs: {text}}}\n"))
        assert line.endswith(remedy), line


def test_names_in_another_case_are_suggested(tmp_path: Path) -> None:
    assert refused("train", write(tmp_path, "MODEL: {backbone: x}\n")).endswith("did you mean 'model'?")


def test_a_label_may_stand_in_a_column_y() -> None:
    load_spec("train", None, ["dataset.manifest_columns.label=y"])
    with pytest.raises(SpecError, match="different columns"):
        load_spec("train", None, ["dataset.manifest_columns.label=y", "dataset.manifest_columns.x=y"])
    with pytest.raises(SpecError, match="different columns"):
        load_spec("train", None, ["dataset.manifest_columns.label=path"])

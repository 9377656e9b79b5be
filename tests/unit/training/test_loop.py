"""The loop's promises: resume equals a straight run, accumulation equals the formula, a bad loss moves nothing."""

import copy
import gc
import math
import weakref
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric

from tests.support.tiny import TinyEmbedder, spec
from unalike.errors import DeviceError, Interrupted, SpecError, TrainingError, WeightsError
from unalike.model.checkpoint import read_checkpoint
from unalike.runs.filenames import BEST_CHECKPOINT, LATEST_CHECKPOINT
from unalike.spec import load_spec
from unalike.training.checkpoints import CheckpointManager, newest_checkpoint
from unalike.training.cross_batch_memory import CrossBatchMemory
from unalike.training.devices import _gpu_count, launched_processes, make_fabric
from unalike.training.freezing import Freezer
from unalike.training.loop import TrainingLoop
from unalike.training.losses import build_criterion
from unalike.training.optimizer import build_optimizer
from unalike.training.resume import ResumeCheckpoint, choose_seed
from unalike.training.sampled_proxies import SampledProxies
from unalike.training.schedule import LRSchedule
from unalike.training.trainer import _collect_result, train_embedder

STEPS, BATCH = 4, 8


CLASSES = 10  # of which a batch has four
SAMPLED = SimpleNamespace(name="CosFaceLoss", parameters={}, sampled_classes=6, memory_size=None)
MEMORY = SimpleNamespace(name="TripletMarginLoss", parameters={}, sampled_classes=None, memory_size=20)


class SumLoss(torch.nn.Module):
    def forward(self, vectors, labels):
        return vectors.sum()


class Batches:
    """Random images that depend on epoch and step alone, as the real loader's do."""

    def __len__(self):
        return STEPS

    def epoch(self, epoch, start_step=0):
        for step in range(start_step, STEPS):
            generator = torch.Generator().manual_seed(100 * epoch + step)
            yield SimpleNamespace(
                images_BCHW=torch.randn(BATCH, 3, 16, 16, generator=generator),
                labels_B=torch.arange(BATCH) // 2,
                indices_B=torch.arange(BATCH),
            )


def make_loop(folder, s=None, *, validate="last", stop=lambda: 0, batches=None, embedder=None, precision="32-true",
              identity=None):  # fmt: skip
    s = s or spec()
    torch.manual_seed(7)
    embedder = embedder or TinyEmbedder()
    criterion = build_criterion(s, classes=CLASSES, dim=8)
    freezer = Freezer(embedder, s)
    optimizer = build_optimizer(s, embedder, criterion)
    events = []
    figures = iter([0.5, 0.7, 0.6, 0.65, 0.4, 0.3])

    def figure(_):
        return {"val Precision at Rank 1": next(figures), "train_loss": 0.0}

    loop = TrainingLoop(
        fabric=Fabric(accelerator="cpu", devices=1, precision=precision), embedder=embedder, criterion=criterion, optimizer=optimizer,
        freezer=freezer, loader=batches or Batches(), schedule=LRSchedule.from_spec(s, STEPS), experiment=s,
        checkpoint_manager=CheckpointManager(folder, s.train), validate=figure if validate else None,
        payload=lambda weights, epochs: {"model": dict(weights), "spec": {}, "classes": [], "facts": {}},
        image_names=lambda indices: [f"image{i}.png" for i in indices],
        listener=lambda event, facts: events.append((event, facts)), stop_requested=stop,
        identity=identity,
    )  # fmt: skip
    loop.events = events
    return loop


def weights(loop):
    return {k: v.clone() for k, v in loop.embedder.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_same_seed_same_bits(tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        loop = make_loop(tmp_path / name)
        loop.run()
        runs.append(weights(loop))
    assert_equal(*runs)


@pytest.mark.parametrize("changes", [{}, {"train__ema": SimpleNamespace(enabled=True, decay=0.9)},
                                     {"train__optim__name": "SGD"}, {"train__accumulate": 2},
                                     {"train__accumulate": 3}, {"train__loss": SAMPLED},
                                     {"train__loss": MEMORY}])  # fmt: skip
@pytest.mark.parametrize("stop_after", [2, 4, 5])
def test_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path, changes, stop_after):
    (tmp_path / "straight").mkdir()
    straight = make_loop(tmp_path / "straight", spec(train__num_epochs=3, **changes))
    straight.run()
    (tmp_path / "broken").mkdir()
    calls = iter(range(100))
    broken = make_loop(
        tmp_path / "broken", spec(train__num_epochs=3, **changes),
        stop=lambda: 15 if next(calls) + 1 >= stop_after else 0,
    )  # fmt: skip
    with pytest.raises(Interrupted) as caught:
        broken.run()
    assert caught.value.exit_code == 143
    position = broken.position
    assert f"in epoch {position.epoch + 1}, after {position.step} of its steps" in str(
        caught.value
    )  # people count from 1
    resumed = make_loop(tmp_path / "broken", spec(train__num_epochs=3, **changes), embedder=TinyEmbedder(seed=99))
    resumed.load_checkpoint(read_checkpoint(newest_checkpoint(tmp_path / "broken")))
    resumed.run()
    assert_equal(weights(straight), weights(resumed))
    assert straight.history.steps == resumed.history.steps
    if isinstance(straight.criterion.loss, SampledProxies):
        states = [loop.criterion.loss.get_extra_state() for loop in (straight, resumed)]
        assert_equal(*(state["moments"] | {"proxies": state["proxies"]} for state in states))
    if isinstance(straight.criterion.loss, CrossBatchMemory):
        memories = [loop.criterion.loss for loop in (straight, resumed)]
        assert memories[0].get_extra_state() == memories[1].get_extra_state()
        assert_equal(*(dict(memory.named_buffers()) for memory in memories))
    if straight.ema is not None:
        assert_equal(straight.ema.average, resumed.ema.average)


class TimedBatches(Batches):
    """Batches that let the loop's clock advance by ``seconds`` each, or more in some steps."""

    def __init__(self, clock, seconds, steps, stalls=()):
        self.clock, self.seconds, self.steps, self.stalls, self.count = clock, seconds, steps, dict(stalls), 0

    def __len__(self):
        return self.steps

    def epoch(self, epoch, start_step=0):
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(start_step, self.steps):
            self.clock.now += self.stalls.get(self.count, self.seconds)
            self.count += 1
            yield SimpleNamespace(images_BCHW=torch.randn(BATCH, 3, 16, 16, generator=generator),
                                  labels_B=torch.arange(BATCH) // 2, indices_B=torch.arange(BATCH))  # fmt: skip


@pytest.mark.parametrize(("limit", "stalls", "expected"), [
    (1000.0, (), 60),  # all fits
    (45.0, (), 45),  # ends in the third epoch
    (12.0, (), 12),  # in the first
    (45.0, ((3, 20.0),), 26),  # a stall of 20 s
    (0.0, (), 1),
])  # fmt: skip
def test_training_ends_within_an_epoch_that_would_pass_the_time_limit(tmp_path, monkeypatch, limit, stalls, expected):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("unalike.training.loop.time", SimpleNamespace(monotonic=lambda: clock.now))
    settled = spec(train__num_epochs=3, train__optim__schedule="cosine", train__optim__warmup_iters=0)
    loop = make_loop(tmp_path, settled, validate=None, batches=TimedBatches(clock, 1.0, 20, stalls))
    loop.schedule = LRSchedule.from_spec(settled, 20)
    loop.seconds_left = lambda: limit - clock.now
    loop.run()
    assert loop.position.global_step == expected and clock.now <= max(limit, 1.0)
    assert loop.position.step == 0 and loop.position.epoch == loop.epochs == -(-expected // 20)
    assert loop.schedule.epochs == pytest.approx(expected / 20)
    if expected > 20:
        rates = [row["embedder_base_lr"] for row in loop.history.steps]
        assert rates[-1] < 0.02 * max(rates), rates
    assert read_checkpoint(newest_checkpoint(tmp_path))["training"]["position"]["total"] == expected


def test_epochs_shrink_after_any_epoch_and_grow_after_the_first_two(tmp_path):
    plan = {1: 3, 2: 6, 3: 9, 4: 5}
    loop = make_loop(tmp_path, spec(train__num_epochs=4), validate=None)
    loop.choose_epochs = lambda finished, _: plan.get(finished, 99)
    seen = []
    loop.listener = lambda event, facts: seen.append(facts["epochs"]) if event == "epochs" else None
    loop.run()
    assert seen == [3, 6, 5] and loop.position.epoch == 5


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_epochs_can_be_settled_after_the_first_ones_and_hold_for_a_resumed_run(tmp_path, epochs):
    calls = []
    loop = make_loop(tmp_path, spec(train__num_epochs=3, train__optim__schedule="cosine"), validate=None)
    loop.choose_epochs = lambda finished, seconds: (
        calls.append((finished, seconds)) or (epochs if finished >= 2 else min(epochs, 4))
    )
    stops = iter([0] * 5 + [15] * 99)
    loop.stop_requested = lambda: next(stops)
    if epochs > 1:
        with pytest.raises(Interrupted):
            loop.run()
        settled = spec(train__num_epochs=loop.epochs, train__optim__schedule="cosine")
        again = make_loop(tmp_path, settled, validate=None, embedder=TinyEmbedder(seed=99))
        again.choose_epochs = loop.choose_epochs
        again.load_checkpoint(read_checkpoint(newest_checkpoint(tmp_path)))
    else:
        again = loop
    again.run()
    assert [finished for finished, _ in calls] == list(range(1, epochs + 1)) and all(0 < s < 60 for _, s in calls)
    assert (again.position.epoch, again.position.global_step, again.epochs) == (epochs, epochs * STEPS, epochs)
    straight = LRSchedule.from_spec(spec(train__num_epochs=epochs, train__optim__schedule="cosine"), STEPS)
    assert again.schedule.epochs == epochs
    rates = [row["embedder_base_lr"] for row in again.history.steps if row["step"] > 2 * STEPS]
    base = spec().train.optim.embedder.base_lr
    assert rates == pytest.approx([base * straight.factor(e, i) for e in range(2, epochs) for i in range(STEPS)])


@pytest.mark.parametrize("accumulate, groups", [(2, [(0, 1), (2, 3)]), (3, [(0, 1, 2), (3,)])])
def test_d13_accumulated_step_equals_the_mean_gradient_of_its_batches(tmp_path, accumulate, groups):
    s = spec(train__accumulate=accumulate, train__optim__name="SGD", train__num_epochs=1, train__freeze_batchnorm=True)
    s.train.optim.trunk.momentum = s.train.optim.embedder.momentum = 0.0
    loop = make_loop(tmp_path, s)
    reference = copy.deepcopy(loop.embedder)
    freezer = Freezer(reference, s)
    criterion = build_criterion(s, classes=CLASSES, dim=8)
    optimizer = build_optimizer(s, reference, criterion)
    freezer.set_train_modes(head_only=False)
    batches = list(Batches().epoch(0))
    for group in groups:
        optimizer.zero_grad()
        for i in group:
            (criterion(reference(batches[i].images_BCHW), batches[i].labels_B) / len(group)).backward()
        for parameters in optimizer.param_groups:
            parameters["lr"] = parameters["base_lr"] * loop.schedule.factor(0, group[-1])
        optimizer.step()
    loop.run()
    for key, value in reference.state_dict().items():
        assert torch.allclose(value, loop.embedder.state_dict()[key], atol=1e-6), key


def test_d13_bf16_and_channels_last_train_near_to_fp32(tmp_path):
    ends = []
    for number, (precision, layout) in enumerate(
        [("32-true", torch.contiguous_format), ("bf16-mixed", torch.channels_last)]
    ):
        (tmp_path / str(number)).mkdir()
        embedder = TinyEmbedder().to(memory_format=layout)
        loop = make_loop(tmp_path / str(number), embedder=embedder, precision=precision)
        loop.run()
        assert all(p.dtype == torch.float32 for p in loop.embedder.parameters())
        ends.append(loop.history.steps[-1]["train_loss"])
    assert ends[1] == pytest.approx(ends[0], rel=0.1) and ends[0] != ends[1]


def test_d07_clipping_works_and_bounds_the_update(tmp_path):
    s = spec(train__clip_grad_norm=1e-8, train__optim__name="SGD", train__num_epochs=1)
    for part in (s.train.optim.trunk, s.train.optim.embedder):
        part.momentum = part.weight_decay = 0.0
    loop = make_loop(tmp_path, s)
    before = weights(loop)
    loop.run()
    moved = max(
        float((v - before[k]).abs().max()) for k, v in weights(loop).items() if "running" not in k and "num" not in k
    )
    assert moved < 1e-8


def test_a_loss_that_is_not_finite_stops_before_the_weights_move_and_names_the_images(tmp_path):
    class Poisoned(Batches):
        def epoch(self, epoch, start_step=0):
            for batch in super().epoch(epoch, start_step):
                batch.images_BCHW[0, 0, 0, 0] = float("nan")
                yield batch

    loop = make_loop(tmp_path, batches=Poisoned())
    loop.criterion.miner = None
    loop.criterion.loss = SumLoss()
    before = weights(loop)
    with pytest.raises(TrainingError, match="image0.png"):
        loop.run()
    after = weights(loop)
    assert_equal({k: v for k, v in before.items() if "running" not in k and "num_batches" not in k},
                 {k: v for k, v in after.items() if "running" not in k and "num_batches" not in k})  # fmt: skip


class RootLoss(torch.nn.Module):
    """Finite, with a gradient that is not."""

    def forward(self, vectors, labels):
        return (vectors * 0).sum().sqrt()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_gradients_that_are_not_finite_stop_before_the_weights_move_and_name_the_images(tmp_path, clip):
    loop = make_loop(tmp_path, spec(train__clip_grad_norm=clip))
    loop.criterion.miner, loop.criterion.loss = None, RootLoss()
    before = {k: v.clone() for k, v in loop.embedder.named_parameters()}
    with pytest.raises(TrainingError, match="gradient.*image7.png"):
        loop.run()
    assert_equal(before, dict(loop.embedder.named_parameters()))


def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path):
    make_loop(tmp_path, identity={"data": "ab", "classes": ["a", "b"], "seed": 1}).run()
    saved = read_checkpoint(newest_checkpoint(tmp_path))
    other = make_loop(tmp_path, identity={"data": "ab", "classes": ["a", "c"], "seed": 2})
    with pytest.raises(WeightsError, match=r"classes 2 \(a, b\), seed 1; expected classes 2 \(a, c\), seed 2"):
        other.load_checkpoint(saved)
    saved["model"].pop("head.weight")
    with pytest.raises(WeightsError, match="does not fit"):
        make_loop(tmp_path, identity={"data": "ab", "classes": ["a", "b"], "seed": 1}).load_checkpoint(saved)


def test_d03_training_mode_comes_back_after_a_validation_that_left_eval_behind(tmp_path):
    loop = make_loop(tmp_path, spec(train__num_epochs=2))
    seen = []
    loop.validate = lambda embedder: (embedder.eval(), {"val Precision at Rank 1": 0.5})[1]
    step = loop.train_step
    loop.train_step = lambda batch, update: (seen.append(loop.embedder.training), step(batch, update=update))[1]
    loop.run()
    assert seen == [True] * (2 * STEPS)


def test_d08_intervals_are_honoured_and_the_last_epoch_always_validated_and_saved(tmp_path):
    loop = make_loop(tmp_path, spec(train__num_epochs=5, train__validation_interval=2, train__checkpoint_interval=2))
    loop.run()
    assert [v["epoch"] for v in loop.history.validations] == [1, 3, 4]
    names = sorted(p.name for p in tmp_path.glob("model_epoch_*.pth"))
    assert names == [f"model_epoch_{e:03d}_step_{(e + 1) * STEPS:05d}.pth" for e in (1, 3, 4)]
    assert (tmp_path / LATEST_CHECKPOINT).resolve().name == names[-1]


def test_d06_best_checkpoint_is_that_of_the_best_figure(tmp_path):
    loop = make_loop(tmp_path, spec(train__num_epochs=4))
    loop.run()  # figures 0.5, 0.7, 0.6, 0.65
    best = read_checkpoint(tmp_path / BEST_CHECKPOINT)
    assert best["epoch"] == 1 and best["metrics"]["val Precision at Rank 1"] == 0.7
    assert_equal(best["model"], read_checkpoint(tmp_path / f"model_epoch_001_step_{2 * STEPS:05d}.pth")["model"])


@pytest.mark.parametrize("replace", [False, True])
def test_d06_top_k_keeps_k_files_and_replace_periodic_still_leaves_the_latest(tmp_path, replace):
    s = spec(train__num_epochs=4)
    s.train.checkpointer.enable_topk, s.train.checkpointer.save_top_k = True, 2
    s.train.checkpointer.replace_periodic = replace
    make_loop(tmp_path, s).run()
    assert sorted(p.name for p in tmp_path.glob("model_best_*.pth")) == ["model_best_001.pth", "model_best_003.pth"]
    assert read_checkpoint(tmp_path / LATEST_CHECKPOINT)["epoch"] == 3
    assert bool(list(tmp_path.glob("model_epoch_*.pth"))) is not replace


def test_top_k_of_minus_one_keeps_all_and_names_hold_the_figure(tmp_path):
    s = spec(train__num_epochs=3)
    s.train.checkpointer.enable_topk, s.train.checkpointer.save_top_k = True, -1
    s.train.checkpointer.filename = "best_{epoch}_{step}_{val Precision at Rank 1:.2f}"
    make_loop(tmp_path, s).run()
    assert sorted(p.name for p in tmp_path.glob("best_*.pth")) == [
        "best_0_4_0.50.pth",
        "best_1_8_0.70.pth",
        "best_2_12_0.60.pth",
    ]


@pytest.mark.parametrize("pattern", ["best_{loss}", "best_{epoch", "best_{0}", "best_{epoch.x}"])
def test_bad_patterns_are_refused_at_the_start(tmp_path, pattern):
    s = spec()
    s.train.checkpointer.filename = pattern
    with pytest.raises(SpecError, match="filename"):
        CheckpointManager(tmp_path, s.train)


@pytest.mark.parametrize("validate", ["last", None])
def test_train_loss_can_be_monitored_with_and_without_a_validation(tmp_path, validate):
    s = spec(train__num_epochs=3)
    s.train.checkpointer.monitor = "train_loss"
    loop = make_loop(tmp_path, s, validate=validate)
    loop.run()
    losses = [row["train_loss"] for row in loop.history.steps]
    means = [sum(losses[e * STEPS : (e + 1) * STEPS]) / STEPS for e in range(3)]
    best = read_checkpoint(tmp_path / BEST_CHECKPOINT)
    assert best["epoch"] == means.index(min(means))
    assert best["metrics"]["train_loss"] == pytest.approx(min(means))


def test_of_equal_precisions_at_rank_1_the_higher_map_is_kept(tmp_path):
    def offered(checkpointer, epoch, precision, mean):
        kpis = {"val Precision at Rank 1": precision, "val Mean Average Precision": mean}
        checkpointer.save(
            {"model": {}, "spec": {}, "training": {}}, epoch=epoch, step=epoch, due=False, last=False, kpis=kpis
        )

    checkpointer = CheckpointManager(tmp_path, spec().train)
    for epoch, figures in enumerate([(1.0, 0.5), (1.0, 0.7), (1.0, 0.6), (0.9, 0.99), (1.0, math.nan)]):
        offered(checkpointer, epoch, *figures)
    assert (checkpointer.best_epoch, read_checkpoint(tmp_path / BEST_CHECKPOINT)["epoch"]) == (1, 1)
    again = CheckpointManager(tmp_path, spec().train)
    again.load_state(checkpointer.state())
    offered(again, 5, 1.0, 0.65)
    assert again.best_epoch == 1
    offered(again, 6, 1.0, 0.71)
    assert again.best_epoch == read_checkpoint(tmp_path / BEST_CHECKPOINT)["epoch"] == 6


def test_a_best_of_another_epoch_is_forgotten_on_resuming(tmp_path):
    loop = make_loop(tmp_path)
    loop.run()
    state = loop.checkpoint_manager.state()
    again = CheckpointManager(tmp_path, spec().train)
    again.load_state(state)
    assert again.best_epoch == 1
    again.load_state(state | {"best_epoch": 0})
    assert again.best is None and again.best_epoch is None


def test_step_checkpoints_wait_for_the_update(tmp_path):
    s = spec(
        train__num_epochs=2, train__checkpoint_interval=3, train__checkpoint_interval_unit="step", train__accumulate=2
    )
    make_loop(tmp_path, s).run()
    assert sorted(p.name for p in tmp_path.glob("model_epoch_*.pth")) == [
        "model_epoch_000_step_00004.pth", "model_epoch_001_step_00006.pth", "model_epoch_001_step_00008.pth",
    ]  # fmt: skip


def test_step_checkpoints(tmp_path):
    s = spec(train__num_epochs=2, train__checkpoint_interval=3, train__checkpoint_interval_unit="step")
    make_loop(tmp_path, s).run()
    assert sorted(p.name for p in tmp_path.glob("model_epoch_*.pth")) == [
        "model_epoch_000_step_00003.pth", "model_epoch_001_step_00006.pth", "model_epoch_001_step_00008.pth",
    ]  # fmt: skip


def test_status_rows_carry_the_rates_of_the_formula(tmp_path):
    loop = make_loop(tmp_path)
    loop.run()
    rows = [facts for event, facts in loop.events if event == "step"]
    assert len(rows) == 2 * STEPS
    for i, row in enumerate(rows):
        assert row["kpi"]["trunk_base_lr"] == pytest.approx(1e-2 * loop.schedule.factor(*divmod(i, STEPS)))
        assert row["max_step"] == 2 * STEPS and row["eta"] >= 0


def test_a_seed_of_minus_one_is_the_checkpoints_on_resuming():
    fabric = SimpleNamespace(broadcast=lambda x: x)
    s, checkpoint = spec(train__seed=-1), ResumeCheckpoint({"training": {"identity": {"seed": 77}}})
    assert choose_seed(s, ResumeCheckpoint(None), fabric) >= 0
    assert choose_seed(s, checkpoint, fabric) == 77
    s.train.seed = 5
    assert choose_seed(s, checkpoint, fabric) == 77
    s.is_set = lambda path: path == "train.seed"
    assert choose_seed(s, checkpoint, fabric) == 5  # load_checkpoint then says that the two differ


def test_a_checkpoint_that_was_taken_is_released():
    tensor = torch.zeros(3)
    left, checkpoint = weakref.ref(tensor), ResumeCheckpoint({"model": {"w": tensor}})
    del tensor
    assert checkpoint and checkpoint.take()["model"]["w"] is left()
    assert not checkpoint and checkpoint.seed is None
    gc.collect()
    assert left() is None


@pytest.mark.parametrize("ranked", [True, False])
def test_the_ranking_of_the_card_is_that_of_the_best_weights(tmp_path, ranked):
    loop = make_loop(tmp_path, spec(train__num_epochs=4))
    history = loop.run()
    seen = []

    class Validation:
        validator, latest = object(), ("made again", "new vectors")
        rankings = {1: ("of epoch 1", "its vectors")} if ranked else {3: ("of epoch 3", "others")}

        def __call__(self, embedder):
            seen.append(weights(loop))
            return {"val Precision at Rank 1": 0.7}

    setup = SimpleNamespace(
        run=SimpleNamespace(dir=tmp_path), fabric=SimpleNamespace(broadcast=lambda x: x), sets=None, facts=None,
        embedder=loop.embedder,
    )  # fmt: skip
    result = _collect_result(setup, loop.checkpoint_manager, history, Validation(), None)
    assert result.best_epoch == 1 and result.best["val Precision at Rank 1"] == 0.7
    assert result.ranking == ("of epoch 1" if ranked else "made again")
    assert result.embeddings == ("its vectors" if ranked else "new vectors")
    assert len(seen) == (not ranked)
    for at_validation in seen:
        assert_equal(at_validation, read_checkpoint(tmp_path / BEST_CHECKPOINT)["model"])


@pytest.mark.parametrize("there, count", [
    ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4"}, 4),
    ({"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"}, 4),
    ({"SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "0"}, None),
    ({"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_NAME": "bash"}, None),
])  # fmt: skip
def test_processes_of_a_launcher(monkeypatch, there, count):
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_ID", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    assert launched_processes(2) == count


def test_a_launcher_must_agree_with_num_gpus():
    s = spec()
    assert _gpu_count(s, None) == 1 and _gpu_count(s, 4) == 4
    s.is_set = lambda path: path == "train.num_gpus"
    with pytest.raises(DeviceError, match="train.num_gpus"):
        _gpu_count(s, 4)


@pytest.mark.parametrize("fast, wanted", [(True, "bf16-mixed"), (False, "32-true")])
def test_d13_the_precision_that_was_settled_is_the_one_that_trains(monkeypatch, fast, wanted):
    """Settled after Fabric was made, it was announced and never used: fp32 trained on a machine with bf16 units."""

    class Made(Exception):
        pass

    def stopped(spec):
        raise Made(str(make_fabric(spec).strategy.precision.precision), spec.train.precision)

    for module in ("recipe", "devices"):
        monkeypatch.setattr(f"unalike.training.{module}.fast_bf16", lambda cuda: fast)
    monkeypatch.setattr("unalike.training.trainer.make_fabric", stopped)
    spec = load_spec("train", {"model": {"backbone": "resnet18"}, "train": {"recipe": "unalike"}})
    with pytest.raises(Made) as caught:
        train_embedder(spec, None)
    assert caught.value.args == (wanted, "bf16" if fast else "fp32")


def test_a_checkpoint_of_tao_is_continued_after_its_epoch(tmp_path, capsys):
    theirs = TinyEmbedder(seed=3).state_dict()
    loop = make_loop(tmp_path)
    loop.load_checkpoint({"model": theirs, "origin": "TAO", "epoch": 0, "step": 80})
    assert all(torch.equal(value, theirs[key]) for key, value in loop.embedder.state_dict().items())
    assert (loop.position.epoch, loop.position.step, loop.position.global_step) == (1, 0, STEPS)
    assert "optimizer's averages start anew" in capsys.readouterr().err

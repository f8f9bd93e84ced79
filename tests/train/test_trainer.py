"""The training loop: it learns, stops, repeats, weighs rows, and survives a loss that is not finite."""

import copy
import math

import numpy as np
import pytest
import torch

from attfm.config import ModelConfig, TrainConfig
from attfm.data.batch import Batch
from attfm.data.dataset import Examples, InMemoryDataset, Statistics
from attfm.errors import ConfigError, TrainingError
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Binary, Multiclass, Regression, Task
from attfm.train import trainer
from attfm.train.losses import mean_loss as mean_loss_of
from attfm.train.losses import scored
from attfm.train.observer import Epoch, Observer
from attfm.train.trainer import History, Trainer, TrainingData, silence_unseen, start_at_base_rate

BINARY, REGRESSION = Binary("y", (0, 1)), Regression("y")


def data(
    examples: Examples, valid: Examples | None = None, *, task: Task = BINARY, neighbours: object = ()
) -> TrainingData:
    held_out = None if valid is None else InMemoryDataset(valid)
    return TrainingData(task, InMemoryDataset(examples), held_out, np.asarray(neighbours, np.int64))


def mean_loss(module: FactorizationMachine, examples: Examples, task: Task = BINARY) -> float:
    return mean_loss_of(task, *scored(module, InMemoryDataset(examples)))


class Watch(Observer):
    """Keeps the state of each epoch's module, and asks to stop after some."""

    def __init__(self, epochs: int = 1000) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []
        self.rows = 0
        self._epochs = epochs

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        self.seen.append(copy.deepcopy(module.state_dict()))
        return len(self.seen) >= self._epochs

    def on_batch(self, rows: int) -> None:
        self.rows += rows


def xor_examples(rows: int = 256, seed: int = 0) -> Examples:
    """Two fields of two values whose label is their exclusive or: no main effect, one pair effect."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 2, (rows, 2), generator=generator)
    return Examples(Batch((bits + torch.tensor([0, 2])).int()), bits[:, 0] ^ bits[:, 1], torch.ones(rows))


def build(outputs: int = 1, features: int = 4, fields: int = 2, **settings: object) -> FactorizationMachine:
    torch.manual_seed(3)
    return FactorizationMachine(features, fields, outputs, ModelConfig.parse({"dim": 4, **settings}))


def run(
    module: FactorizationMachine, examples: Examples, valid: Examples | None = None, *, task: Task = BINARY,
    neighbours: object = (), observer: Observer | None = None, **settings: object,
) -> History:  # fmt: skip
    usual = {"epochs": 30, "learning_rate": 0.02, "embedding_decay": 0, "linear_decay": 0, "batch_size": 32}
    config = TrainConfig.parse(usual | settings)
    return Trainer(module, data(examples, valid, task=task, neighbours=neighbours), config, observer).run()


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad"])
def test_it_learns_a_pure_interaction(optimizer: str) -> None:
    module, rate = build(embedding_std=0.5), {"adam": 0.02, "sgd": 0.3, "adagrad": 0.1}[optimizer]
    assert mean_loss(module, xor_examples(seed=1)) > 0.5
    run(module, xor_examples(), optimizer=optimizer, learning_rate=rate, epochs=60)
    assert mean_loss(module, xor_examples(seed=1)) < 0.1


def test_linear_can_not_learn_an_interaction() -> None:
    module = build(preset="linear")
    run(module, xor_examples())
    assert mean_loss(module, xor_examples()) > 0.65


def test_equal_seeds_repeat_bit_for_bit_and_others_do_not() -> None:
    states = []
    for seed in (1, 1, 2):
        module = build()
        run(module, xor_examples(), epochs=3, seed=seed)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_the_best_epoch_is_restored_and_training_stops() -> None:
    generator = torch.Generator().manual_seed(5)
    noise = Examples(xor_examples(64).rows, torch.randint(0, 2, (64,), generator=generator), torch.ones(64))
    valid = xor_examples(64, seed=7)
    module, watch = build(embedding_std=1.0), Watch()
    settings = {"epochs": 50, "learning_rate": 0.1, "patience": 4, "batch_size": 16, "linear_decay": 0.1}
    history = run(module, noise, valid, observer=watch, **settings)
    seen = watch.seen
    losses = [epoch.valid_loss for epoch in history.epochs]
    assert history.best_epoch == 1 + losses.index(min(losses))  # type: ignore[type-var]
    assert len(history.epochs) == history.best_epoch + 4 < 50
    assert mean_loss(module, valid) == pytest.approx(min(losses))  # type: ignore[type-var]
    assert all(torch.equal(module.state_dict()[k], v) for k, v in seen[history.best_epoch - 1].items())


def test_without_early_stopping_the_last_epoch_is_kept() -> None:
    module = build()
    history = run(module, xor_examples(), xor_examples(64, seed=7), early_stopping=False, epochs=5)
    assert (history.best_epoch, len(history.epochs)) == (5, 5)


def test_a_row_of_weight_two_is_two_rows_and_a_row_of_weight_zero_is_none() -> None:
    base = xor_examples(48)
    weight = torch.arange(48) % 3
    twice = torch.repeat_interleave(torch.arange(48), weight)
    repeated = Examples(base.rows.take(twice), base.target[twice], torch.ones(len(twice)))
    weighted = Examples(base.rows, base.target, weight.float())
    losses = []
    for examples in (weighted, repeated, base):
        module = build(weight_dropout=0.0).double()
        run(module, examples, epochs=5, learning_rate=0.05, batch_size=1000, linear_decay=0.1)
        losses.append(mean_loss(module, xor_examples(seed=2)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # Adam's epsilon sees gradients of another scale
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)
    assert mean_loss(module, weighted) == pytest.approx(mean_loss(module, repeated))


def test_weights_in_another_unit_change_nothing() -> None:
    base, states = xor_examples(64), []
    for unit in (1.0, 1024.0):
        module = build()
        run(module, Examples(base.rows, base.target, base.weight * unit), epochs=3)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("rate", [1e30, float(np.finfo(np.float32).max)])
def test_a_loss_that_is_not_finite_names_the_epoch_and_keeps_the_last_good_parameters(rate: float) -> None:
    base = xor_examples(64)
    module = build()
    start = copy.deepcopy(module.state_dict())
    examples = Examples(base.rows, base.target.float(), base.weight)
    with pytest.raises(TrainingError, match=r"loss became (nan|inf) in epoch 1.*epoch 0 were kept.*learning_rate"):
        run(module, examples, task=REGRESSION, optimizer="sgd", learning_rate=rate)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in start.items())


def test_regression_predicts_in_the_unit_of_the_target() -> None:
    base = xor_examples()
    values = 1000.0 + 50.0 * base.target
    examples = Examples(base.rows, values.float(), base.weight)
    module = build(embedding_std=0.5, weight_dropout=0.0)
    start_at_base_rate(module, Statistics.of(examples), REGRESSION)
    assert mean_loss(module, examples, REGRESSION) == pytest.approx(625, rel=0.2)
    run(module, examples, task=REGRESSION, epochs=60, embedding_ridge=0.0)
    assert mean_loss(module, examples, REGRESSION) < 5


def test_multiclass_learns_three_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 3, (300, 2), generator=generator)
    examples = Examples(Batch((ids + torch.tensor([0, 3])).int()), ids.sum(1) % 3, torch.ones(300))
    module = build(outputs=3, features=6)
    task = Multiclass("y", (0, 1, 2))
    start_at_base_rate(module, Statistics.of(examples), task)
    run(module, examples, task=task, epochs=80)
    assert mean_loss(module, examples, task) < 0.15


@pytest.mark.parametrize("task", [BINARY, Multiclass("y", (0, 1))])
def test_training_starts_at_the_weighted_base_rate(task: Task) -> None:
    module = build(outputs=len(task.outputs), preset="linear")
    examples = Examples(xor_examples(4).rows, torch.tensor([0, 0, 0, 1]), torch.tensor([1.0, 1.0, 1.0, 6.0]))
    start_at_base_rate(module, Statistics.of(examples), task)
    logits = module.intercept.detach()
    share = torch.sigmoid(logits[0]) if len(logits) == 1 else torch.softmax(logits, 0)[1]
    assert float(share) == pytest.approx(2 / 3)


def test_features_that_no_training_row_has_add_nothing() -> None:
    module = build(features=6)
    silence_unseen(module, Statistics.of(xor_examples()))
    assert module.embedding.weight[4:].abs().max() == 0
    assert module.embedding.weight[:4].abs().min() > 0


def test_smoothness_pulls_neighbouring_bins_together() -> None:
    generator = torch.Generator().manual_seed(0)
    bins = torch.randint(0, 40, (400, 1), generator=generator)
    target = (bins[:, 0] + torch.randint(-20, 20, (400,), generator=generator) > 20).long()
    examples = Examples(Batch(bins.int()), target, torch.ones(400))
    rough = []
    for smoothness in (0.0, 400.0):
        module = build(features=40, fields=1, preset="linear")
        run(module, examples, smoothness=smoothness, neighbours=np.arange(39))
        rough.append(float(module.linear.weight.detach().diff(dim=0).pow(2).sum()))
    assert rough[1] < 0.05 * rough[0]


def test_decay_and_attention_penalty_shrink_what_they_name() -> None:
    def norms(**settings: object) -> dict[str, float]:
        module = build(embedding_std=0.5)
        run(module, xor_examples(), epochs=10, **settings)
        return {name: float(p.detach().norm()) for name, p in module.named_parameters()}

    free = norms()
    assert norms(embedding_decay=20.0)["embedding.weight"] < 0.5 * free["embedding.weight"]
    assert norms(linear_decay=50.0)["linear.weight"] < 0.8 * free["linear.weight"]
    assert norms(attention_l2=10.0)["attention.W"] < 0.3 * free["attention.W"]


def test_cuda_is_refused_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ConfigError, match=r"'device' is 'cuda'.*use 'auto' or 'cpu'"):
        run(build(), xor_examples(), device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu_learns_the_same_interaction() -> None:
    module = build(embedding_std=0.5)
    run(module, xor_examples(), device="cuda", epochs=60)
    assert next(module.parameters()).device.type == "cpu"
    assert mean_loss(module, xor_examples(seed=1)) < 0.1
    assert math.isfinite(mean_loss(module, xor_examples()))


def test_decay_falls_on_the_features_of_the_batch_only() -> None:
    module = build(features=8, preset="linear")
    torch.nn.init.ones_(module.linear.weight)
    run(module, xor_examples(), epochs=5, linear_decay=5.0, linear_ridge=0.0, averaging=0)
    weight = module.linear.weight.detach()[:, 0]
    assert torch.equal(weight[4:], torch.ones(4))  # no row has them
    assert float(weight[:4].abs().max()) < 0.7


def test_the_kept_parameters_are_an_average_over_the_last_steps() -> None:
    generator = torch.Generator().manual_seed(5)
    noise = Examples(xor_examples(128).rows, torch.randint(0, 2, (128,), generator=generator), torch.ones(128))

    def path(averaging: float) -> torch.Tensor:
        watch = Watch()
        settings = {"learning_rate": 0.05, "averaging": averaging, "linear_decay": 0.1, "batch_size": 8}
        settings |= {"embedding_decay": 3.0, "embedding_ridge": 0.0, "adam_eps": 1e-8}
        run(build(weight_dropout=0.0), noise, observer=watch, **settings)
        return torch.stack([state["embedding.weight"].flatten() for state in watch.seen])

    free, steady = path(0.0), path(10.0)
    # What the ends of the epochs alone say of an exponential average over 10 epochs.
    last = torch.arange(10, len(free))
    weights = torch.exp(-(last[:, None] - torch.arange(len(free))).clamp(min=0) / 10)
    weights[last[:, None] < torch.arange(len(free))] = 0
    expected = weights @ free / weights.sum(1, keepdim=True)
    distances = [float((each[10:] - expected).norm(dim=1).sum()) for each in (steady, free)]
    assert distances[0] < 0.85 * distances[1]
    assert float(steady.diff(dim=0)[10:].norm()) < 0.6 * float(free.diff(dim=0)[10:].norm())


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad"])
def test_training_goes_on_from_its_state_bit_for_bit(
    optimizer: str, lazy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "is_lazy", lambda *_: lazy)
    valid = xor_examples(64, seed=7)
    config = TrainConfig.parse(
        {"epochs": 6, "learning_rate": 0.1, "batch_size": 32, "patience": 2, "optimizer": optimizer, "averaging": 0.7}
    )

    def trainer_of() -> Trainer:
        return Trainer(build(embedding_std=0.5), data(xor_examples(128), valid, neighbours=[0, 2]), config)

    whole, first, second = trainer_of(), trainer_of(), trainer_of()
    for _ in range(3):
        whole.run_epoch()
        first.run_epoch()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    first.run_epoch()  # what happens to the first is nothing to the second
    histories = [each.run() for each in (whole, second)]
    assert [epoch.train_loss for epoch in histories[0].epochs] == [epoch.train_loss for epoch in histories[1].epochs]
    assert (histories[0].best_epoch, histories[0].stopped) == (histories[1].best_epoch, histories[1].stopped)
    states = [each.module.state_dict() for each in (whole, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], value) for name, value in build(embedding_std=0.5).state_dict().items())


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad"])
def test_a_falling_rate_is_whole_in_the_first_half_and_0_in_the_end(
    optimizer: str, lazy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "is_lazy", lambda *_: lazy)

    class Steps(Observer):
        def __init__(self) -> None:
            self.seen: list[torch.Tensor] = []

        def on_step(self, trainer: Trainer) -> None:
            self.seen.append(torch.cat([p.detach().flatten() for p in trainer.module.parameters()]))

    def path(**settings: object) -> list[torch.Tensor]:
        steps = Steps()
        usual = {"learning_rate": 0.05, "batch_size": 25, "epochs": 4, "embedding_decay": 0.1}
        run(build(embedding_std=0.5), xor_examples(200), observer=steps, optimizer=optimizer, **usual | settings)
        return steps.seen

    steady, falling = path(), path(falling_rate=True)
    half = len(steady) // 2
    assert all(torch.equal(*pair) for pair in zip(steady[:half], falling[:half], strict=True))
    assert torch.equal(falling[-1], falling[-2])  # the last step has no length
    length = [float((each[-2] - each[-3]).norm()) for each in (falling, steady)]
    assert 0 < length[0] < length[1] / 4


def test_the_rate_of_an_epoch_that_was_gone_on_with_counts_the_rows_since_then() -> None:
    states = []

    class Third(Observer):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.place == (0, 3):
                states.append(trainer.state_dict())

    config = TrainConfig(epochs=1, batch_size=32)
    Trainer(build(), data(xor_examples(256)), config, Third()).run()
    again = Trainer(build(), data(xor_examples(256)), config)
    again.load_state_dict(states[0])
    (epoch,) = again.run().epochs
    assert epoch.rows == 256
    assert epoch.rows_per_second * epoch.seconds == pytest.approx(256 - 3 * 32)


def test_an_observer_sees_all_rows_and_may_ask_to_stop() -> None:
    watch = Watch(epochs=2)
    history = run(build(), xor_examples(100), observer=watch)
    assert (len(history.epochs), history.stopped, watch.rows) == (2, "stopped on request", 200)


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(build_alone(), xor_examples(64), epochs=2)
    assert torch.equal(torch.rand(3), expected)


def build_alone() -> FactorizationMachine:
    state = torch.get_rng_state()
    module = build()
    torch.set_rng_state(state)
    return module

"""The keys that somebody means who typed another one."""

import pytest

from neuroada.config.closest_keys import closest, leaves

KEYS = [
    *("model", "model.name", "data", "data.batch_size", "data.dir", "budget.top_k", "method.learning_rate"),
    *("optimizer", "optimizer.lr", "optimizer.weight_decay", "trainer.max_epochs", "trainer.max_steps"),
    *("trainer.devices", "evaluation.batch_size", "callbacks.learning_rate", "seed"),
]


@pytest.mark.parametrize(
    ("word", "best"),
    [
        ("epochs", ["trainer.max_epochs"]),
        ("num_train_epochs", ["trainer.max_epochs"]),
        ("lr", ["optimizer.lr", "method.learning_rate"]),
        ("learning_rate", ["method.learning_rate"]),
        ("k", ["budget.top_k"]),
        ("batch_size", ["data.batch_size", "evaluation.batch_size"]),
        ("evaluation.batchsize", ["evaluation.batch_size"]),
        ("weight-decay", ["optimizer.weight_decay"]),
        ("gpus", ["trainer.devices"]),
        ("optimiser", ["optimizer"]),
        ("models", ["model"]),
        ("sed", ["seed"]),
        ("qqq", []),
    ],
)
def test_the_best_come_first(word: str, best: list[str]) -> None:
    assert closest(word, KEYS)[: max(1, len(best))] == best


def test_groups_and_values_are_keys() -> None:
    assert list(leaves({"a": {"b": 1, "c": {}}, "d": None})) == ["a", "a.b", "a.c", "d"]

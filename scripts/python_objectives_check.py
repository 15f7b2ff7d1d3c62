"""Checks the objectives of examples/pytorch_objectives.py, in a training by the NumPy trainer, against
tests/fixtures/local_training.json, which has two rounds of SCAFFOLD and one of FedProx.

    python python_objectives_check.py
"""

import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import pytorch_objectives as objectives
import pytorch_training

TRUTH = json.loads((ROOT / "tests/fixtures/local_training.json").read_text())
SHAPES = {"weight": (2, 3), "bias": (2,)}


class Regression(pytorch_training.NumpyTrainer):
    """y = W x + b and the mean of the squared errors, as the fixture has it."""

    def gradients(self, inputs, targets):
        error = inputs @ self.values["weight"].T + self.values["bias"] - targets
        slope = 2 * error / targets.size
        return {"weight": slope.T @ inputs, "bias": slope.sum(0)}, float(np.mean(error**2)) * len(inputs), 0


class Examples:
    train = None

    def batch(self, split, indices, rng=None):
        inputs = np.array(TRUTH["x"], np.float32).reshape(6, 3)
        return inputs[indices], np.array(TRUTH["y"], np.float32).reshape(6, 2)[indices]


def model(values):
    return {name: np.array(values[name], np.float32).reshape(shape) for name, shape in SHAPES.items()}


def train(start, objective):
    trainer = Regression()
    trainer.load("regression", None, start)
    trainer.correct(objective, start)
    training = {"local_epochs": TRUTH["steps"], "batch_size": 6, "optimizer": "sgd", "lr": TRUTH["lr"]}
    training.update(momentum=0.0, weight_decay=0.0, augment=False)
    steps, _ = pytorch_training.train(trainer, Examples(), np.arange(6), training, np.random.default_rng(1), lambda: None)
    return trainer.parameters(), steps


def check(found, expected, what):
    for name, value in model(expected).items():
        difference = np.abs(found[name] - value).max() / np.abs(value).max()
        assert difference < 2e-6, (what, name, difference)


def main():
    start = model(TRUTH["start"])
    plain, _ = train(start, objectives.Plain())
    check(plain, TRUTH["sgd"], "plain")
    local, _ = train(start, objectives.objective_of({"objective": {"kind": "proximal", "mu": 0.5}}, {}, {}))
    check(local, TRUTH["proximal"], "proximal")

    states, task = objectives.States(), {"objective": {"kind": "scaffold"}}
    for number, expected in enumerate(TRUTH["scaffold"], 1):
        basis = number - 1 or None
        # A round that was abandoned in between: its state must not count.
        for attempt, counts in ((10 * number, False), (number, True)):
            state, lost = states.choose(7, basis)
            assert not lost
            objective = objectives.objective_of(task, {"control": model(expected["server"])}, state)
            local, steps = train(model(expected["start"]), objective)
            payloads, after = objective.end(model(expected["start"]), local, steps, TRUTH["lr"])
            states.prepare(7, attempt, after if counts else {"control": start})
        check(local, expected["model"], "scaffold")
        check(payloads["control"], expected["change"], "scaffold's change")
        check(after["control"], expected["own"], "scaffold's state")
    assert states.choose(7, 5) == ({}, True)
    print("the objectives of the Python worker are those of the fixtures")


main()

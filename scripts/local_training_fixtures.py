"""Writes tests/fixtures/local_training.json: what optimizers, clipping and objectives make of a small linear regression.

    python local_training_fixtures.py OUT

Independent of the crate: each rule is written down from its definition (PyTorch's documentation, and the papers named below),
in NumPy and 64-bit floats. The Rust tests take this file as the truth.

The model is y = W x + b with three inputs and two outputs, and the loss is the mean of all squared errors. A step's batch is
all six examples, so that no order matters but for rounding.
"""

import json
import pathlib
import sys

import numpy as np

STEPS = 10
LR = 0.1


def f32(values):
    """The values that a program with 32-bit floats starts from."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


X = f32([[np.sin(1.0 + 3 * i + j) for j in range(3)] for i in range(6)])
Y = f32([[np.cos(2.0 + 2 * i + k) for k in range(2)] for i in range(6)])
START = {"weight": f32([[0.5, -0.25, 0.75], [-0.5, 0.125, 1.0]]), "bias": f32([0.25, -0.75])}


def loss(model):
    return np.mean((X @ model["weight"].T + model["bias"] - Y) ** 2)


def gradient(model):
    error = 2 * (X @ model["weight"].T + model["bias"] - Y) / Y.size
    return {"weight": error.T @ X, "bias": error.sum(axis=0)}


def each(function, *models):
    return {name: function(*(model[name] for model in models)) for name in models[0]}


def zeros():
    return each(np.zeros_like, START)


def train(start, rule, correct=lambda model, gradient: gradient, steps=STEPS):
    """`steps` steps; `rule` changes a model in place, given its gradient and the number of the step, from 1."""
    model = each(np.copy, start)
    for step in range(1, steps + 1):
        rule(model, correct(model, gradient(model)), step)
    return model


def sgd(momentum=0.0, weight_decay=0.0, nesterov=False, lr=LR):
    """torch.optim.SGD, as its documentation has it."""
    buffer = {}

    def rule(model, gradient, step):
        for name, parameter in model.items():
            g = gradient[name] + weight_decay * parameter
            if momentum:
                buffer[name] = g if step == 1 else momentum * buffer[name] + g
                g = g + momentum * buffer[name] if nesterov else buffer[name]
            parameter -= lr * g

    return rule


def adam(weight_decay, decoupled, lr=0.01, betas=(0.9, 0.999), eps=1e-8):
    """torch.optim.Adam and torch.optim.AdamW, as their documentation has them."""
    first, second = zeros(), zeros()

    def rule(model, gradient, step):
        for name, parameter in model.items():
            g = gradient[name]
            if decoupled:
                parameter -= lr * weight_decay * parameter
            else:
                g = g + weight_decay * parameter
            first[name] = betas[0] * first[name] + (1 - betas[0]) * g
            second[name] = betas[1] * second[name] + (1 - betas[1]) * g**2
            m = first[name] / (1 - betas[0] ** step)
            v = second[name] / (1 - betas[1] ** step)
            parameter -= lr * m / (np.sqrt(v) + eps)

    return rule


def clipped(most):
    """torch.nn.utils.clip_grad_norm_(parameters, most)."""

    def correct(model, gradient):
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        factor = min(1.0, most / (norm + 1e-6))
        return each(lambda g: g * factor, gradient)

    return correct


def proximal(anchor, mu):
    """FedProx (Li et al. 2020): the gradient of loss(w) + mu / 2 * |w - anchor|^2."""
    return lambda model, gradient: each(lambda g, w, a: g + mu * (w - a), gradient, model, anchor)


def way(momentum, steps=STEPS):
    """How far gradients of one lead, at a learning rate of one: the steps of plain SGD, and more with momentum."""
    velocity = found = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1
        found += velocity
    return found


def scaffold(first_server, second_server, momentum=0.0):
    """SCAFFOLD (Karimireddy et al. 2020), algorithm 1, option II: two rounds of one client. With momentum, the way takes the
    place of the number of steps."""
    rounds, own, x = [], zeros(), START
    for server in (first_server, second_server):
        y = train(x, sgd(momentum), lambda model, g: each(lambda g, c, c_i: g - c_i + c, g, server, own))
        new = each(lambda c_i, c, x, y: c_i - c + (x - y) / (way(momentum) * LR), own, server, x, y)
        change = each(lambda new, old: new - old, new, own)
        rounds.append({"server": server, "start": x, "model": y, "own": new, "change": change})
        # The next global model is another one than the client's, and far enough to have a gradient.
        own, x = new, each(lambda y: f32(-y), y)
    return rounds


def feddyn(alpha):
    """FedDyn (Acar et al. 2021), algorithm 1: two rounds of one client, which minimizes
    loss(w) - <g_i, w> + alpha / 2 * |w - w_t|^2."""
    rounds, own, x = [], zeros(), START
    for _ in range(2):
        y = train(x, sgd(), lambda model, g: each(lambda g, g_i, w, w_t: g - g_i + alpha * (w - w_t), g, own, model, x))
        own = each(lambda g_i, y, x: g_i - alpha * (y - x), own, y, x)
        rounds.append({"start": x, "model": y, "own": own})
        x = each(lambda y: f32(-y), y)
    return rounds


def smoothing(share):
    """torch.nn.CrossEntropyLoss(label_smoothing=share) of four examples in three classes, and its gradient."""
    logits = f32([[np.sin(2.0 * i + 3 * c) * 2 for c in range(3)] for i in range(4)])
    labels = [2, 0, 1, 1]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = (1 - share) * np.eye(3)[labels] + share / 3
    return {
        "share": share,
        "logits": logits,
        "labels": labels,
        "loss": -np.mean(np.sum(target * np.log(probabilities), axis=1)),
        "gradient": (probabilities - target) / len(labels),
    }


def plain(value):
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.ravel().tolist() if isinstance(value, np.ndarray) else value


def main():
    first_server = each(lambda w: f32(0.25 * np.cos(w)), START)
    second_server = each(lambda w: f32(0.5 * np.sin(w)), START)
    everything = {
        "x": X,
        "y": Y,
        "start": START,
        "steps": STEPS,
        "lr": LR,
        "loss_before": loss(START),
        "sgd": train(START, sgd()),
        "nesterov": train(START, sgd(momentum=0.9, weight_decay=0.01, nesterov=True)),
        "adam": train(START, adam(weight_decay=0.05, decoupled=False)),
        "adamw": train(START, adam(weight_decay=0.05, decoupled=True)),
        "clipped": train(START, sgd(momentum=0.9, weight_decay=0.01), clipped(0.5)),
        "proximal": train(START, sgd(), proximal(START, 0.5)),
        "proximal_clipped": train(
            START, sgd(), lambda model, g: clipped(0.5)(model, proximal(START, 2.0)(model, g))
        ),
        "scaffold": scaffold(first_server, second_server),
        "scaffold_momentum": scaffold(first_server, second_server, 0.9),
        "feddyn": feddyn(0.5),
        "smoothing": smoothing(0.1),
    }
    out = pathlib.Path(sys.argv[1]) / "local_training.json"
    out.write_text(json.dumps(plain(everything), indent=1) + "\n")


main()

"""Small rounds of every strategy, computed from the papers' formulas: the fixture that the strategies' tests compare with.

It shares no code with the crate. NumPy in f64; the crate keeps models and states in f32, so its tests allow 1e-6.

usage: python3 scripts/strategy_reference.py > tests/fixtures/strategies.json
"""

import json
import sys

import numpy as np

TRAINABLE, BUFFERS, CLIENTS, ROUNDS = 5, 2, 4, 4
LR, MOMENTUM = 0.05, 0.9


def draw(generator, size):
    """Values that f32 has exactly, so that both sides compute with the same."""
    return np.float64(np.float32(generator.uniform(-1, 1, size)))


class Case:
    """What a strategy is told in each round: which clients report what."""

    def __init__(self, seed):
        generator = np.random.default_rng(seed)
        self.initial = draw(generator, TRAINABLE + BUFFERS)
        # BatchNorm's variance is one of the buffers, and no variance is negative.
        self.initial[TRAINABLE:] = np.abs(self.initial[TRAINABLE:])
        self.examples = [30, 10, 60, 20]
        self.rounds = []
        for number in range(ROUNDS):
            reports = []
            for client in range(CLIENTS):
                # One client is left out of each round: sums over all and over the cohort differ.
                if client == number % CLIENTS:
                    continue
                delta = draw(generator, TRAINABLE + BUFFERS) / 4
                delta[TRAINABLE:] = np.abs(delta[TRAINABLE:])
                reports.append(
                    {
                        "client": client,
                        "examples": self.examples[client],
                        "steps": int(generator.integers(1, 20)),
                        "delta": delta,
                        "control": draw(generator, TRAINABLE) / 4,
                        "loss_before": float(generator.integers(1, 64)) / 16,
                    }
                )
            self.rounds.append(reports)


def by_examples(reports):
    weights = np.array([report["examples"] for report in reports], dtype=np.float64)
    return weights / weights.sum()


def alike(reports):
    return np.full(len(reports), 1 / len(reports))


def capped(cap):
    def weights(reports):
        found = np.array([min(report["examples"], cap) for report in reports], dtype=np.float64)
        return found / found.sum()

    return weights


def mean(reports, weights, of=slice(0, TRAINABLE)):
    return sum(weight * report["delta"][of] for weight, report in zip(weights, reports))


def rounds_of(case, weighting, step):
    """Runs all rounds: `step` makes the next trainable values of the present ones and the reports."""
    model = case.initial.copy()
    for reports in case.rounds:
        weights = weighting(reports)
        buffers = model[TRAINABLE:] + mean(reports, weights, slice(TRAINABLE, None))
        trainable = step(model[:TRAINABLE], reports, weights)
        model = np.concatenate([trainable, buffers])
        yield model


def sgd(lr):
    return lambda model, reports, weights: model + lr * mean(reports, weights)


def momentum(lr, beta):
    """FedAvgM, Hsu et al. 2019: v <- beta v + delta; w <- w + lr v."""
    v = np.zeros(TRAINABLE)

    def step(model, reports, weights):
        nonlocal v
        v = beta * v + mean(reports, weights)
        return model + lr * v

    return step


def nesterov(lr, beta):
    """torch.optim.SGD(nesterov=True) on the gradient -delta, as DiLoCo has it."""
    v = np.zeros(TRAINABLE)

    def step(model, reports, weights):
        nonlocal v
        gradient = -mean(reports, weights)
        v = beta * v + gradient
        return model - lr * (gradient + beta * v)

    return step


def adaptive(rule, lr, tau, beta1, beta2=None, initial_v=None):
    """Reddi et al. 2021, algorithm 2."""
    m = np.zeros(TRAINABLE)
    v = np.full(TRAINABLE, tau**2 if initial_v is None else initial_v)

    def step(model, reports, weights):
        nonlocal m, v
        delta = mean(reports, weights)
        m = beta1 * m + (1 - beta1) * delta
        if rule == "adagrad":
            v = v + delta**2
        elif rule == "yogi":
            v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
        else:
            v = beta2 * v + (1 - beta2) * delta**2
        return model + lr * m / (np.sqrt(v) + tau)

    return step


def scaffold(lr):
    """Karimireddy et al. 2020, algorithm 1, lines 16 and 17: x <- x + lr mean(dy), c <- c + 1/N sum(dc)."""
    c = np.zeros(TRAINABLE)

    def step(model, reports, weights):
        nonlocal c
        c = c + sum(report["control"] for report in reports) / CLIENTS
        step.control = c
        return model + lr * mean(reports, weights)

    return step


def feddyn(alpha):
    """Acar et al. 2021, algorithm 1: h <- h - alpha / m sum(theta_k - theta), theta <- mean(theta_k) - h / alpha."""
    h = np.zeros(TRAINABLE)

    def step(model, reports, weights):
        nonlocal h
        locals_ = [model + report["delta"][:TRAINABLE] for report in reports]
        h = h - alpha / CLIENTS * sum(local - model for local in locals_)
        return sum(locals_) / len(locals_) - h / alpha

    return step


def fednova(mu, rho, nesterov=False):
    """Wang et al. 2020: x <- x - tau_eff sum p_i lr d_i, with lr d_i = -delta_i / |a_i|. a_i is built step by step."""

    def norm(steps):
        # What each of the past gradients counts in where the client is: section 4 of the paper, as a recursion.
        counts, velocity = [], []
        for _ in range(steps):
            velocity = [rho * value for value in velocity] + [1.0]
            counts = [(1 - LR * mu) * value for value in counts] + [0.0]
            if nesterov:
                # The gradient of this step once more, as torch.optim.SGD has it.
                moved = [rho * value for value in velocity[:-1]] + [rho * velocity[-1] + 1.0]
            else:
                moved = velocity
            counts = [count + value for count, value in zip(counts, moved)]
        return sum(counts)

    def step(model, reports, weights):
        norms = [norm(report["steps"]) for report in reports]
        effective = sum(weight * value for weight, value in zip(weights, norms))
        normalized = [report["delta"][:TRAINABLE] / value for report, value in zip(reports, norms)]
        return model + effective * sum(weight * value for weight, value in zip(weights, normalized))

    return step


def qfedavg(q):
    """Li et al. 2020, algorithm 2, with L = 1 / lr."""

    def step(model, reports, weights):
        total, scale = np.zeros(TRAINABLE), 0.0
        for report in reports:
            local = model + report["delta"][:TRAINABLE]
            dw = (model - local) / LR
            loss = report["loss_before"]
            total = total + loss**q * dw
            scale += q * loss ** (q - 1) * np.sum(dw**2) + loss**q / LR
        return model - total / scale

    return step


def cases():
    plain = {"momentum": 0.0}
    yield "fedavg", {}, {}, by_examples, sgd(1.0)
    yield "fedavg", {"server_lr": 0.5}, {}, by_examples, sgd(0.5)
    yield "fedavg", {"weighting": "uniform"}, {}, alike, sgd(1.0)
    yield "fedavg", {"weighting": "capped", "cap": 25}, {}, capped(25), sgd(1.0)
    yield "fedavgm", {"server_lr": 0.5, "server_momentum": 0.8}, {}, by_examples, momentum(0.5, 0.8)
    yield "diloco", {}, {}, alike, nesterov(0.7, 0.9)
    yield "fedadagrad", {"server_lr": 0.1, "tau": 0.01}, {}, by_examples, adaptive("adagrad", 0.1, 0.01, 0.0)
    yield "fedadam", {"server_lr": 0.02}, {}, by_examples, adaptive("adam", 0.02, 1e-3, 0.9, 0.99)
    yield (
        "fedadam",
        {"server_lr": 0.02, "beta1": 0.5, "beta2": 0.9, "tau": 0.1, "initial_v": 0.0},
        {},
        by_examples,
        adaptive("adam", 0.02, 0.1, 0.5, 0.9, 0.0),
    )
    yield "fedyogi", {"server_lr": 0.02, "initial_v": 0.02}, {}, by_examples, adaptive("yogi", 0.02, 1e-3, 0.9, 0.99, 0.02)
    yield "fedprox", {"mu": 0.1}, {}, by_examples, sgd(1.0)
    yield "scaffold", {}, {}, alike, scaffold(1.0)
    yield "scaffold", {"weighting": "examples", "server_lr": 0.5}, {}, by_examples, scaffold(0.5)
    yield "feddyn", {"alpha": 0.1}, {}, alike, feddyn(0.1)
    yield "fednova", {}, plain, by_examples, fednova(0.0, 0.0)
    yield "fednova", {}, {}, by_examples, fednova(0.0, MOMENTUM)
    yield "fednova", {}, {"nesterov": True}, by_examples, fednova(0.0, MOMENTUM, True)
    yield "fednova", {"mu": 0.5}, plain, by_examples, fednova(0.5, 0.0)
    yield "qfedavg", {"q": 1.0}, {}, by_examples, qfedavg(1.0)
    yield "qfedavg", {"q": 0.0}, {}, by_examples, qfedavg(0.0)
    yield "qfedavg", {"q": 2.5}, {}, by_examples, qfedavg(2.5)


def numbers(values):
    return [float(value) for value in values]


def main():
    found = []
    for seed, (kind, settings, training, weighting, step) in enumerate(cases()):
        case = Case(seed)
        models = [numbers(model) for model in rounds_of(case, weighting, step)]
        rounds = []
        for reports, model in zip(case.rounds, models):
            plain = [
                {key: numbers(value) if isinstance(value, np.ndarray) else value for key, value in report.items()}
                for report in reports
            ]
            rounds.append({"reports": plain, "model": model})
        found.append(
            {
                "kind": kind,
                "settings": settings,
                "training": {"lr": LR, "momentum": MOMENTUM, **training},
                "examples": case.examples,
                "trainable": TRAINABLE,
                "initial": numbers(case.initial),
                "rounds": rounds,
                "control": numbers(step.control) if hasattr(step, "control") else None,
            }
        )
    json.dump(found, sys.stdout, indent=None, separators=(",", ":"))
    print()


main()

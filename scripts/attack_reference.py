"""What each attack sends, computed from the papers' formulas: the fixture that the attacks' tests compare with.

It shares no code with the crate. NumPy in f64; the crate keeps models in f32, so its tests allow 1e-6. What is drawn at random
(`gaussian`, the noise of `free_rider`, which images `backdoor` poisons) has no place here: the tests look at its distribution.

usage: python3 scripts/attack_reference.py > tests/fixtures/attacks.json
"""

import json
import sys
from statistics import NormalDist

import numpy as np

TRAINABLE, BUFFERS = 5, 2
PARTITION, BATCH, EPOCHS = 90, 16, 2


def draw(generator, *shape):
    """Multiples of 2^-12, whose sums f32 has exactly: both sides compute with the same."""
    return np.round(generator.uniform(-1, 1, shape) * 4096) / 4096


class Case:
    """A round as attackers see it."""

    def __init__(self, seed, clients, attackers, has_previous=True):
        generator = np.random.default_rng(seed)
        self.clients, self.attackers = clients, attackers
        self.globe = draw(generator, TRAINABLE + BUFFERS)
        self.previous = draw(generator, TRAINABLE + BUFFERS) if has_previous else None
        # Honest changes of all attackers; the first is the one whose report is computed.
        self.honest = draw(generator, attackers, TRAINABLE + BUFFERS) / 4
        self.examples, self.steps = PARTITION, EPOCHS * -(-PARTITION // BATCH)

    def sent(self, trainable):
        """Trainable tensors as the attack has them, and the honest client's statistics."""
        return np.concatenate([trainable, self.honest[0][TRAINABLE:]])


def sign_flip(case, scale=1.0):
    """Karimireddy et al. 2022, section 6: -g; Li et al. 2019: a multiple."""
    return case.sent(-scale * case.honest[0][:TRAINABLE])


def alie(case, z=None):
    """Baruch et al. 2019, algorithm 3."""
    n, m = case.clients, case.attackers
    if z is None:
        s = np.floor(n / 2 + 1) - m
        z = NormalDist().inv_cdf((n - m - s) / (n - m))
    return case.sent(np.mean(case.honest, axis=0)[:TRAINABLE] - z * np.std(case.honest, axis=0)[:TRAINABLE])


def ipm(case, epsilon=0.1):
    """Xie et al. 2019: -epsilon times the mean."""
    return case.sent(-epsilon * np.mean(case.honest, axis=0)[:TRAINABLE])


def backdoor(case, scale=None, **_):
    """Bagdasaryan et al. 2020, equation 3 with eta = 1: gamma (X - G), gamma = n / eta, shared by m attackers."""
    gamma = case.clients / case.attackers if scale is None else scale
    return case.sent(gamma * case.honest[0][:TRAINABLE])


def free_rider(case, scale=1.0, sigma=0.0):
    """Lin et al. 2019, delta weights: G_t - G_(t-1); in the first round, and with a scale of 0 (Fraboni et al. 2021): nothing."""
    last = np.zeros(TRAINABLE)
    if case.previous is not None:
        last = (case.globe - case.previous)[:TRAINABLE]
    # It trains nothing, so that its statistics do not move.
    return np.concatenate([scale * last, np.zeros(BUFFERS)])


def lazy(case, steps=1, claim=10.0):
    """No paper: an honest change, and a claim of `claim` times the steps and the examples, of no more than there are."""
    per_pass = -(-PARTITION // BATCH)
    trained = (steps // per_pass) * PARTITION + min((steps % per_pass) * BATCH, PARTITION)
    case.examples = min(int(claim * trained), PARTITION)
    case.steps = int(claim * steps)
    return case.honest[0]


def updates():
    yield sign_flip, {}, (15, 3)
    yield sign_flip, {"scale": 4.0}, (15, 3)
    yield alie, {}, (50, 24)
    yield alie, {}, (15, 6)
    yield alie, {}, (20, 5)
    yield alie, {"z": 1.5}, (15, 3)
    yield ipm, {}, (15, 3)
    yield ipm, {"epsilon": 5.0}, (15, 4)
    yield backdoor, {}, (15, 3)
    yield backdoor, {"scale": 2.5, "target": 1.0}, (15, 3)
    yield free_rider, {"sigma": 0.0}, (15, 3)
    yield free_rider, {"sigma": 0.0, "scale": 0.5}, (15, 3)
    yield free_rider, {"sigma": 0.0}, (15, 3, False)
    yield lazy, {}, (15, 3)
    yield lazy, {"steps": 2.0, "claim": 2.0}, (15, 3)


def images(seed, count, channels, height, width, classes, most):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, most, (count, channels, height, width))
    return pixels, generator.integers(0, classes, count)


def with_trigger(pixels, size, most):
    """Gu et al. 2017: a bright square in the lower right corner."""
    stamped = pixels.copy()
    stamped[:, :, -size:, -size:] = most
    return stamped


def data():
    """Poisoned datasets. All images have the trigger: which ones have it else is drawn."""
    most, classes, shape = 16, 7, (2, 4, 5)
    train, labels = images(1, 12, *shape, classes, most)
    test, wanted = images(2, 9, *shape, classes, most)
    target, size = 3, 2
    others = wanted != target
    return {
        "shape": shape,
        "classes": classes,
        "max": most,
        "train": train.ravel(),
        "labels": labels,
        "test": test.ravel(),
        "test_labels": wanted,
        "flipped": classes - 1 - labels,
        "target": target,
        "size": size,
        "triggered": with_trigger(train, size, most).ravel(),
        "goal": with_trigger(test[others], size, most).ravel(),
        "goal_labels": np.full(others.sum(), target),
    }


def plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value


def main():
    found = []
    for seed, (attack, settings, round_) in enumerate(updates()):
        case = Case(seed, *round_)
        whole = {key: int(value) if key == "steps" else value for key, value in settings.items()}
        delta = attack(case, **whole)
        found.append(
            {
                "kind": attack.__name__,
                "settings": settings,
                "clients": case.clients,
                "attackers": case.attackers,
                "trainable": TRAINABLE,
                "training": {"local_epochs": EPOCHS, "batch_size": BATCH},
                "partition": PARTITION,
                "global": plain(case.globe),
                "previous": plain(case.previous),
                "honest": plain(case.honest),
                "delta": plain(delta),
                "examples": case.examples,
                "steps": case.steps,
            }
        )
    whole = {key: plain(value) for key, value in data().items()}
    json.dump({"updates": found, "data": whole}, sys.stdout, separators=(",", ":"))
    print()


main()

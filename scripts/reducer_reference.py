"""Small rounds of every robust aggregation rule, from the papers' formulas: what the reducers' tests compare with.

It shares no code with the crate. NumPy in f64. `reducer_loops.py` computes each round a second time, slowly and
exactly, and both must agree within 1e-12 of the largest value. No two scores are close: they are equal, or at least
1e-4 apart, so that an implementation may sum in another order. `reducer_cases.py` has the rounds.

usage: python3 scripts/reducer_reference.py > tests/fixtures/reducers.json
"""

import json
import sys
from fractions import Fraction

import numpy as np

import reducer_loops
from reducer_cases import DEFAULTS, cases

CLOSE, APART = 1e-12, 1e-4


def weighted_mean(x, w):
    return w @ x / w.sum()


def median(x, w, settings, state):
    """The two middle ones' mean for an even number of reports. Weights don't count."""
    return np.median(x, axis=0), None, None


def trimmed_mean(x, w, settings, state):
    """Yin et al. 2018, with f in the place of beta n."""
    f = settings["f"]
    return np.sort(x, axis=0)[f : len(x) - f].mean(axis=0), None, None


def squared_distances(x):
    return ((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=2)


def scores(squared, neighbours):
    """Each report's sum of the squared distances to its nearest others."""
    others = squared + np.diag(np.full(len(squared), np.inf))
    return np.sort(others, axis=1)[:, : min(neighbours, len(squared) - 1)].sum(axis=1)


def krum(x, w, settings, state):
    """Blanchard et al. 2017: n - f - 2 neighbours; of equal scores, the lowest client."""
    best = int(np.argmin(scores(squared_distances(x), len(x) - settings["f"] - 2)))
    return x[best], [best], None


def multi_krum(x, w, settings, state):
    """Blanchard et al. 2017, but weighted."""
    n, f = len(x), settings["f"]
    order = np.argsort(scores(squared_distances(x), n - f - 2), kind="stable")
    chosen = np.sort(order[: settings.get("select", n - f)])
    return weighted_mean(x[chosen], w[chosen]), chosen.tolist(), None


def bulyan(x, w, settings, state):
    """El Mhamdi et al. 2018, over Krum, with the middle ones' mean as the median of an even number."""
    n, f = len(x), settings["f"]
    squared, left, picked = squared_distances(x), np.arange(n), []
    for _ in range(n - 2 * f):
        among = squared[np.ix_(left, left)]
        best = int(np.argmin(scores(among, max(1, len(left) - f - 2))))
        picked.append(int(left[best]))
        left = np.delete(left, best)
    picked.sort()
    ordered = np.sort(x[picked], axis=0)
    distance = np.abs(ordered - np.median(ordered, axis=0))
    width = len(picked) - 2 * f
    starts = range(len(picked) - width + 1)
    sums = np.stack([distance[start : start + width].sum(axis=0) for start in starts])
    means = np.stack([ordered[start : start + width].mean(axis=0) for start in starts])
    # argmin takes the first of equal sums: the lower window.
    return means[sums.argmin(axis=0), np.arange(x.shape[1])], picked, None


def weiszfeld(x, w, share, nu, iterations, tolerance):
    """The smoothed Weiszfeld algorithm of Pillutla et al. 2022, from a mean with these shares on, until they change little."""
    z = share @ x
    for _ in range(iterations):
        beta = w / np.maximum(nu, np.linalg.norm(z - x, axis=1))
        before, share = share, beta / beta.sum()
        z = share @ x
        if np.max(np.abs(share - before) / share) <= tolerance:
            break
    return z


def middle_start(x, w, nu):
    """The shares of a mean around the reports with most of the weight close to them."""
    distances = np.sqrt(squared_distances(x))
    order = np.argsort(distances, axis=1, kind="stable")
    within = np.cumsum(w[order], axis=1) > w.sum() / 2
    radii = np.array([distances[i][order[i]][within[i]][0] for i in range(len(x))])
    near = np.flatnonzero(radii == radii.min())
    share = sum(w / np.maximum(max(nu, radii.min()), distances[i]) for i in near)
    return share / share.sum()


def geometric_median(x, w, settings, state):
    """Pillutla et al. 2022, but from another start, and until the shares change little."""
    nu = settings["nu"]
    start = middle_start(x, w, nu)
    return weiszfeld(x, w, start, nu, settings["iterations"], settings["tolerance"]), None, None


def clipped(x, limit):
    """x min(1, limit / |x|) of each row; a row of norm 0 stays 0."""
    norms = np.linalg.norm(x, axis=1)
    return x * np.divide(limit, norms, out=np.ones_like(norms), where=norms > limit)[:, None]


def norm_clipping(x, w, settings, state):
    """To a fixed norm c, or to a multiple of the reports' median norm."""
    limit = settings["c"] if "c" in settings else settings["multiplier"] * np.median(np.linalg.norm(x, axis=1))
    return weighted_mean(clipped(x, limit), w), None, None


def centered_clipping(x, w, settings, state):
    """Karimireddy et al. 2021, but weighted: equal weights are the paper's."""
    v = state["center"] if state else np.zeros(x.shape[1])
    for _ in range(settings["iterations"]):
        v = v + weighted_mean(clipped(x - v, settings["tau"]), w)
    return v, None, {"center": v}


def zeroing(x, w, settings, state):
    """TensorFlow Federated's adaptive zeroing, but what is left out has no weight. The estimate: Andrew et al. 2021."""
    estimate = state["estimate"] if state else settings["initial"]
    norms = np.linalg.norm(x, ord=2 if settings["norm"] == "l2" else np.inf, axis=1)
    threshold = settings["multiplier"] * estimate + settings["increment"]
    kept = np.flatnonzero(norms <= threshold)
    step = (norms <= estimate).mean() - settings["quantile"]
    state = {"threshold": threshold, "estimate": estimate * np.exp(-settings["rate"] * step)}
    return weighted_mean(x[kept], w[kept]), kept.tolist(), state


RULES = {
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "bulyan": bulyan,
    "geometric_median": geometric_median,
    "norm_clipping": norm_clipping,
    "centered_clipping": centered_clipping,
    "zeroing": zeroing,
}


def plain(value):
    """Numbers and lists of numbers, as JSON has them."""
    return value.tolist() if isinstance(value, np.ndarray) else float(value)


def agree(found, exact, what):
    found, exact = np.atleast_1d(found), np.atleast_1d(np.array(exact, dtype=np.float64))
    distance = np.abs(found - exact).max()
    assert distance <= CLOSE * max(1.0, np.abs(exact).max()), f"{what}: {distance} apart"


def compute(case):
    """The case's rounds with what comes out of each, computed twice."""
    state = slow_state = None
    rounds = []
    for number, (weights, reports) in enumerate(case["rounds"], 1):
        what = f"{case['rule']}, {case['about']}, round {number}"
        x, w = np.array(reports, dtype=np.float64), np.array(weights, dtype=np.float64)
        assert np.all(np.float32(x) == x) and np.all(w > 0), what
        update, selected, state = RULES[case["rule"]](x, w, case["settings"], state)
        reducer_loops.margins.clear()
        rows = [[Fraction(value) for value in row] for row in reports]
        exact = [Fraction(value) for value in weights]
        slow = reducer_loops.RULES[case["rule"]](rows, exact, case["settings"], slow_state)
        slow_update, slow_selected, slow_state = slow
        agree(update, slow_update, what)
        assert selected == slow_selected, f"{what}: {selected} and {slow_selected}"
        for apart in reducer_loops.margins:
            assert apart == 0 or apart > APART, f"{what}: two scores are only {apart} apart"
        for name, value in (state or {}).items():
            agree(value, slow_state[name], f"{what}, {name}")
        if case["published"] is not None:
            assert np.allclose(update, case["published"], rtol=0, atol=1e-6), f"{what}: {update}"
        found = {"weights": weights, "reports": reports, "update": plain(update), "selected": selected}
        found["state"] = {name: plain(value) for name, value in state.items()} if state else None
        rounds.append(found)
    return rounds


def check_peers():
    """Two values of other projects' tests that don't fit a case."""
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    # ByzFL's geometric median starts from zero instead of the mean.
    found = weiszfeld(x, np.full(3, 1 / 3), np.zeros(3), 0.1, 3, 0.0)
    assert np.allclose(found, [3.78788764, 4.78788764, 5.78788764], rtol=0, atol=1e-8), found
    # TensorFlow Federated's test_adaptation: two records above the estimate.
    settings = DEFAULTS["zeroing"] | {"initial": 3.14159, "quantile": 0.61803, "rate": 2.71828}
    _, _, state = zeroing(np.array([[4.14159], [5.14159]]), np.ones(2), settings, None)
    assert np.isclose(state["estimate"], 3.14159 * np.exp(2.71828 * 0.61803), rtol=1e-12), state


def main():
    check_peers()
    found = []
    for case in cases():
        rounds = compute(case)
        found.append({key: case[key] for key in ("rule", "settings", "about", "source")} | {"rounds": rounds})
    lines = ",\n".join(json.dumps(case, separators=(",", ":"), allow_nan=False) for case in found)
    sys.stdout.write('{"defaults":' + json.dumps(DEFAULTS, separators=(",", ":")) + ',\n"cases":[\n' + lines + "\n]}\n")


main()

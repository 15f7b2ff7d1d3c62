"""The rounds that `reducer_reference.py` computes: who reports what, with which weight.

Random values are rounded to f32, so that every side computes with the same. Attackers are honest reports times 1e6 or
-1e6, or all the same far report. Weights are whole numbers, as numbers of examples are.
"""

import math

import numpy as np

# What a rule does if a job names no settings. `f`, `c` and `tau` have no default; `select` is n - f.
DEFAULTS = {
    "median": {},
    "trimmed_mean": {},
    "krum": {},
    "multi_krum": {},
    "bulyan": {},
    "geometric_median": {"iterations": 100, "tolerance": 1e-8, "nu": 1e-6},
    "norm_clipping": {"multiplier": 1.0},
    "centered_clipping": {"iterations": 1},
    "zeroing": {
        "norm": "inf",
        "initial": 10.0,
        "quantile": 0.98,
        "rate": math.log(10.0),
        "multiplier": 2.0,
        "increment": 1.0,
    },
}

FLOWER = "adap/flower fdef7afb, framework/py/flwr/"
BYZFL = "LPD-EPFL/byzfl 69bd1ac0, tests/"
TFF = "google-parfait/tensorflow-federated 63f73da4, tensorflow_federated/python/aggregators/"
TORCHJD = "TorchJD/torchjd a81e64d3, tests/doc/test_aggregation.py"


def draw(seed, n, d, far=0, alike=0, spread=0.25):
    """A round of `n` reports: `far` of them times 1e6, and `alike` of them the same."""
    generator = np.random.default_rng(seed)
    rows = generator.uniform(-1, 1, d) + spread * generator.normal(size=(n, d))
    attackers = generator.permutation(n)[: far + alike]
    rows[attackers[:far]] *= 1e6 * generator.choice([-1, 1], size=(far, 1))
    rows[attackers[far:]] = generator.uniform(-3, 3, d)
    weights = generator.integers(1, 60, n)
    return weights.tolist(), np.float64(np.float32(rows)).tolist()


def grid(seed, n, d, most=3):
    """A round of small whole numbers: many values, distances and scores are equal."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(-most, most + 1, (n, d)).astype(np.float64)
    return generator.integers(1, 60, n).tolist(), rows.tolist()


def case(rule, settings, about, *rounds, source=None, published=None):
    """`published`: what somebody else's test expects of the last round, to 1e-6."""
    settings = settings if "c" in settings else DEFAULTS[rule] | settings
    return {
        "rule": rule,
        "settings": settings,
        "about": about,
        "rounds": list(rounds),
        "source": source,
        "published": published,
    }


def given(weights, rows):
    """A round written by hand."""
    return weights, np.float64(np.float32(rows)).tolist()


# Equal columns, equal rows, both zeros, two values only, one far value.
TIES = given(
    [3, 1, 4, 1, 5, 9],
    [
        [0.5, 0.0, -0.0, 1.0, -2.0, 0.125, 1e6],
        [0.5, -0.0, 0.0, 1.0, -2.0, 0.25, 0.5],
        [0.5, 0.0, -0.0, -1.0, 3.0, 0.125, 0.5],
        [0.5, -0.0, 0.0, -1.0, 3.0, 0.25, 0.5],
        [0.5, 0.0, 0.0, 1.0, 3.0, 0.375, -0.5],
        [0.5, 0.0, 0.0, -1.0, 3.0, 0.375, -0.5],
    ],
)
# Two rows that are equal, but for the sign of their zeros.
ZEROS = given([2, 7, 5, 1, 8], [[1, 1, 0], [4, -2, 1], [0.0, -0.0, 0], [-0.0, 0.0, -0.0], [-1, 0, 2]])
LINE = given([5, 4, 3, 2, 1], [[0], [1], [2], [3], [4]])
SAME = given([1, 2, 3, 4, 5, 6, 7], [[0.25, -0.5]] * 7)


def by_coordinate():
    for seed, (n, d) in enumerate([(2, 7), (5, 7), (6, 33), (7, 1), (12, 1)], 1):
        yield case("median", {}, f"{n} reports", draw(seed, n, d))
    yield case("median", {}, "one report", draw(0, 1, 7))
    yield case("median", {}, "3 of 15 are far", draw(6, 15, 33, far=3))
    yield case("median", {}, "3 of 11 are the same", draw(7, 11, 7, alike=3))
    yield case("median", {}, "ties and both zeros", TIES)
    yield case("median", {}, "whole numbers", grid(8, 12, 7))
    huge = given([1, 2, 3, 4], [[3e38, -3e38], [3.2e38, 3e38], [3e38, -3.2e38], [3.3e38, -3.3e38]])
    yield case("median", {}, "the two middle values' sum is no f32", huge)
    for seed, (n, d, f) in enumerate([(5, 7, 0), (5, 7, 1), (6, 33, 1), (7, 1, 2), (7, 33, 3), (12, 7, 1)], 10):
        yield case("trimmed_mean", {"f": f}, f"{n} reports", draw(seed, n, d))
    yield case("trimmed_mean", {"f": 2}, "2 of 12 are far", draw(16, 12, 33, far=2))
    yield case("trimmed_mean", {"f": 3}, "3 of 15 are far", draw(17, 15, 7, far=3))
    yield case("trimmed_mean", {"f": 1}, "2 of 11 are far, and f is too low", draw(18, 11, 7, far=2))
    yield case("trimmed_mean", {"f": 2}, "ties and both zeros", TIES)


# Seeds, with n, d and f: one neighbour more or fewer, or distances that aren't squared, select other reports.
KRUM = [(35, 5, 7, 0), (116, 5, 33, 1), (28, 6, 7, 1), (28, 7, 7, 2), (266, 11, 33, 3), (31, 12, 1, 2)]
MULTI_KRUM = [(40, 5, 7, 0), (364, 5, 7, 1), (81, 6, 33, 1), (107, 7, 7, 2), (47, 12, 7, 3), (198, 15, 1, 3)]
BULYAN = [(60, 5, 7, 0), (60, 6, 1, 0), (61, 7, 7, 1), (78, 11, 33, 2), (61, 12, 33, 2), (136, 12, 7, 1)]
BULYAN += [(61, 15, 33, 3), (61, 15, 1, 2)]


def by_distance():
    for seed, n, d, f in KRUM:
        yield case("krum", {"f": f}, f"{n} reports", draw(seed, n, d))
    yield case("krum", {"f": 2}, "2 of 7 are far", draw(135, 7, 33, far=2))
    yield case("krum", {"f": 3}, "3 of 15 are far", draw(78, 15, 33, far=3))
    yield case("krum", {"f": 3}, "3 of 11 are the same", draw(37, 11, 7, alike=3))
    yield case("krum", {"f": 1}, "clients 1, 2 and 3 have the least score", LINE)
    yield case("krum", {"f": 1}, "clients 2 and 3 are equal, but for the sign of zeros", ZEROS)
    yield case("krum", {"f": 2}, "all are equal", SAME)
    yield case("krum", {"f": 2}, "whole numbers", grid(29, 12, 7))
    for seed, n, d, f in MULTI_KRUM:
        yield case("multi_krum", {"f": f}, f"{n} reports", draw(seed, n, d))
    yield case("multi_krum", {"f": 1, "select": 1}, "the same as krum", draw(103, 7, 7))
    yield case("multi_krum", {"f": 2, "select": 3}, "3 of 11", draw(67, 11, 33))
    yield case("multi_krum", {"f": 3}, "3 of 15 are far", draw(40, 15, 33, far=3))
    yield case("multi_krum", {"f": 3}, "3 of 11 are the same", draw(40, 11, 7, alike=3))
    yield case("multi_krum", {"f": 1, "select": 2}, "clients 1, 2 and 3 have the least score", LINE)
    yield case("multi_krum", {"f": 2, "select": 4}, "all are equal", SAME)
    yield case("multi_krum", {"f": 2, "select": 5}, "whole numbers", grid(40, 12, 2))
    for seed, n, d, f in BULYAN:
        yield case("bulyan", {"f": f}, f"{n} reports", draw(seed, n, d))
    yield case("bulyan", {"f": 1}, "1 of 7 is far", draw(60, 7, 33, far=1))
    yield case("bulyan", {"f": 3}, "3 of 15 are far", draw(93, 15, 33, far=3))
    yield case("bulyan", {"f": 2}, "2 of 11 are the same", draw(66, 11, 7, alike=2))
    yield case("bulyan", {"f": 1}, "all are equal", SAME)
    for seed, (n, f) in enumerate([(7, 1), (11, 2), (12, 2), (15, 3)], 61):
        yield case("bulyan", {"f": f}, "whole numbers: two values are equally far from the median", grid(seed, n, 7))


def by_norm():
    for seed, (n, d) in enumerate([(5, 7), (6, 33), (7, 1), (12, 7)], 70):
        yield case("geometric_median", {}, f"{n} reports", draw(seed, n, d))
    yield case("geometric_median", {"iterations": 1}, "one step", draw(74, 7, 7))
    yield case("geometric_median", {"iterations": 2}, "the paper's budget of 3 averages", draw(75, 11, 7, far=1))
    yield case("geometric_median", {"iterations": 20, "tolerance": 0.0}, "20 steps", draw(76, 7, 7))
    yield case("geometric_median", {"nu": 0.5}, "nearer than nu", draw(77, 12, 7, spread=0.2))
    yield case("geometric_median", {}, "3 of 15 are far", draw(78, 15, 33, far=3))
    yield case("geometric_median", {"iterations": 3}, "3 of 15 are far", draw(79, 15, 7, far=3))
    yield case("geometric_median", {"tolerance": 1e-3}, "3 of 15 are the same", draw(89, 15, 7, alike=3))
    yield case("geometric_median", {}, "two reports", draw(90, 2, 7))
    yield case("geometric_median", {}, "half of the weight plus one", given([6, 5], [[1, 2], [3, -4]]))
    yield case("geometric_median", {"iterations": 5}, "ties of the start", LINE)
    yield case("geometric_median", {"iterations": 5}, "whole numbers", grid(91, 11, 3))
    yield case("geometric_median", {}, "all are equal", SAME)
    middle = given([1, 1, 1], [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    yield case("geometric_median", {}, "the mean is a report", middle)
    yield case("norm_clipping", {"c": 1.0}, "fixed", draw(80, 5, 7))
    yield case("norm_clipping", {"c": 3.0}, "fixed", draw(81, 12, 33))
    yield case("norm_clipping", {"c": 1e3}, "nobody is clipped", draw(82, 6, 7))
    yield case("norm_clipping", {"c": 2.0}, "3 of 15 are far", draw(83, 15, 7, far=3))
    edges = given([3, 1, 4, 1, 5], [[3, -4], [0, 0], [-0.0, 0], [6, 8], [0.25, 0]])
    yield case("norm_clipping", {"c": 5.0}, "a norm of c, and of zero", edges)
    for seed, (n, d, multiplier) in enumerate([(5, 7, 1.0), (6, 33, 1.0), (7, 1, 0.5), (12, 7, 1.5)], 84):
        yield case("norm_clipping", {"multiplier": multiplier}, f"median norm, {n} reports", draw(seed, n, d))
    yield case("norm_clipping", {}, "median norm, 3 of 11 are far", draw(88, 11, 33, far=3))
    yield case("norm_clipping", {}, "median norm, most reports are zero", given([3, 1, 4], [[0, 0], [1, 2], [0, -0.0]]))


def over_rounds():
    several = [draw(seed, 7, 7) for seed in range(90, 94)]
    yield case("centered_clipping", {"tau": 0.5}, "four rounds", *several)
    yield case("centered_clipping", {"tau": 0.5, "iterations": 3}, "four rounds", *several)
    yield case("centered_clipping", {"tau": 1e9}, "nobody is clipped: the weighted mean", *several[:2])
    equal = [([1] * 6, draw(seed, 6, 33)[1]) for seed in range(94, 97)]
    yield case("centered_clipping", {"tau": 2.0}, "equal weights", *equal)
    far = [draw(seed, 15, 7, far=3) for seed in range(97, 100)]
    yield case("centered_clipping", {"tau": 1.0}, "3 of 15 are far", *far)
    yield case("centered_clipping", {"tau": 1.0, "iterations": 5}, "3 of 15 are far", *far)
    changing = [draw(100, 5, 1), draw(101, 12, 1), draw(102, 6, 1)]
    yield case("centered_clipping", {"tau": 0.25}, "other clients in each round", *changing)
    rest = given([2, 1], [[0, -0.0], [3, -4]])
    yield case("centered_clipping", {"tau": 5.0}, "a report in the center, and one tau away", rest, rest)
    yield case(
        "zeroing", {}, "defaults, 1 of 7 is far in each round", *[draw(seed, 7, 7, far=1) for seed in range(110, 115)]
    )
    yield case("zeroing", {}, "defaults, nobody is far", *[draw(seed, 6, 33) for seed in range(115, 118)])
    low = {"initial": 0.05, "rate": 0.5, "quantile": 0.5}
    yield case("zeroing", low, "the estimate grows", *[draw(seed, 11, 7) for seed in range(118, 124)])
    narrow = {"initial": 1.5, "multiplier": 1.0, "increment": 0.0, "quantile": 0.8, "rate": 0.2}
    yield case("zeroing", narrow, "largest value", *[draw(seed, 12, 7, spread=0.5) for seed in range(124, 128)])
    euclid = narrow | {"norm": "l2", "initial": 4.0}
    yield case("zeroing", euclid, "Euclidean norm", *[draw(seed, 12, 33, spread=0.3) for seed in range(128, 132)])
    edges = given([3, 1, 4, 1, 5], [[21, 0], [-21, 3], [10, -10], [0, -0.0], [21.5, 1]])
    yield case("zeroing", {}, "a norm of the threshold, and of the estimate", edges)
    edges = given([3, 1, 4, 1], [[3, -4], [0, 0], [4, 4], [6, 8]])
    settings = {"norm": "l2", "initial": 5.0, "multiplier": 2.0, "increment": 0.0}
    yield case("zeroing", settings, "a norm of the threshold, and of the estimate", edges)


def peers():
    """What other projects' tests expect. For n = 3 and f = 1, Flower and ByzFL use one neighbour: f = 0 here."""
    flat = [[value] * 4 for value in (0.2, 0.7, 1.0)]
    where = FLOWER + "serverapp/strategy/multikrum_test.py, test_aggregate_train_krum (there f = 1)"
    yield case("krum", {"f": 0}, "a tie", given([5] * 3, flat), source=where, published=[0.7] * 4)
    flat = [[value] * 4 for value in (0.2, 0.5, 1.0)]
    where = FLOWER + "serverapp/strategy/multikrum_test.py, test_aggregate_train_multikrum (there f = 1)"
    yield case("multi_krum", {"f": 0, "select": 2}, "2 of 3", given([5] * 3, flat), source=where, published=[0.35] * 4)
    flat = [[value] * 4 for value in (0.2, 0.5, 0.7, 12.0, 0.1, 0.1)]
    where = FLOWER + "server/strategy/bulyan_test.py"
    yield case("bulyan", {"f": 0}, "the mean", given([5] * 6, flat), source=where, published=[13.6 / 6] * 4)
    turned = [[1.0, 0.2, 0.5, 1.0], [0.2, 0.5, 1.0, 0.2], [0.5, 1.0, 0.2, 0.5]]
    where = FLOWER + "serverapp/strategy/fedmedian_test.py"
    yield case("median", {}, "3 reports", given([5, 2, 9], turned), source=where, published=[0.5] * 4)
    where = FLOWER + "serverapp/strategy/fedtrimmedavg_test.py (there beta = 0.25)"
    four = given([1, 5, 2, 9], [[0.5] * 4] + turned)
    yield case("trimmed_mean", {"f": 1}, "4 reports", four, source=where, published=[0.5] * 4)
    four = given([1] * 4, [[0.5], [1.0], [2.0], [100.0]])
    yield case("trimmed_mean", {"f": 1}, "one value", four, source=where, published=[1.5])
    rows = [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [75.0, -666.0, 23.0], [1.0, 2.0, 3.0], [2.0, 0.0, 1.0]]
    five = given([1] * 5, rows)
    yield case("multi_krum", {"f": 1}, "1 of 5 is far", five, source=TORCHJD, published=[1.25, 0.75, 1.5])
    counting = given([1] * 3, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    where = BYZFL + "unit_test_aggregators.py"
    yield case("median", {}, "counting", counting, source=where, published=[4, 5, 6])
    yield case("trimmed_mean", {"f": 1}, "counting", counting, source=where, published=[4, 5, 6])
    there = where + " (there f = 1)"
    yield case("krum", {"f": 0}, "counting: all scores are equal", counting, source=there, published=[1, 2, 3])
    two = {"f": 0, "select": 2}
    yield case("multi_krum", two, "counting: all scores are equal", counting, source=there, published=[2.5, 3.5, 4.5])
    yield case("centered_clipping", {"tau": 100.0}, "counting", counting, source=where, published=[4, 5, 6])
    shrunk = [
        [0.53452248, 1.06904497, 1.60356745],
        [0.91168461, 1.13960576, 1.36752692],
        [1.00514142, 1.14873305, 1.29232469],
    ]
    where = BYZFL + "unit_test_preaggregators.py, TestClippingAggregation: the mean of its rows"
    published = [sum(column) / 3 for column in zip(*shrunk)]
    yield case("norm_clipping", {"c": 2.0}, "counting", counting, source=where, published=published)
    where = TFF + "robust_test.py, test_fixed_clip_mean"
    yield case(
        "norm_clipping", {"c": 2.0}, "one value", given([1, 2, 1], [[1], [3], [5]]), source=where, published=[1.75]
    )
    where = TFF + "robust_test.py, test_fixed_clip_mean_struct"
    four = given([1, 2, 1], [[value] * 4 for value in (1, 2, 3)])
    yield case("norm_clipping", {"c": 4.0}, "four values", four, source=where, published=[1.75] * 4)
    fixed = {"initial": 2.0, "multiplier": 1.0, "increment": 0.0}
    where = (
        TFF
        + "robust_test.py, test_fixed_zero_mean_struct_inf_norm (there 1: the third report's weight stays in the sum)"
    )
    four = given([1, 2, 2], [[value] * 4 for value in (1, 2, 5)])
    yield case("zeroing", fixed, "1 of 3 is left out", four, source=where, published=[5 / 3] * 4)


def cases():
    yield from by_coordinate()
    yield from by_distance()
    yield from by_norm()
    yield from over_rounds()
    yield from peers()

"""The robust rules of `reducer_reference.py` once more, in loops over Python's own numbers: slow, and exact.

Sums, products and comparisons are fractions, which never round. Roots, `exp` and what follows from them are decimals of
60 digits. So these answers say how well f64 does, and which scores are equal and which only nearly so.

Each rule takes rows (lists of fractions), weights, settings and the state that it returned in the round before, if any.
It returns the update, the reports that it selected (or None) and its state (or None).
"""

from decimal import Decimal, getcontext
from fractions import Fraction

getcontext().prec = 60

# The relative distance between the best score and the next one, of every choice since `forget`; 0 is a tie.
margins = []


def decimal(value):
    value = Fraction(value)
    return Decimal(value.numerator) / Decimal(value.denominator)


def margin(best, next_best):
    margins.append(float((next_best - best) / next_best) if next_best else 0.0)


def mean(values):
    return sum(values) / Fraction(len(values))


def weighted_mean(rows, weights):
    total = sum(weights)
    columns = range(len(rows[0]))
    return [sum(weight * row[column] for weight, row in zip(weights, rows)) / total for column in columns]


def without_extremes(values, count):
    """The values without the `count` smallest and the `count` largest."""
    left = list(values)
    for _ in range(count):
        left.remove(min(left))
        left.remove(max(left))
    return left


def middle(values):
    return mean(without_extremes(values, (len(values) - 1) // 2))


def median(rows, weights, settings, state):
    return [middle(column) for column in zip(*rows)], None, None


def trimmed_mean(rows, weights, settings, state):
    return [mean(without_extremes(column, settings["f"])) for column in zip(*rows)], None, None


def squared_distance(one, other):
    total = Fraction(0)
    for a, b in zip(one, other):
        total += (a - b) * (a - b)
    return total


def score(rows, client, others, neighbours):
    distances = [squared_distance(rows[client], rows[other]) for other in others if other != client]
    total = Fraction(0)
    for _ in range(min(neighbours, len(distances))):
        nearest = min(distances)
        distances.remove(nearest)
        total += nearest
    return total


def best(rows, clients, neighbours, count):
    """The `count` clients of the least scores. Of equal scores, the lowest client's is the lesser."""
    scored = [(score(rows, client, clients, neighbours), client) for client in clients]
    chosen = []
    for _ in range(count):
        least = min(scored)
        scored.remove(least)
        chosen.append(least)
    if scored:
        margin(chosen[-1][0], min(scored)[0])
    return [client for _, client in chosen]


def krum(rows, weights, settings, state):
    n = len(rows)
    chosen = best(rows, range(n), n - settings["f"] - 2, 1)
    return rows[chosen[0]], chosen, None


def multi_krum(rows, weights, settings, state):
    n, f = len(rows), settings["f"]
    chosen = sorted(best(rows, range(n), n - f - 2, settings.get("select", n - f)))
    update = weighted_mean([rows[client] for client in chosen], [weights[client] for client in chosen])
    return update, chosen, None


def bulyan(rows, weights, settings, state):
    n, f = len(rows), settings["f"]
    left, picked = list(range(n)), []
    while len(picked) < n - 2 * f:
        neighbours = max(1, len(left) - f - 2)
        (client,) = best(rows, left, neighbours, 1)
        left.remove(client)
        picked.append(client)
    picked.sort()
    update = []
    for column in zip(*[rows[client] for client in picked]):
        center = middle(column)
        # By distance; of two that are equally far from the median, the lower value.
        ordered = sorted(column, key=lambda value: (abs(value - center), value))
        count = len(picked) - 2 * f
        if count < len(ordered):
            margin(abs(ordered[count - 1] - center), abs(ordered[count] - center))
        update.append(mean(ordered[:count]))
    return update, picked, None


def norm(row):
    return decimal(sum(value * value for value in row)).sqrt()


def decimals(rows):
    return [[decimal(value) for value in row] for row in rows]


def length(row):
    return sum((value * value for value in row), Decimal(0)).sqrt()


def difference(one, other):
    return [a - b for a, b in zip(one, other)]


def middle_start(rows, weights, nu):
    """Shares of a mean: a report counts whole within the radius of the reports whose own radius is the smallest."""
    total = sum(weights)
    radii = []
    for row in rows:
        within = Fraction(0)
        for squared, weight in sorted((squared_distance(row, other), weight) for other, weight in zip(rows, weights)):
            within += weight
            if within > total / 2:
                radii.append(squared)
                break
    smallest = min(radii)
    for radius in radii:
        margin(smallest, radius)
    least = max(nu, decimal(smallest).sqrt())
    shares = [Decimal(0)] * len(rows)
    for row, radius in zip(rows, radii):
        if radius == smallest:
            for place, (other, weight) in enumerate(zip(rows, weights)):
                distance = decimal(squared_distance(row, other)).sqrt()
                shares[place] += decimal(weight) / max(least, distance)
    return [share / sum(shares) for share in shares]


def geometric_median(rows, weights, settings, state):
    nu, tolerance = decimal(settings["nu"]), decimal(settings["tolerance"])
    shares = middle_start(rows, weights, nu)
    rows, weights = decimals(rows), [decimal(weight) for weight in weights]
    z = weighted_mean(rows, shares)
    for _ in range(settings["iterations"]):
        betas = [weight / max(nu, length(difference(z, row))) for weight, row in zip(weights, rows)]
        before, shares = shares, [beta / sum(betas) for beta in betas]
        z = weighted_mean(rows, shares)
        change = max(abs(new - old) / new for new, old in zip(shares, before))
        if tolerance:
            margin(*sorted([change, tolerance]))
        if change <= tolerance:
            break
    return z, None, None


def shrunk(row, limit):
    size = length(row)
    if size <= limit:
        return row
    return [value * limit / size for value in row]


def norm_clipping(rows, weights, settings, state):
    if "c" in settings:
        limit = decimal(settings["c"])
    else:
        sizes = without_extremes([norm(row) for row in rows], (len(rows) - 1) // 2)
        limit = decimal(settings["multiplier"]) * sum(sizes) / len(sizes)
    clipped = [shrunk(row, limit) for row in decimals(rows)]
    return weighted_mean(clipped, [decimal(weight) for weight in weights]), None, None


def centered_clipping(rows, weights, settings, state):
    rows, weights = decimals(rows), [decimal(weight) for weight in weights]
    v = state["center"] if state else [Decimal(0)] * len(rows[0])
    for _ in range(settings["iterations"]):
        steps = [shrunk(difference(row, v), decimal(settings["tau"])) for row in rows]
        v = [old + step for old, step in zip(v, weighted_mean(steps, weights))]
    return v, None, {"center": v}


def zeroing(rows, weights, settings, state):
    estimate = state["estimate"] if state else decimal(settings["initial"])
    if settings["norm"] == "l2":
        sizes = [norm(row) for row in rows]
    else:
        sizes = [decimal(max(abs(value) for value in row)) for row in rows]
    threshold = decimal(settings["multiplier"]) * estimate + decimal(settings["increment"])
    for size in sizes:
        for limit in (threshold, estimate):
            margin(*sorted([size, limit]))
    kept = [client for client, size in enumerate(sizes) if not size > threshold]
    below = sum(1 for size in sizes if size <= estimate)
    step = decimal(Fraction(below, len(rows))) - decimal(settings["quantile"])
    update = weighted_mean([rows[client] for client in kept], [weights[client] for client in kept])
    state = {"threshold": threshold, "estimate": estimate * (-decimal(settings["rate"]) * step).exp()}
    return update, kept, state


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

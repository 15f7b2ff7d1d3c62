"""What a client minimizes beside its loss, and what it keeps for that: FedProx and SCAFFOLD, for `pytorch_worker.py`.

Everything is in NumPy and by the names of parameters, so that any trainer can use it. docs/protocol.md has the formulas
("Objectives") and the rules for the state of a client.
"""

import numpy as np

CAPABILITIES = ["objective:proximal", "objective:scaffold", "payload:control"]


class Plain:
    """The loss alone. The others differ from it in what they do not inherit."""

    pull = 0.0  # The factor of the distance to the global model in each gradient.

    def shift(self):
        """What is added to each gradient, by name; nothing if it is empty."""
        return {}

    def end(self, start, local, steps, lr, momentum=0.0):
        """The payloads of the report beside the delta, and the client's next state, both by name."""
        return {}, {}


class Proximal(Plain):
    """FedProx (Li et al. 2020): `mu / 2 * |w - w_global|^2` is added to the loss."""

    def __init__(self, mu):
        self.pull = mu


class Scaffold(Plain):
    """SCAFFOLD (Karimireddy et al. 2020), option II. `server` is the payload `control` of the version; `state` the client's."""

    def __init__(self, server, state, restarts=0):
        self.server = server
        # After a restart all clients begin with zeros: what was kept before it does not count.
        self.name = f"control.{restarts}" if restarts else "control"
        self.own = state.get(self.name) or {name: np.zeros_like(value) for name, value in server.items()}

    def shift(self):
        return {name: self.server[name] - self.own[name] for name in self.server}

    def end(self, start, local, steps, lr, momentum=0.0):
        if lr <= 0:
            raise ValueError(f"objective scaffold divides by the learning rate, which is {lr}")
        change = {name: np.zeros_like(value) for name, value in self.server.items()}
        if steps:
            for name in change:
                change[name] = (start[name] - local[name]) / np.float32(reach(steps, momentum) * lr) - self.server[name]
        return {"control": change}, {self.name: {name: self.own[name] + change[name] for name in change}}


def reach(steps, momentum):
    """What `steps` equal gradients make of a client's way, in learning rates times that gradient: `steps` without momentum."""
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)


def objective_of(task, payloads, state):
    """The objective of a task, with the payloads that the coordinator sent and the client's state."""
    objective = task.get("objective", {"kind": "plain"})
    if objective["kind"] == "plain":
        return Plain()
    if objective["kind"] == "proximal":
        return Proximal(objective["mu"])
    if objective["kind"] == "scaffold":
        return Scaffold(payloads["control"], state, objective.get("restarts", 0))
    raise ValueError(f"this worker knows no objective {objective['kind']}")


class States:
    """What the clients of a job keep between rounds. A state counts if the report that led to it was folded: the task's `basis`
    is the last round whose commit folded the client's report."""

    def __init__(self):
        self.kept = {}  # By client: the states by the round whose report led to them, two at most.

    def choose(self, client, basis):
        """The state to start from, and whether it was lost. Drops the others: the report of none of them was folded."""
        kept = self.kept.get(client, {})
        self.kept[client] = {basis: kept[basis]} if basis in kept else {}
        if basis is None:
            return {}, False
        return kept.get(basis, {}), basis not in kept

    def prepare(self, client, round_number, state):
        """Keeps the state that this round's report leads to. To be called before the report is sent."""
        self.kept.setdefault(client, {})[round_number] = state

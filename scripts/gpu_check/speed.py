"""Images a second of several programs, measured in turns, and their energy."""

import statistics

BATCH = 64
TURNS = 5


class Row:
    """One program that trains one model."""

    def __init__(self, name, program, model, nvml):
        self.name, self.program, self.model, self.nvml = name, program, model, nvml
        self.images = BATCH
        self.turns = []
        self.error = None

    def train(self):
        """Trains on `self.images`; the seconds, or none if it failed."""
        before = self.nvml.joules()
        answer = self.program.ask(f"train {self.model} {self.images}")
        after = self.nvml.joules()
        if "error" in answer:
            self.error = answer["error"]
            return None, answer
        answer["nvml_joules"] = after - before if before is not None and after is not None else None
        return answer["seconds"], answer

    def find_images(self, window):
        """Chooses as many whole batches as take about `window` seconds; one batch if that alone takes longer."""
        while True:
            seconds, _ = self.train()
            if seconds is None:
                return
            if seconds > window / 8:
                break
            self.images *= 2
        self.images = BATCH * max(1, round(self.images * window / seconds / BATCH))

    def turn(self):
        if self.error is None:
            seconds, answer = self.train()
            if seconds is not None:
                answer["images_per_second"] = self.images / seconds
                self.turns.append(answer)

    def result(self, reference):
        """Medians over the turns. The ratio is to the reference's speed in the same turn."""
        result = {"images": self.images, "turns": self.turns}
        if self.error is not None:
            result["error"] = self.error
        if self.turns:
            result["images_per_second"] = statistics.median(turn["images_per_second"] for turn in self.turns)
            pairs = zip(self.turns, reference.turns)
            ratios = [own["images_per_second"] / other["images_per_second"] for own, other in pairs]
            if ratios and reference is not self:
                result["ratio"] = statistics.median(ratios)
            for name, label in [("nvml_joules", "nvml"), ("joules", "own")]:
                measured = [turn[name] for turn in self.turns if turn.get(name) is not None]
                if measured:
                    total = self.images * len(measured)
                    result[f"joules_per_1000_images_{label}"] = 1000 * sum(measured) / total
        return result


def measure(model, programs, nvml, window):
    """`programs` by name, each asked in turn; the last one is the reference."""
    rows = [Row(name, program, model, nvml) for name, program in programs.items()]
    for row in rows:
        row.find_images(window)
    for _ in range(TURNS):
        for row in rows:
            row.turn()
    return {row.name: row.result(rows[-1]) for row in rows}

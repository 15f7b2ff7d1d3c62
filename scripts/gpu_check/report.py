"""The results as a table for docs/backends.md, and what of them is not as it should be."""

# The limits of the crate's own tests.
FARTHEST = 1e-3
ACCURACY = 0.95


def problems(results):
    """A sentence for everything that is not as it should be."""
    found = []
    for name, device in results["devices"].items():
        for step, answer in device.items():
            if "error" in answer:
                found.append(f"{name}: {step}: {answer['error']}")
            elif "limit" in answer and not max(answer["distance"], answer["loss_distance"]) <= answer["limit"]:
                found.append(f"{name}: {step}: {answer['distance']:.1e} from the fixture, more than {answer['limit']:.0e}")
            elif step == "digits" and (answer["test_accuracy"] or 0) < ACCURACY:
                found.append(f"{name}: digits: accuracy {answer['test_accuracy']}, less than {ACCURACY}")
            elif step == "prove" and "cuda" in name and not answer["energy_is_measured"]:
                found.append(f"{name}: its energy is not measured")
    for model, rows in results["speed"].items():
        found += [f"{name}: {model}: {row['error']}" for name, row in rows.items() if "error" in row]
    return found


def table(results):
    """Markdown."""
    machine = results["machine"]
    lines = [f"{machine['gpu']}, {machine['torch']}, driver {machine['driver']}; {results['seconds']:.0f} s in all.", ""]
    names = list(results["devices"])
    steps = list(dict.fromkeys(step for device in results["devices"].values() for step in device))
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for step in steps:
        cells = [cell(step, results["devices"][name].get(step)) for name in names]
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    lines += ["", "| model | | images/s | of PyTorch's | J per 1000 images |", "|---|---|---|---|---|"]
    for model, rows in results["speed"].items():
        for name, row in rows.items():
            if "images_per_second" not in row:
                lines.append(f"| `{model}` | {name} | failed | | |")
                continue
            joules = number(row.get("joules_per_1000_images_nvml"), "{:.2f}")
            ratio = number(row.get("ratio"), "{:.2f}")
            lines.append(f"| `{model}` | {name} | {row['images_per_second']:.0f} | {ratio} | {joules} |")
    lines += ["", "Not as it should be:" if results["problems"] else "Everything came out as it should."]
    lines += [f"- {problem}" for problem in results["problems"]]
    return "\n".join(lines) + "\n"


def cell(step, answer):
    if answer is None:
        return ""
    if "error" in answer:
        return "failed"
    if "distance" in answer:
        return f"{answer['distance']:.1e}"
    if step == "prove":
        return f"{answer['seconds']:.1f} s"
    energy = f", {answer['joules']:.0f} J" if answer["rounds_with_energy"] else ""
    return f"{answer['test_accuracy']:.4f} in {answer['seconds']:.1f} s{energy}"


def number(value, form):
    return "" if value is None else form.format(value)

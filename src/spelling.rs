//! The name that a misspelt one was probably meant to be. It must never choose for anybody: it only asks.

/// The longest name that is compared. Names come from outside, and the comparison takes as many steps as both have letters,
/// multiplied.
const LONGEST: usize = 64;

/// Returns ` (did you mean by_size?)`, for an error that has just said that `name` is not known; nothing if no known name is like
/// it.
///
/// A name is alike if one letter is added, left out, replaced or swapped with its neighbour; two letters of a name of more than
/// six. Of one letter, no name is alike: any other is one replacement away.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    if name.len() > LONGEST {
        return String::new();
    }
    let name = name.to_lowercase();
    let mut nearest = None;
    for candidate in known {
        let edits = strsim::osa_distance(&name, candidate);
        let letters = name.chars().count().max(candidate.chars().count());
        let most = if letters > 6 { 2 } else { 1 };
        let is_alike = edits <= most && letters > 1;
        let is_nearer = nearest.is_none_or(|(fewest, _)| edits < fewest);
        if is_alike && is_nearer {
            nearest = Some((edits, candidate));
        }
    }
    match nearest {
        Some((_, meant)) => format!(" (did you mean {meant}?)"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_the_known_names_is_asked_for() {
        let known = ["fedavg", "fedavgm", "fedadam", "tau", "mu", "q"];
        for (name, meant) in [
            ("fedadm", "fedadam"),
            ("FedAvg", "fedavg"),
            ("fedavgn", "fedavg"),
            ("tua", "tau"),
            ("ta", "tau"),
            ("fdadamm", "fedadam"),
            ("fedaadm", "fedadam"),
        ] {
            let expected = format!(" (did you mean {meant}?)");
            assert_eq!(hint(name, known), expected, "{name}");
        }
    }

    #[test]
    fn what_is_like_no_known_name_has_no_hint() {
        let long = "é".repeat(100_000);
        for name in ["scaffold", "cap", "p", "lr", "", "fdavq", &long] {
            assert_eq!(hint(name, ["fedavg", "tau", "mu", "q"]), "", "{name}");
        }
        assert_eq!(hint("tau", []), "");
    }
}

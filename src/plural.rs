//! Numbers with what they count, for people.

use std::fmt::Display;

/// Returns `1 client`, `3 clients`.
pub(crate) fn plural(number: impl Display, one: &str) -> String {
    let number = number.to_string();
    if number == "1" {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_is_singular() {
        let counted = [0, 1, 2, 11].map(|number| plural(number, "round"));
        assert_eq!(counted, ["0 rounds", "1 round", "2 rounds", "11 rounds"]);
    }
}

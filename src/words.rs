//! Small things about texts for people: plurals, and which of them say the same.

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

/// A text without its numbers: two reasons with the same one differ in their figures alone, and telling one of them is
/// enough.
pub(crate) fn without_numbers(text: &str) -> String {
    text.replace(
        |letter: char| letter.is_ascii_digit() || matches!(letter, '.' | '-' | '+'),
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_the_same_if_they_differ_in_numbers_alone() {
        let of = |value| without_numbers(&format!("tensor \"a\" has the value {value}"));
        assert_eq!(of("-1.15e5"), of("6.9e12"));
        assert_ne!(of("1"), without_numbers("tensor \"b\" has the value 1"));
    }

    #[test]
    fn one_alone_is_singular() {
        let counted = [0, 1, 2, 11].map(|number| plural(number, "round"));
        assert_eq!(counted, ["0 rounds", "1 round", "2 rounds", "11 rounds"]);
    }
}

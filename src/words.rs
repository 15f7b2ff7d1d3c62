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

/// Returns a figure with about four digits: `812`, `1.3`, `0.0412`, `1.000e12`.
pub(crate) fn amount(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-3..1e6).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    // As many places as make four digits with those in front of the point.
    let in_front = magnitude.max(1.0).log10().floor() as usize + 1;
    let text = format!("{value:.*}", 5_usize.saturating_sub(in_front).min(4));
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// What to try if training diverges, in the words of every message that says so.
pub(crate) const IF_IT_DIVERGES: &str = "try a smaller learning rate (--lr, or the strategy's server_lr); if some reports may be \
     broken or an attacker's, a reducer that bounds outliers or leaves them out (--strategy multi_krum)";

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
    fn an_amount_has_about_four_digits() {
        let written = [0.0, 812.0, 1.3, 0.04125, 123_456.7, 1e12, -2.5, 1e-9, 1e300].map(amount);
        let expected = [
            "0",
            "812",
            "1.3",
            "0.0413",
            "123457",
            "1.000e12",
            "-2.5",
            "1.000e-9",
            "1.000e300",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn one_alone_is_singular() {
        let counted = [0, 1, 2, 11].map(|number| plural(number, "round"));
        assert_eq!(counted, ["0 rounds", "1 round", "2 rounds", "11 rounds"]);
    }
}

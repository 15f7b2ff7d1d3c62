//! Names of tensors with wildcards. A pattern comes from outside, so it has no more power than a `*`: a match costs time in
//! proportion to the lengths of the pattern and the name, whatever they are.

use std::sync::Arc;

/// Some patterns, each the name of a tensor in which `*` stands for any text, also none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TensorPatterns(Arc<[String]>);

impl TensorPatterns {
    /// These patterns.
    pub fn new<P: Into<String>>(patterns: impl IntoIterator<Item = P>) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the patterns matches this name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| is_match(pattern, name))
    }

    /// The first pattern that matches none of these names.
    pub fn unmatched<'a>(&self, names: impl IntoIterator<Item = &'a str> + Clone) -> Option<&str> {
        for pattern in self.0.iter() {
            let mut names = names.clone().into_iter();
            if !names.any(|name| is_match(pattern, name)) {
                return Some(pattern);
            }
        }
        None
    }
}

fn is_match(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        // The earliest place leaves most for the pieces that follow: no other place need be tried.
        let Some(at) = left.find(piece) else {
            return false;
        };
        left = &left[at + piece.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: a star is nothing, or one letter and a star.
    fn naive(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], []) => naive(rest, &[]),
            (['*', rest @ ..], [_, left @ ..]) => naive(rest, name) || naive(pattern, left),
            ([letter, rest @ ..], [first, left @ ..]) if letter == first => naive(rest, left),
            _ => false,
        }
    }

    #[test]
    fn a_pattern_is_a_whole_name_with_stars() {
        let patterns = TensorPatterns::new(["head.*", "*.running_*", "body.0.bias"]);
        for name in ["head.weight", "head.", "a.running_mean", "body.0.bias"] {
            assert!(patterns.matches(name), "{name}");
        }
        for name in ["ahead.weight", "head", "running_mean", "body.0.bias2", ""] {
            assert!(!patterns.matches(name), "{name}");
        }
        assert!(!TensorPatterns::default().matches("head.weight"));
        let names = ["head.weight", "body.0.bias"];
        assert_eq!(patterns.unmatched(names), Some("*.running_*"));
        assert_eq!(TensorPatterns::new(["*"]).unmatched(names), None);
    }

    #[test]
    fn a_match_costs_no_more_than_the_lengths() {
        // A matcher that tries each place again for each star would not end.
        let (pattern, name) = ("*a".repeat(20_000) + "b", "a".repeat(40_000));
        assert!(!TensorPatterns::new([pattern]).matches(&name));
    }

    proptest! {
        #[test]
        fn it_matches_what_the_definition_does(pattern in "[abä*]{0,7}", name in "[abä]{0,9}") {
            let expected = naive(
                &pattern.chars().collect::<Vec<_>>(),
                &name.chars().collect::<Vec<_>>(),
            );
            prop_assert_eq!(TensorPatterns::new([pattern]).matches(&name), expected);
        }
    }
}

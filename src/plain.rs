//! What serde says of a value that it can't read, in words for people who have never seen the program's types.

use std::borrow::Cow;

use crate::spelling;

/// The message in plain words; one of an unknown kind as it is. A place that serde_json appends comes first.
pub(crate) fn plain(message: &str) -> String {
    // The last one: a text that is quoted in the message may have these words, too.
    match message.rsplit_once(" at line ") {
        Some((problem, place)) => match place.split_once(" column ") {
            Some((line, column)) => {
                format!("line {line}, column {column}: {}", problem_in(problem))
            }
            None => problem_in(message),
        },
        None => problem_in(message),
    }
}

fn problem_in(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (key, known) = rest.split_once(", ").unwrap_or((rest, ""));
        let key = bare(key);
        return match choices(known) {
            Some(known) => format!(
                "there is no key {key}{}; the keys here are {known}",
                spelling::hint(&key, known.split(", "))
            ),
            None => format!("there is no key {key}"),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (value, known) = rest.split_once(", ").unwrap_or((rest, ""));
        let (value, known) = (bare(value), choices(known).unwrap_or_default());
        let hint = spelling::hint(&value, known.split(", "));
        return format!("{value} is not known{hint}; give one of {known}");
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {} is missing", bare(key));
    }
    if let Some(key) = message.strip_prefix("duplicate field ") {
        return format!("the key {} is given more than once", bare(key));
    }
    let mismatch = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "));
    if let Some(mismatch) = mismatch
        && let Some((found, expected)) = mismatch.split_once(", expected ")
    {
        return format!(
            "{} is given, and {} is needed",
            given(found),
            needed(expected)
        );
    }
    // toml's parser says this of each value that is none, also of a missing one.
    if message.starts_with("string values must be quoted") {
        return "a value is missing here, or a text without its quotes".to_string();
    }
    message.to_string()
}

/// ``one of `a`, `b` `` or `` `a` or `b` `` as `a, b`.
fn choices(known: &str) -> Option<String> {
    let known = known.strip_prefix("expected ")?;
    let known = known.strip_prefix("one of ").unwrap_or(known);
    Some(known.replace("` or `", "`, `").replace('`', ""))
}

fn bare(name: &str) -> Cow<'_, str> {
    match name
        .strip_prefix('`')
        .and_then(|name| name.strip_suffix('`'))
    {
        // In quotes, or an empty name could not be seen.
        Some("") | None => format!("{name:?}").into(),
        Some(name) => name.into(),
    }
}

/// A value that was found, as serde names it.
fn given(found: &str) -> String {
    for (kind, name) in [
        ("string ", "the text "),
        ("integer ", "the number "),
        ("floating point ", "the number "),
        ("boolean ", ""),
    ] {
        if let Some(value) = found.strip_prefix(kind) {
            // serde adds the type of a number that is wider than 64 bits.
            let value = value
                .trim_end_matches(" as i128")
                .trim_end_matches(" as u128");
            return format!("{name}{}", value.trim_matches('`'));
        }
    }
    match found {
        "map" => "a table",
        "sequence" => "a list",
        "null" | "unit value" | "Option value" => "nothing",
        other => other,
    }
    .to_string()
}

/// What serde expected.
fn needed(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 to 18446744073709551615",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "string" | "str" => "a text",
        "a boolean" => "true or false",
        "a map" => "a table",
        "a sequence" => "a list",
        _ if expected.starts_with("struct ") => "a table",
        _ if expected.starts_with("internally tagged enum ") => "a table with its kind",
        _ => expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serdes_messages_become_sentences() {
        for (message, expected) in [
            (
                "unknown field `learning_rate`, expected one of `batch_size`, `lr`",
                "there is no key learning_rate; the keys here are batch_size, lr",
            ),
            (
                "unknown field `local_epoch`, expected one of `batch_size`, `local_epochs`",
                "there is no key local_epoch (did you mean local_epochs?); the keys here are batch_size, local_epochs",
            ),
            (
                "unknown variant `adamm`, expected `sgd` or `adam`",
                "adamm is not known (did you mean adam?); give one of sgd, adam",
            ),
            (
                "unknown field `a`, expected `b` or `c`",
                "there is no key a; the keys here are b, c",
            ),
            (
                "unknown variant `lbfgs`, expected `sgd` or `adam`",
                "lbfgs is not known; give one of sgd, adam",
            ),
            ("missing field `kind`", "the key kind is missing"),
            (
                "missing field `round` at line 1 column 2",
                "line 1, column 2: the key round is missing",
            ),
            ("duplicate field `lr`", "the key lr is given more than once"),
            (
                "invalid type: string \"many\", expected u32",
                "the text \"many\" is given, and a whole number from 0 to 4294967295 is needed",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "the number -1 is given, and a whole number from 0 to 4294967295 is needed",
            ),
            (
                "invalid value: integer `99999999999999999999` as i128, expected u64",
                "the number 99999999999999999999 is given, and a whole number from 0 to 18446744073709551615 is needed",
            ),
            (
                "invalid type: string \"f32\", expected struct Encodings",
                "the text \"f32\" is given, and a table is needed",
            ),
            (
                "invalid type: integer `5`, expected internally tagged enum PartitionSpec",
                "the number 5 is given, and a table with its kind is needed",
            ),
            (
                "invalid type: null, expected f64",
                "nothing is given, and a number is needed",
            ),
            ("the disk is full", "the disk is full"),
        ] {
            assert_eq!(plain(message), expected, "{message}");
        }
    }
}

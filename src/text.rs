//! Text from outside, before a person sees it: what a worker, a file or a coordinator says may hold characters that move a
//! terminal's cursor, start a new log line or turn the reading direction.

use std::borrow::Cow;

/// Whether a character changes more than its own place on a terminal: control characters, line separators, and those
/// that turn the reading direction.
pub(crate) fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The text with each unsafe character as its escape (`\n`, `\u{1b}`), on one line of at most `limit` characters and an
/// ellipsis.
pub(crate) fn printable(text: &str, limit: usize) -> Cow<'_, str> {
    // Bytes first: there are at least as many of them as characters, and counting those goes through the text.
    let is_short = text.len() <= limit || text.chars().nth(limit).is_none();
    if is_short && !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::new();
    for (place, letter) in text.chars().enumerate() {
        if place == limit {
            escaped.push('…');
            break;
        }
        if is_unsafe(letter) {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

/// The text with at most `limit` bytes of its beginning and as many of its end, and an ellipsis between them: the end of a
/// message often says what to do.
pub(crate) fn shortened(text: String, limit: usize) -> String {
    if text.len() <= 2 * limit {
        return text;
    }
    let begin = &text[..text.floor_char_boundary(limit)];
    let end = &text[text.ceil_char_boundary(text.len() - limit)..];
    format!("{begin} … {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_the_text_is_escaped_and_other_scripts_are_not() {
        assert_eq!(printable("a\nb\x1b[31m", 99), "a\\nb\\u{1b}[31m");
        assert_eq!(printable("user\u{202e}txt", 99), "user\\u{202e}txt");
        assert!(matches!(
            printable("Zürich 東京 שלום", 99),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let short = "ä".repeat(10);
        assert_eq!(shortened(short.clone(), 10), short);
        let long = format!("model {} is not known", "ä".repeat(1000));
        assert_eq!(shortened(long.clone(), 12), "model äää … is not known");
        // Never within a character.
        assert_eq!(shortened(long, 14), "model ääää …  is not known");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(printable("äöü", 2), "äö…");
        assert_eq!(printable("äöü", 3), "äöü");
        assert_eq!(printable("\x07\x07\x07", 2), "\\u{7}\\u{7}…");
    }
}

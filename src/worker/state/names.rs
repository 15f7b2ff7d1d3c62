//! Names of others as names of folders: a worker's name is any text, and a coordinator's identity comes over the network.

use crate::parameters::Digest;

/// The most bytes of such a name. File systems take 255, and something is put in front of it and behind it.
const LONGEST: usize = 160;

/// Returns a name of a folder for this text: letters, digits, `-`, `_` and dots within it as they are, any other byte as `%` and
/// two hexadecimal digits. Different texts have different names, but for very long ones, which end in a digest.
pub(super) fn folder_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        // A name that begins with a dot would be hidden, and `..` would lead out of the folder.
        if is_plain || (byte == b'.' && !name.is_empty()) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    if name.len() > LONGEST {
        let digest = Digest::of(text.as_bytes()).crc32();
        name.truncate(LONGEST);
        name.push_str(&format!("%{digest:08x}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_one_folder_below_the_one_it_is_put_in() {
        for (text, expected) in [
            ("lab-3", "lab-3"),
            ("node.example", "node.example"),
            ("..", "%2e."),
            ("a/b", "a%2fb"),
            ("a%2fb", "a%252fb"),
            ("ü\n", "%c3%bc%0a"),
        ] {
            assert_eq!(folder_name(text), expected);
        }
        let (long, longer) = ("/".repeat(128), "/".repeat(129));
        assert!(folder_name(&long).len() < 200);
        assert_ne!(folder_name(&long), folder_name(&longer));
    }
}

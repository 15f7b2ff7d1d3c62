//! The join token, as an argument, an environment variable or a file.

use std::{env, path::PathBuf};

use clap::Args;

use super::{
    Failure,
    text_file::{SMALL, read_text},
};
use crate::protocol::Token;

/// The environment variable that a token is read from if no argument has one.
const VARIABLE: &str = "FEDAVG_JOIN_TOKEN";

/// The join token.
#[derive(Debug, Clone, Default, Args)]
pub struct TokenArgs {
    /// The join token: a secret that the coordinator, its workers and its operators share. Other users of this machine
    /// can see arguments, so prefer --join-token-file or the variable [env: FEDAVG_JOIN_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub join_token: Option<String>,
    /// A file that holds the join token; it wins over the argument and the variable
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// The token, if one was given.
    ///
    /// # Errors
    ///
    /// A file that can't be read, or a token that is empty or that an HTTP header can't hold.
    pub fn token(&self) -> Result<Option<Token>, Failure> {
        let text = match &self.join_token_file {
            Some(file) => {
                let text = read_text(file, SMALL)
                    .map_err(|failure| Failure::Usage(format!("--join-token-file {failure}")))?;
                // Editors end a file with a line break.
                Some(text.trim().to_string())
            }
            // An empty argument is a mistake; an empty variable counts as unset. clap, if it read the variable, would
            // take it for an empty argument.
            None => self.join_token.clone().or_else(|| {
                let text = env::var(VARIABLE).unwrap_or_default();
                (!text.is_empty()).then_some(text)
            }),
        };
        let Some(text) = text else { return Ok(None) };
        // It travels in a header, which can't have other characters. Spaces at its ends would be cut off on the way.
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Some(Token(text)))
        } else {
            Err(Failure::Usage(
                "the join token is empty, or has a space or a character that is not ASCII; use letters, digits and \
                 punctuation alone"
                    .to_string(),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_may_end_in_a_line_break_and_must_hold_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let arguments = TokenArgs {
            join_token: Some("other".to_string()),
            join_token_file: Some(file.clone()),
        };
        fs::write(&file, "secret\n").unwrap();
        let token = arguments.token().unwrap().unwrap();
        assert!(token.matches(&Token("secret".to_string())));
        fs::write(&file, "\n").unwrap();
        assert_eq!(arguments.token().unwrap_err().code(), 2);
        fs::remove_file(&file).unwrap();
        assert_eq!(arguments.token().unwrap_err().code(), 2);
        assert_eq!(TokenArgs::default().token().unwrap(), None);
    }
}

//! Tokens: from a file or an environment variable, never from an argument, which other users of the machine can see.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    Failure,
    text_file::{SMALL, read_text, warn_if_shared},
};
use crate::protocol::Token;

/// The variable of a join token.
const JOIN: &str = "FEDAVG_JOIN_TOKEN";
/// The variable of an operator's token.
const OPERATOR: &str = "FEDAVG_TOKEN";

/// The variable of its file.
const OPERATOR_FILE: &str = "FEDAVG_TOKEN_FILE";

/// A token that a person made up has at least this many characters: it must not be guessed.
pub(super) const LEAST_LENGTH: usize = 16;

/// The join token.
#[derive(Debug, Clone, Default, Args)]
pub struct JoinTokenArgs {
    /// A file that holds the join token, which workers show to register. It wins over the variable [env: FEDAVG_JOIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
}

impl JoinTokenArgs {
    /// The token, if one was given.
    ///
    /// # Errors
    ///
    /// A file that can't be read, or a token that is empty or that an HTTP header can't hold.
    pub fn token(&self) -> Result<Option<Token>, Failure> {
        given("--join-token-file", self.join_token_file.as_deref(), JOIN)
    }
}

/// An operator's token.
#[derive(Debug, Clone, Default, Args)]
pub struct OperatorTokenArgs {
    /// A file that holds an operator's token; it wins over the variables [env: FEDAVG_TOKEN_FILE, or FEDAVG_TOKEN for the
    /// token itself]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl OperatorTokenArgs {
    /// The token, if one was given.
    ///
    /// # Errors
    ///
    /// As [`JoinTokenArgs::token`].
    pub fn token(&self) -> Result<Option<Token>, Failure> {
        // Not by clap: a variable that is set to nothing counts as unset.
        let named = env::var_os(OPERATOR_FILE).filter(|file| !file.is_empty());
        match (&self.token_file, named) {
            (None, Some(file)) => token_of(OPERATOR_FILE, Path::new(&file)).map(Some),
            (file, _) => given("--token-file", file.as_deref(), OPERATOR),
        }
    }
}

fn given(flag: &str, file: Option<&Path>, variable: &str) -> Result<Option<Token>, Failure> {
    if let Some(file) = file {
        return token_of(flag, file).map(Some);
    }
    let text = env::var(variable).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    parsed(variable, &text).map(Some)
}

/// The token in the file that this flag names.
pub(super) fn token_of(flag: &str, file: &Path) -> Result<Token, Failure> {
    let text = read_text(file, SMALL);
    let text = text.map_err(|failure| Failure::Usage(format!("{flag} {failure}")))?;
    warn_if_shared(file, "chmod 600");
    // Editors end a file with a line break.
    parsed(flag, text.trim())
}

pub(super) fn parsed(from: &str, text: &str) -> Result<Token, Failure> {
    // It travels in a header, which can't have other characters. Spaces at its ends would be cut off on the way.
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Token(text.to_string()));
    }
    Err(Failure::Usage(format!(
        "{from}: the token is empty, or has a space or a character that is not ASCII; use letters, digits and punctuation alone"
    )))
}

/// Refuses a token for a coordinator that could be guessed.
pub(super) fn check_length(from: &str, token: Option<&Token>) -> Result<(), Failure> {
    if token.is_none_or(|token| token.0.len() >= LEAST_LENGTH) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{from}: a token of fewer than {LEAST_LENGTH} characters could be guessed; \"openssl rand -hex 32\" makes one"
    )))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_may_end_in_a_line_break_and_must_hold_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let arguments = JoinTokenArgs {
            join_token_file: Some(file.clone()),
        };
        fs::write(&file, "secret\n").unwrap();
        let token = arguments.token().unwrap().unwrap();
        assert!(token.matches(&Token("secret".to_string())));
        fs::write(&file, "\n").unwrap();
        assert_eq!(arguments.token().unwrap_err().code(), 2);
        fs::remove_file(&file).unwrap();
        assert_eq!(arguments.token().unwrap_err().code(), 2);
        assert_eq!(JoinTokenArgs::default().token().unwrap(), None);
        assert_eq!(OperatorTokenArgs::default().token().unwrap(), None);
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused_and_not_shown() {
        let short = Token("fifteen-letters".to_string());
        let failure = check_length("FEDAVG_JOIN_TOKEN", Some(&short)).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(!failure.to_string().contains(&short.0));
        let long = Token("sixteen-letters!".to_string());
        assert!(check_length("", Some(&long)).is_ok());
        assert!(check_length("", None).is_ok());
    }
}

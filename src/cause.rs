//! The cause of an error, as text and as an error.

use std::{error::Error, fmt, sync::Arc};

/// The cause of an error: a text for people and, if there is one, the error that the text is of, as its source.
///
/// Two are equal if they say the same.
#[derive(Clone)]
pub struct Cause {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    /// Of an error: its text with the texts of its causes.
    pub fn of(error: impl Error + Send + Sync + 'static) -> Self {
        Self {
            text: chain(&error),
            source: Some(Arc::new(error)),
        }
    }

    /// Of an error, after what it is about: a path, for example.
    pub fn about(what: impl fmt::Display, error: impl Error + Send + Sync + 'static) -> Self {
        Self {
            text: format!("{what}: {}", chain(&error)),
            source: Some(Arc::new(error)),
        }
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cause {}

impl fmt::Debug for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_ref()?;
        Some(&**source)
    }
}

/// An error and its causes in one line: the innermost one mostly says what to do.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many errors have their cause's text in their own, `Cause` among them.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::transport::TransportError;

    #[test]
    fn the_error_behind_an_error_is_said_once_and_can_be_found() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "refused");
        let error = TransportError::Unreachable(Cause::of(refused));
        assert_eq!(chain(&error), error.to_string());
        let mut next: Option<&dyn Error> = Some(&error);
        let found = loop {
            let Some(error) = next else {
                panic!("the io error is lost")
            };
            if let Some(found) = error.downcast_ref::<io::Error>() {
                break found;
            }
            next = error.source();
        };
        assert_eq!(found.kind(), io::ErrorKind::ConnectionRefused);
    }
}

//! The credential of an endpoint: read from a file or the environment, compared in constant time, never printed.

use std::fmt;
use std::path::Path;

use subtle::ConstantTimeEq as _;

/// Longest token, in bytes: what the handshake's `token` field holds.
pub const TOKEN_MAX: usize = 128;
/// Shortest token, in bytes: 96 bits where it is random base64.
pub const TOKEN_MIN: usize = 16;

/// What a peer has to know. Its `Debug` form says how long it is and nothing more.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Too short to be safe, or too long for the handshake.
    #[error("token has an illegal length: length={length}, legal={TOKEN_MIN}..={TOKEN_MAX} bytes")]
    Length {
        /// Its length in bytes, surrounding white space taken off.
        length: usize,
    },
    /// White space or control characters inside.
    #[error("token holds white space, control characters or letters beyond ASCII: offset={offset}")]
    Character {
        /// Where the first of them is, in bytes.
        offset: usize,
    },
    /// The file cannot be read.
    #[error("token file cannot be read: {0}")]
    File(String),
    /// The variable is not set, or no text.
    #[error("token variable is not set: name={0}")]
    Environment(String),
}

impl TokenError {
    /// What to change.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Length { .. } | Self::Character { .. } => {
                "make one with: openssl rand -base64 32"
            }
            Self::File(_) => {
                "it is relative to the directory of the configuration file, and text in UTF-8"
            }
            Self::Environment(_) => "set it where the bridge runs, to text in UTF-8",
        }
    }
}

impl Token {
    /// A token from a text; white space around it, such as the end of a line, does not count.
    ///
    /// # Errors
    ///
    /// [`TokenError::Length`] and [`TokenError::Character`]; neither shows the text.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if let Some(offset) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(TokenError::Character { offset });
        }
        if !(TOKEN_MIN..=TOKEN_MAX).contains(&text.len()) {
            return Err(TokenError::Length { length: text.len() });
        }
        Ok(Self(text.to_owned()))
    }

    /// The token in a file.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| TokenError::File(format!("path={}: {error}", path.display())))?;
        Self::new(&text)
    }

    /// The token in a variable of the environment.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub fn from_env(name: &str) -> Result<Self, TokenError> {
        let text = std::env::var(name).map_err(|_| TokenError::Environment(name.to_owned()))?;
        Self::new(&text)
    }

    /// Whether a peer's token is this one. Takes the same time for every text of the same length.
    #[must_use]
    pub fn matches(&self, theirs: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(theirs).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0123456789abcdef";

    #[test]
    fn a_token_matches_itself_only() {
        let token = Token::new(&format!(" {GOOD}\n")).expect("legal");
        assert!(token.matches(GOOD.as_bytes()));
        for other in [
            "",
            "0123456789abcde",
            "0123456789abcdeF",
            "0123456789abcdef0",
        ] {
            assert!(!token.matches(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn nothing_that_is_printed_shows_a_token() {
        let token = Token::new(GOOD).expect("legal");
        assert_eq!(format!("{token:?}"), "Token(16 bytes)");
        for bad in [
            "secret word in here",
            "tooshortsecret",
            "secret-sécret-secret",
        ] {
            let error = Token::new(bad).expect_err(bad);
            assert!(error.hint().contains("openssl rand"), "{error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_missing_source_is_named() {
        let error = Token::from_file(Path::new("/nowhere/token")).expect_err("no file");
        assert!(error.to_string().contains("path=/nowhere/token"), "{error}");
        let error = Token::from_env("MYCELIUM_TEST_NO_SUCH_VARIABLE").expect_err("not set");
        assert!(
            error
                .to_string()
                .contains("name=MYCELIUM_TEST_NO_SUCH_VARIABLE"),
            "{error}"
        );
    }
}

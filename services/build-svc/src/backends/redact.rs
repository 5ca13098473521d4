//! Redacts the service's own credentials from logs and reasons.

use std::{fmt, sync::Arc};

/// Secrets shorter than this are left: redacting them would garble the text and protect nothing.
const SHORTEST: usize = 4;

/// Holds the secrets to redact. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    secrets: Arc<Vec<String>>,
}

impl Redactor {
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = secrets
            .into_iter()
            .filter(|secret| secret.len() >= SHORTEST)
            .collect();
        // The longest first, so that a secret which contains another one is redacted as a whole.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self {
            secrets: Arc::new(secrets),
        }
    }

    /// The text with each secret replaced by `***`. The end of a text that was cut is dropped as far as the beginning of a
    /// secret could reach.
    pub(crate) fn redact(&self, text: &str, cut: bool) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter() {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        if cut && let Some(longest) = self.secrets.first() {
            let mut end = text.len().saturating_sub(longest.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        text
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Redactor;

    #[test]
    fn secrets_disappear() {
        let redactor = Redactor::new(["hunter22".to_owned(), "hunter".to_owned(), "ab".to_owned()]);
        assert_eq!(redactor.redact("x hunter22 ab hunter", false), "x *** ab ***");
        assert_eq!(
            redactor.redact("text that ends with hunt", true),
            "text that ends w"
        );
        assert!(!format!("{redactor:?}").contains("hunter"));
    }
}

//! Why a form of answers is not served.
use crate::error::{Classified, ErrorKind};

/// Longest explanation shown to a client, characters.
const MAX_CHARS: usize = 300;

/// See each variant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GrammarError {
    /// It is wrong, or uses what is not supported.
    #[error("{0}")]
    Invalid(String),
    /// It is over a limit.
    #[error("{0}")]
    TooComplex(String),
    /// It was not compiled in time.
    #[error("the schema or grammar takes longer than {seconds} s to compile; simplify it")]
    TooSlow {
        /// The limit.
        seconds: u64,
    },
    /// Others are being compiled.
    #[error("other schemas and grammars are being compiled; try again later")]
    Busy,
    /// Our own failure.
    #[error("the grammar compiler has failed")]
    Broken,
}

impl GrammarError {
    /// What llguidance says of a grammar.
    pub(super) fn of_compiler(message: &str) -> Self {
        const TOO_MUCH: [&str; 6] = [
            "too big",
            "too complex",
            "too many",
            "too deeply nested",
            "schema too large",
            "fuel exhausted",
        ];
        if message.starts_with("panic:") {
            return Self::Broken;
        }
        let said = cleaned(message);
        if TOO_MUCH.iter().any(|sign| message.contains(sign)) {
            return Self::TooComplex(format!("the schema or grammar is too complex: {said}"));
        }
        Self::Invalid(format!("the schema or grammar cannot be enforced: {said}"))
    }

    /// Whether the same form may fare better the next time.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::TooSlow { .. } | Self::Busy | Self::Broken)
    }

    /// In one word, for the metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::TooComplex(_) | Self::TooSlow { .. } => "too_complex",
            Self::Busy => "busy",
            Self::Broken => "error",
        }
    }
}

impl Classified for GrammarError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::TooComplex(_) | Self::TooSlow { .. } => {
                ErrorKind::InvalidRequest
            }
            Self::Busy => ErrorKind::Overloaded,
            Self::Broken => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_grammar",
            Self::TooComplex(_) | Self::TooSlow { .. } => "grammar_too_complex",
            Self::Busy => "grammar_compiler_busy",
            Self::Broken => "internal_error",
        }
    }
}

/// Without the compiler's state and pictures of the source, on one line, cut.
fn cleaned(message: &str) -> String {
    let end = message.find("\n<").unwrap_or(message.len());
    let words: Vec<&str> = message[..end].split_whitespace().collect();
    let mut text = words.join(" ").replace("Unimplemented keys:", "unsupported keywords:");
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_s_words_become_a_short_sentence() {
        let said = "Unimplemented keys: [\"contains\"]\n<state>\nTokens: secret\n</state>";
        let GrammarError::Invalid(message) = GrammarError::of_compiler(said) else {
            panic!("invalid");
        };
        assert!(message.ends_with("unsupported keywords: [\"contains\"]"), "{message}");
        let GrammarError::Invalid(message) = GrammarError::of_compiler(&"é ".repeat(9000)) else {
            panic!("invalid");
        };
        assert!(message.chars().count() < MAX_CHARS + 60);
    }

    #[test]
    fn what_is_too_much_is_told_from_what_is_wrong() {
        let big = "grammar size (number of symbols) too big (limit for this grammar: 500000)";
        assert_eq!(GrammarError::of_compiler(big).code(), "grammar_too_complex");
        assert_eq!(GrammarError::of_compiler("no start rule found").code(), "invalid_grammar");
        let panic = GrammarError::of_compiler("panic: index out of bounds\n<backtrace>");
        assert_eq!(panic, GrammarError::Broken);
    }
}

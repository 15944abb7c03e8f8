//! Why something far away failed, without what is nobody's business.
use std::error::Error;

/// Longest piece of a server's own words.
const MAX_CHARS: usize = 200;

/// The first cause; those above it repeat it, with URLs.
pub(super) fn first_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let text = cause.to_string();
    let text: Vec<_> = text.split_whitespace().map(without_query).collect();
    let text = text.join(" ");
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Signatures stand in queries.
fn without_query(word: &str) -> &str {
    if word.contains("://") { word.split('?').next().unwrap_or(word) } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn long_answers_are_cut_and_signatures_left_out() {
        let long = io::Error::other("é".repeat(5000));
        assert_eq!(first_cause(&long).chars().count(), MAX_CHARS + 1);
        let signed = io::Error::other("no https://host/x?sig=secret here");
        assert_eq!(first_cause(&signed), "no https://host/x here");
    }
}

//! Words that an answer must not contain, as runs of tokens.
use super::{GenerateError, tokenizer::Tokenizer};

/// Most words of a request.
const MAX_WORDS: usize = 256;
/// Longest word, bytes.
const MAX_BYTES: usize = 256;

/// Whether there are few enough, each short enough and no mere space.
///
/// # Errors
/// What is wrong.
pub(super) fn check(words: &[String]) -> Result<(), GenerateError> {
    if words.len() > MAX_WORDS {
        return Err(refused(format!("`bad_words` may have {MAX_WORDS} words")));
    }
    if words.iter().any(|word| word.trim_start().is_empty() || word.len() > MAX_BYTES) {
        let message = format!(
            "each of `bad_words` must have a character that is no space, and at most {MAX_BYTES} bytes"
        );
        return Err(refused(message));
    }
    Ok(())
}

/// Each word's tokens, and those of the word behind a space where that is a word of its own (vLLM's
/// `update_from_tokenizer`).
///
/// # Errors
/// When the tokenizer's own rules fail.
pub(super) fn runs(
    tokenizer: &Tokenizer,
    words: &[String],
) -> Result<Vec<Vec<u32>>, GenerateError> {
    let mut runs = Vec::with_capacity(2 * words.len());
    for word in words {
        let word = word.trim_start();
        let bare = tokenizer.encode(word, false)?;
        let spaced = tokenizer.encode(&format!(" {word}"), false)?;
        if spaced.len() == bare.len() && spaced.first() != bare.first() {
            runs.push(spaced);
        }
        if !bare.is_empty() {
            runs.push(bare);
        }
    }
    Ok(runs)
}

fn refused(message: String) -> GenerateError {
    GenerateError::Invalid { field: "bad_words", message }
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    #[test]
    fn a_word_is_forbidden_with_a_space_before_it_and_without() {
        let tokenizer = Tokenizer::new(testing::byte_level(), None, None).expect("a tokenizer");
        let ids = |text: &str| tokenizer.encode(text, false).expect("ids");
        let made = runs(&tokenizer, &["  a".into()]).expect("runs");
        assert!(made.contains(&ids("a")));
        let spaced = ids(" a");
        assert_eq!(made.contains(&spaced), spaced.len() == ids("a").len());
        let pieces = Tokenizer::new(testing::sentence_piece(), None, None).expect("a tokenizer");
        let bare = pieces.encode("a", false).expect("ids");
        assert!(runs(&pieces, &["a".into()]).expect("runs").contains(&bare));
    }

    #[test]
    fn nothing_too_long_too_many_and_mere_spaces_are_refused() {
        for words in [vec![String::new()], vec![" ".into()], vec!["x".repeat(257)]] {
            assert!(check(&words).is_err());
        }
        assert!(check(&vec!["x".into(); 257]).is_err());
        check(&["x".into(), " y".into()]).expect("fine");
    }
}

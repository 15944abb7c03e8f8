//! Requests that have texts read instead of continued: what is asked, and what an answer must have.
use super::args::TrafficArgs;
use crate::bench::BenchError;
use serde_json::{Value, json};
use std::{fs, num::NonZeroUsize, sync::Arc};

/// Common words: a token each for most tokenizers of English.
const WORDS: &str = "the of and to in a is that for it was on are as with his they at be this from have or by one had not but \
what all were when we there can an your which their said if do will each about how up out them then she many some so these would \
other into has more her two like him see time could no make than first been its who now people my made over did down only way \
find use may water long little very after words called just where most know";

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Endpoint {
    /// Texts continued, as a stream: `/v1/completions`.
    #[default]
    Completions,
    /// Texts embedded: `/v1/embeddings`.
    Embeddings,
    /// Texts labelled, in vLLM's dialect: `/classify`.
    Classify,
}

impl Endpoint {
    /// Where requests go.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Classify => "/classify",
        }
    }

    /// Whether texts are read instead of continued.
    pub(super) fn reads(self) -> bool {
        self != Self::Completions
    }
}

/// The texts of requests.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    /// Words, or whole texts.
    pieces: Arc<[String]>,
    /// How many of them are one text.
    width: NonZeroUsize,
}

impl Texts {
    /// Lines of a file, or common words.
    ///
    /// # Errors
    /// When the file cannot be read or has no lines.
    pub(super) fn new(args: &TrafficArgs) -> Result<Self, BenchError> {
        let Some(path) = &args.texts else {
            let pieces = WORDS.split(' ').map(str::to_owned).collect();
            return Ok(Self { pieces, width: args.prompt_tokens });
        };
        let usage = |what: String| BenchError::Usage(format!("{}: {what}", path.display()));
        let file = fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
        let lines = file.lines().filter(|line| !line.trim().is_empty());
        let pieces: Arc<[String]> = lines.map(str::to_owned).collect();
        if pieces.is_empty() {
            return Err(usage("no texts; write one a line".to_owned()));
        }
        Ok(Self { pieces, width: NonZeroUsize::MIN })
    }

    /// How many numbers make a request of `inputs` texts.
    pub(super) fn numbers(&self, inputs: NonZeroUsize) -> NonZeroUsize {
        self.width.saturating_mul(inputs)
    }

    /// The texts that random numbers stand for.
    fn of(&self, numbers: &[u32]) -> Vec<String> {
        let piece = |number: &u32| self.pieces[*number as usize % self.pieces.len()].as_str();
        let text = |numbers: &[u32]| numbers.iter().map(piece).collect::<Vec<_>>().join(" ");
        numbers.chunks(self.width.get()).map(text).collect()
    }

    /// A request's body, without the fields that the user adds.
    pub(super) fn body(&self, model: &str, numbers: &[u32]) -> Value {
        json!({"model": model, "input": self.of(numbers)})
    }
}

/// The tokens of an answer that has all of `texts`; `None` where the server does not count them.
pub(super) fn tokens(answer: &Value, texts: usize) -> Result<Option<usize>, String> {
    let read = answer.get("data").and_then(Value::as_array).map_or(0, Vec::len);
    if read != texts {
        return Err(format!("an answer of {read} texts to a request of {texts}"));
    }
    let tokens = answer.pointer("/usage/prompt_tokens").and_then(Value::as_u64);
    Ok(tokens.map(|tokens| tokens as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::plan::tests::traffic;

    #[test]
    fn texts_have_as_many_words_as_prompts_have_tokens() {
        let texts = Texts::new(&traffic(&["--prompt-tokens", "3"])).expect("words");
        assert_eq!(texts.numbers(NonZeroUsize::new(2).expect("two")).get(), 6);
        let body = texts.body("a", &[0, 1, 2, 3, 4, 0]);
        assert_eq!(body, json!({"model": "a", "input": ["the of and", "to in the"]}));
    }

    #[test]
    fn a_file_has_a_text_a_line() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, "One text.\n\nAnd another.\n").expect("written");
        let args = traffic(&["--texts", file.path().to_str().expect("a path")]);
        let texts = Texts::new(&args).expect("texts");
        assert_eq!(texts.of(&[3, 2]), ["And another.", "One text."]);
        fs::write(&file, "\n").expect("written");
        assert!(Texts::new(&args).expect_err("no texts").to_string().contains("one a line"));
    }

    #[test]
    fn an_answer_has_every_text() {
        let answer = json!({"data": [{}, {}], "usage": {"prompt_tokens": 9}});
        assert_eq!(tokens(&answer, 2), Ok(Some(9)));
        assert!(tokens(&answer, 3).unwrap_err().contains("2 texts"));
        assert_eq!(tokens(&json!({"data": [{}]}), 1), Ok(None));
    }
}

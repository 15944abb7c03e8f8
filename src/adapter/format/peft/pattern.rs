//! PEFT's ways of matching a module's path, with bounded work.
use crate::adapter::{AdapterError, format::tensors::quoted};
use fancy_regex::{Regex, RegexBuilder};

/// Steps a backtracking match may take; the expressions people write take some tens.
const BACKTRACK_LIMIT: usize = 10_000;
const SIZE_LIMIT: usize = 1 << 20;
const MAX_CHARS: usize = 16_384;

/// A regular expression of a config, compiled once.
#[derive(Debug)]
pub(super) struct Pattern {
    field: &'static str,
    source: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Only letters, digits, `_` and dots: compared from the end, a dot standing for any character.
    Suffix,
    Regex(Box<Regex>),
}

impl Pattern {
    /// `re.fullmatch(source, path)`
    pub(super) fn full(field: &'static str, source: &str) -> Result<Self, AdapterError> {
        Self::compile(field, source, &format!(r"\A(?:{source})\z"))
    }

    /// `re.match(rf"(.*\.)?({source})$", path)`: `rank_pattern` and `alpha_pattern`.
    pub(super) fn suffix(field: &'static str, source: &str) -> Result<Self, AdapterError> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'.';
        if source.bytes().all(plain) && source.len() <= MAX_CHARS {
            return Ok(Self { field, source: source.to_owned(), form: Form::Suffix });
        }
        Self::compile(field, source, &format!(r"\A(.*\.)?({source})\z"))
    }

    /// `re.match(rf"(?:^|.*?\.){source}\.(?P<idx>\d+)\.", path)`: `layers_pattern`.
    pub(super) fn layer(field: &'static str, source: &str) -> Result<Self, AdapterError> {
        Self::compile(field, source, &format!(r"\A(?:(?:^|.*?\.){source}\.(?P<idx>\d+)\.)"))
    }

    fn compile(field: &'static str, source: &str, whole: &str) -> Result<Self, AdapterError> {
        if source.len() > MAX_CHARS {
            return Err(AdapterError::invalid(format!(
                "a regular expression in `{field}` has {} characters, the limit is {MAX_CHARS}",
                source.len()
            )));
        }
        let regex = RegexBuilder::new(whole)
            .backtrack_limit(BACKTRACK_LIMIT)
            .delegate_size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| {
                AdapterError::invalid(format!(
                    "`{field}` has {}, which is not a usable regular expression: {error}",
                    quoted(source)
                ))
            })?;
        Ok(Self { field, source: source.to_owned(), form: Form::Regex(Box::new(regex)) })
    }

    /// Whether matching costs no regular expression.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.form, Form::Suffix)
    }

    /// # Errors
    /// When the match takes too many steps.
    pub(super) fn matches(&self, path: &str) -> Result<bool, AdapterError> {
        match &self.form {
            Form::Suffix => Ok(ends_with(path.as_bytes(), self.source.as_bytes())),
            Form::Regex(regex) => regex.is_match(path).map_err(|error| self.too_costly(&error)),
        }
    }

    /// The number in the group `idx` of the first match.
    pub(super) fn index(&self, path: &str) -> Result<Option<usize>, AdapterError> {
        let Form::Regex(regex) = &self.form else { return Ok(None) };
        let captures = regex.captures(path).map_err(|error| self.too_costly(&error))?;
        let digits = captures.as_ref().and_then(|found| found.name("idx"));
        Ok(digits.and_then(|digits| digits.as_str().parse().ok()))
    }

    fn too_costly(&self, error: &fancy_regex::Error) -> AdapterError {
        AdapterError::invalid(format!(
            "`{}` has {}, which takes too long to match ({error}): list the modules instead",
            self.field,
            quoted(&self.source)
        ))
    }
}

/// `(.*\.)?(source)$` for a source without operators but the dot.
fn ends_with(path: &[u8], source: &[u8]) -> bool {
    let Some(start) = path.len().checked_sub(source.len()) else { return false };
    let same = |(p, s): (&u8, &u8)| p == s || *s == b'.';
    (start == 0 || path[start - 1] == b'.') && path[start..].iter().zip(source).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "model.layers.12.self_attn.q_proj";

    #[test]
    fn suffixes_start_at_a_dot() {
        for (source, wanted) in [
            ("q_proj", true),
            ("self_attn.q_proj", true),
            ("layers.12.self_attn.q_proj", true),
            ("2.self_attn.q_proj", false),
            ("proj", false),
            (r".*layers\.(1[0-9])\.self_attn\.q_proj", true),
            (r"^model.layers.12.self_attn.q_proj", true),
            (r"^layers.12.self_attn.q_proj", false),
            ("k_proj|q_proj", true),
            ("", false),
        ] {
            let pattern = Pattern::suffix("rank_pattern", source).expect("compiles");
            assert_eq!(pattern.matches(PATH).expect("cheap"), wanted, "{source}");
        }
    }

    #[test]
    fn each_alternative_of_a_layer_list_starts_at_the_path() {
        // As in PEFT, the prefix belongs to the first alternative and the index to the last.
        let pattern = Pattern::layer("layers_pattern", "h|layers").expect("compiles");
        for (path, wanted) in
            [("layers.12.self_attn.q_proj", Some(12)), (PATH, None), ("model.h.12.q_proj", None)]
        {
            assert_eq!(pattern.index(path).expect("cheap"), wanted, "{path}");
        }
        let grouped = Pattern::layer("layers_pattern", "(?:h|layers)").expect("compiles");
        assert_eq!(grouped.index(PATH).expect("cheap"), Some(12));
    }

    #[test]
    fn costly_expressions_are_an_error() {
        let bomb = Pattern::full("target_modules", r"(?:(a|aa)+\1)+b").expect("compiles");
        let error = bomb.matches(&"a".repeat(64)).expect_err("too many steps").to_string();
        assert!(error.contains("target_modules"), "{error}");
        for broken in ["(", "a{100000}{100000}", "["] {
            assert!(Pattern::full("target_modules", broken).is_err(), "{broken}");
        }
        assert!(Pattern::full("target_modules", &"(".repeat(16_000)).is_err());
    }

    proptest! {
        #[test]
        fn the_short_way_matches_what_the_expression_matches(
            path in "[ab.]{0,8}", source in "[ab.]{0,5}",
        ) {
            let regex = Regex::new(&format!(r"\A(.*\.)?({source})\z")).expect("plain");
            prop_assert_eq!(
                Pattern::suffix("rank_pattern", &source).expect("plain").matches(&path).expect("cheap"),
                regex.is_match(&path).expect("cheap")
            );
        }

        #[test]
        fn no_expression_panics(source in "\\PC{0,40}") {
            for pattern in [Pattern::full("f", &source), Pattern::suffix("f", &source), Pattern::layer("f", &source)]
                .into_iter()
                .flatten()
            {
                let _ = pattern.matches(PATH);
                let _ = pattern.index(PATH);
            }
        }
    }
}

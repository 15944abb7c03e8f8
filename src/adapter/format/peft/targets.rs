//! Which modules a config selects: `peft.tuners.tuners_utils.check_target_module_exists`.
use super::pattern::Pattern;
use crate::adapter::AdapterError;
use std::collections::HashSet;

/// `target_modules`, `exclude_modules`, `layers_to_transform` and `layers_pattern` together.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) include: Include,
    pub(super) exclude: Option<Modules>,
    /// Empty: every layer.
    pub(super) layers: HashSet<usize>,
    /// Name of the module list that `layers` counts in; empty: any.
    pub(super) layers_patterns: Vec<Pattern>,
}

#[derive(Debug)]
pub(super) enum Include {
    /// `"all-linear"`: every linear layer but the output head, and but the head of a `SEQ_CLS` model.
    AllLinear,
    Modules(Modules),
}

/// A regular expression over the whole path, or a list of paths and ends of paths.
#[derive(Debug)]
pub(super) enum Modules {
    Matching(Pattern),
    Named(HashSet<String>),
}

impl Modules {
    fn contains(&self, path: &str) -> Result<bool, AdapterError> {
        match self {
            Self::Matching(pattern) => pattern.matches(path),
            Self::Named(names) => Ok(names.contains(path) || Self::has_end(names, path)),
        }
    }

    fn has_end(names: &HashSet<String>, path: &str) -> bool {
        path.match_indices('.').any(|(dot, _)| names.contains(&path[dot + 1..]))
    }
}

impl Targets {
    /// Whether the config puts a pair of factors on the module at `path` (`model.layers.0.self_attn.q_proj`), which
    /// `"all-linear"` may or may not mean.
    ///
    /// # Errors
    /// When a regular expression takes too long.
    pub(super) fn select(&self, path: &str, in_all: bool) -> Result<bool, AdapterError> {
        if let Some(exclude) = &self.exclude
            && exclude.contains(path)?
        {
            return Ok(false);
        }
        match &self.include {
            Include::AllLinear => Ok(in_all),
            Include::Modules(Modules::Named(names)) if names.contains(path) => Ok(true),
            Include::Modules(modules) => Ok(modules.contains(path)? && self.in_layers(path)?),
        }
    }

    fn in_layers(&self, path: &str) -> Result<bool, AdapterError> {
        if self.layers.is_empty() {
            return Ok(true);
        }
        let index = if self.layers_patterns.is_empty() {
            first_index(path)
        } else {
            let found = self.layers_patterns.iter().map(|pattern| pattern.index(path));
            found.into_iter().find_map(Result::transpose).transpose()?
        };
        Ok(index.is_some_and(|index| self.layers.contains(&index)))
    }
}

/// `re.match(r".*?\.[^.]*\.(?P<idx>\d+)\.", path)`: the first numbered segment with two before and one after it.
fn first_index(path: &str) -> Option<usize> {
    let segments: Vec<_> = path.split('.').collect();
    let inner = segments.get(2..segments.len().saturating_sub(1)).unwrap_or_default();
    let number =
        inner.iter().find(|text| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()));
    number.and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q12: &str = "model.layers.12.self_attn.q_proj";

    fn named(names: &[&str]) -> Targets {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Targets {
            include: Include::Modules(Modules::Named(names)),
            exclude: None,
            layers: HashSet::new(),
            layers_patterns: Vec::new(),
        }
    }

    fn selects(targets: &Targets, path: &str) -> bool {
        targets.select(path, true).expect("cheap")
    }

    #[test]
    fn names_are_whole_segments_at_the_end() {
        assert!(selects(&named(&["q_proj"]), Q12));
        assert!(selects(&named(&["self_attn.q_proj"]), Q12));
        assert!(selects(&named(&[Q12]), Q12));
        assert!(!selects(&named(&["proj", "layers.12", "v_proj"]), Q12));
    }

    #[test]
    fn layers_are_counted_in_the_named_list() {
        let mut targets = named(&["q_proj"]);
        targets.layers = HashSet::from([12]);
        assert!(selects(&targets, Q12));
        assert!(!selects(&targets, "model.layers.1.self_attn.q_proj"));
        targets.layers_patterns = vec![Pattern::layer("layers_pattern", "h").expect("compiles")];
        assert!(!selects(&targets, Q12));
        targets.layers_patterns.push(Pattern::layer("layers_pattern", "layers").expect("compiles"));
        assert!(selects(&targets, Q12));
    }

    #[test]
    fn a_whole_path_is_selected_whatever_the_layers_say() {
        let mut targets = named(&[Q12]);
        targets.layers = HashSet::from([1]);
        assert!(selects(&targets, Q12));
    }

    #[test]
    fn exclusion_wins() {
        let mut targets = named(&["q_proj"]);
        targets.exclude = Some(Modules::Matching(
            Pattern::full("exclude_modules", r".*\.12\..*").expect("compiles"),
        ));
        assert!(!selects(&targets, Q12));
        assert!(selects(&targets, "model.layers.1.self_attn.q_proj"));
    }
}

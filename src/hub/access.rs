//! Whether the hub may be asked, and whether it lets us in.
use hf_hub::HFError;
use std::env;

/// The variable that forbids to ask the network.
pub(crate) const OFFLINE: &str = "HF_HUB_OFFLINE";

/// Whether the environment forbids to ask the network.
pub(crate) fn is_offline() -> bool {
    says_yes(env::var(OFFLINE).ok().as_deref())
}

/// The Python library's rule.
fn says_yes(variable: Option<&str>) -> bool {
    let yes = ["1", "on", "yes", "true"];
    variable.is_some_and(|value| yes.contains(&value.to_ascii_lowercase().as_str()))
}

/// Without rights the hub says now that there is nothing, now that it is not for us.
pub(crate) fn is_hidden(error: &HFError) -> bool {
    match error {
        HFError::RepoNotFound { .. } | HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
            true
        }
        HFError::Http { context } => matches!(context.status.as_u16(), 401 | 403),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_is_said_as_the_python_library_reads_it() {
        assert!(["1", "ON", "yes", "True"].iter().all(|value| says_yes(Some(value))));
        assert!([None, Some("0"), Some(""), Some("false")].iter().all(|value| !says_yes(*value)));
    }
}

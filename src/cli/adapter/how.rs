//! What becomes of requests that run on a version which goes.
use super::error::CommandError;
use clap::ValueEnum;

/// Pin, drain or cancel.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct PolicyArgs {
    /// What becomes of requests that run on the version that goes: they finish (pin, the default), have --drain-seconds
    /// to finish, or fail now (cancel)
    #[arg(long, value_name = "POLICY")]
    policy: Option<Policy>,
    /// Seconds that --policy drain gives them [default: 30]
    #[arg(long, value_name = "SECONDS", requires = "policy")]
    drain_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Policy {
    Pin,
    Drain,
    Cancel,
}

impl PolicyArgs {
    /// As the API's query says it.
    ///
    /// # Errors
    /// For seconds that nothing waits for.
    pub(super) fn query(self) -> Result<Vec<(&'static str, String)>, CommandError> {
        if self.drain_seconds.is_some() && self.policy != Some(Policy::Drain) {
            return Err(CommandError::usage("--drain-seconds goes with --policy drain"));
        }
        let name = |policy| match policy {
            Policy::Pin => "pin",
            Policy::Drain => "drain",
            Policy::Cancel => "cancel",
        };
        let policy = self.policy.map(|policy| ("policy", name(policy).to_owned()));
        let seconds = self.drain_seconds.map(|seconds| ("drain_seconds", seconds.to_string()));
        Ok(policy.into_iter().chain(seconds).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_go_with_a_drain() {
        let args = |policy, drain_seconds| PolicyArgs { policy, drain_seconds };
        assert_eq!(args(None, None).query().expect("valid"), []);
        let drain = args(Some(Policy::Drain), Some(5)).query().expect("valid");
        assert_eq!(drain, [("policy", "drain".to_owned()), ("drain_seconds", "5".to_owned())]);
        assert!(args(Some(Policy::Cancel), Some(5)).query().is_err());
    }
}

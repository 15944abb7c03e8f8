//! On which terms a name is served: its owner's wishes, kept with it over versions and restarts.
use serde::{Deserialize, Serialize};

/// See each field. A new name has the default ones.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterTerms {
    /// Stays in host memory and, once there, in its adapter slot.
    pub pin: bool,
    /// Its part of the machine when several adapters want all of it: twice the share, twice the tokens.
    pub share: f32,
    /// Most requests at one time, waiting and running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Most requests that start in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// SHA-256 of the API keys that may use it, in hexadecimal digits; with none of them everybody may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Versions that are kept, the current one included; unset, as many as the server keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_versions: Option<usize>,
}

impl Default for AdapterTerms {
    fn default() -> Self {
        Self {
            pin: false,
            share: 1.0,
            max_requests: None,
            requests_per_minute: None,
            keys: Vec::new(),
            keep_versions: None,
        }
    }
}

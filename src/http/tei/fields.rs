//! What this dialect's routes share.
use crate::generation::{Keep, Truncation};
use serde::Deserialize;

/// As they came; `null` is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cut {
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
}

/// Where a long text is cut; clients spell it in both ways.
#[derive(Clone, Copy, Debug, Deserialize)]
enum Direction {
    #[serde(alias = "left")]
    Left,
    #[serde(alias = "right")]
    Right,
}

impl Cut {
    /// What becomes of long texts.
    pub(super) fn truncation(&self) -> Truncation {
        let keep = match self.truncation_direction {
            None | Some(Direction::Right) => Keep::First,
            Some(Direction::Left) => Keep::Last,
        };
        Truncation { cut: self.truncate, limit: None, keep }
    }
}

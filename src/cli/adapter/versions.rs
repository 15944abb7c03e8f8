//! Versions as people write them: whole, or as their first digits.
use super::{
    client::Server,
    error::CommandError,
    words::{clean, short},
};
use serde_json::Value;

/// Fewest digits that name a version.
const FEWEST: usize = 8;
/// Digits of a whole version.
const WHOLE: usize = 64;

/// `NAME`, or `NAME@VERSION` with a version of at least so many digits.
pub(super) fn split_version(text: &str) -> (&str, Option<&str>) {
    match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    }
}

/// The whole version of `name` that `text` is, or begins.
///
/// # Errors
/// When it begins none or several, and when the server does not tell.
pub(super) async fn whole(server: &Server, name: &str, text: &str) -> Result<String, CommandError> {
    let text = checked(text)?;
    if text.len() == WHOLE {
        return Ok(text);
    }
    let page = server.json(server.get(&["admin", "adapters", name])).await?;
    let known = |entry: &Value| entry.get("version").and_then(Value::as_str).map(str::to_owned);
    let kept = page.get("versions").and_then(Value::as_array);
    let kept: Vec<String> = match kept {
        Some(versions) => versions.iter().filter_map(known).collect(),
        None => known(&page).into_iter().collect(),
    };
    only(name, &text, &kept)
}

/// In lower case, when it can be the beginning of a version.
fn checked(text: &str) -> Result<String, CommandError> {
    let is_hex = text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_hex && (FEWEST..=WHOLE).contains(&text.len()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(CommandError::usage(format!(
        "a version is the {WHOLE} hexadecimal digits of its hash, or the first {FEWEST} or more of them, not `{}`",
        clean(text).chars().take(80).collect::<String>()
    )))
}

fn only(name: &str, start: &str, kept: &[String]) -> Result<String, CommandError> {
    let mut matching = kept.iter().filter(|version| version.starts_with(start));
    let listed = |versions: Vec<&String>| {
        versions.into_iter().map(|version| short(version)).collect::<Vec<_>>().join(", ")
    };
    match (matching.next(), matching.next()) {
        (Some(version), None) => Ok(version.clone()),
        (None, _) => Err(CommandError::failed(format!(
            "adapter `{name}` has no version that begins with {start}; it has {}",
            listed(kept.iter().collect())
        ))),
        (Some(_), Some(_)) => Err(CommandError::failed(format!(
            "several versions of adapter `{name}` begin with {start}: give more digits"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_known_by_its_first_digits() {
        let (one, two) = (format!("{}{}", "ab".repeat(4), "0".repeat(56)), "cd".repeat(32));
        let three = format!("{}{}", "ab".repeat(4), "1".repeat(56));
        let kept = [one.clone(), two.clone()];
        assert_eq!(only("a", "abababab", &kept).expect("one"), one);
        let error = only("a", "12345678", &kept).expect_err("none").to_string();
        assert!(error.contains("abababab0000, cdcdcdcdcdcd"), "{error}");
        let several = [one, three];
        let error = only("a", "abababab", &several).expect_err("two").to_string();
        assert!(error.contains("more digits"), "{error}");
        assert_eq!(checked("ABABABAB").expect("hex"), "abababab");
        for wrong in ["", "abc", "ababababx", "é".repeat(8).as_str(), &"a".repeat(65)] {
            assert!(matches!(checked(wrong), Err(CommandError::Usage(_))), "{wrong}");
        }
        assert_eq!(split_version("a@12"), ("a", Some("12")));
        assert_eq!(split_version("a"), ("a", None));
    }
}

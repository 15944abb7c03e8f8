//! Which versions answered, as every response says.
use crate::generation::ServedAdapter;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

/// `x-lorad-adapter`: `NAME@VERSION`, with commas between the adapters of a mix and `;weight=` where one does not
/// count whole; nothing for the base.
pub(super) fn header(served: &[ServedAdapter]) -> HeaderMap {
    let entry = |one: &ServedAdapter| match one.weight {
        1.0 => format!("{}@{}", one.name, one.version),
        weight => format!("{}@{};weight={weight}", one.name, one.version),
    };
    let entries: Vec<_> = served.iter().map(entry).collect();
    let value = HeaderValue::try_from(entries.join(", ")).ok().filter(|value| !value.is_empty());
    value.map(|value| (HeaderName::from_static("x-lorad-adapter"), value)).into_iter().collect()
}

/// The same as a list of objects; `None` for the base.
pub(super) fn list(served: &[ServedAdapter]) -> Option<Value> {
    let entry = |one: &ServedAdapter| {
        json!({
            "name": one.name.as_str(),
            "version": one.version.to_string(),
            "weight": one.weight,
        })
    };
    (!served.is_empty()).then(|| served.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::VersionId;

    #[test]
    fn each_adapter_is_told_with_its_version_and_the_base_is_not() {
        let served = |name: &str, weight| ServedAdapter {
            name: name.parse().expect("a name"),
            version: VersionId([0xab; 32]),
            weight,
        };
        let version = "ab".repeat(32);
        let one = [served("rate", 1.0)];
        assert_eq!(header(&one)["x-lorad-adapter"], format!("rate@{version}"));
        let mix = [served("rate", 0.5), served("sql", 1.0)];
        let expected = format!("rate@{version};weight=0.5, sql@{version}");
        assert_eq!(header(&mix)["x-lorad-adapter"], expected);
        let expected = json!([{"name": "rate", "version": version, "weight": 0.5},
                              {"name": "sql", "version": version, "weight": 1.0}]);
        assert_eq!(list(&mix), Some(expected));
        assert!(header(&[]).is_empty() && list(&[]).is_none());
    }
}

//! Which adapters the snapshot names.
use crate::adapter::AdapterName;
use std::collections::BTreeSet;

/// Makes `list` the distinct `names`, in order; hardly ever is there anything to do.
pub(super) fn rename<'a>(
    list: &mut Vec<String>,
    names: impl Iterator<Item = &'a AdapterName> + Clone,
) {
    let known = |name: &AdapterName| list.iter().any(|listed| listed == name.as_str());
    let named = |listed: &String| names.clone().any(|name| name.as_str() == listed);
    if names.clone().all(known) && list.iter().all(named) {
        return;
    }
    let distinct: BTreeSet<_> = names.collect();
    *list = distinct.into_iter().map(ToString::to_string).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_once_in_order_and_go_again() {
        let mut list = Vec::new();
        for (names, expected) in [
            (&["b", "a", "b"][..], &["a", "b"][..]),
            (&["a"], &["a"]),
            (&["c"], &["c"]),
            (&[], &[]),
        ] {
            let names: Vec<AdapterName> =
                names.iter().map(|name| name.parse().expect("a name")).collect();
            for _ in 0..2 {
                rename(&mut list, names.iter());
                assert_eq!(list, expected);
            }
        }
    }
}

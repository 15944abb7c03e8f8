//! Columns of text.

/// Between two columns.
const GAP: &str = "  ";

/// Where a column's texts stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Left,
    Right,
}

/// A heading and rows of as many cells, without a last line break.
pub(super) fn table(columns: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let all = || std::iter::once(&heading).chain(rows);
    let width = |at: usize| all().filter_map(|row| row.get(at)).map(|cell| chars(cell)).max();
    let widths: Vec<_> = (0..columns.len()).map(|at| width(at).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(columns).zip(&widths);
        let cells = cells.map(|((cell, (_, side)), width)| {
            let space = " ".repeat(width.saturating_sub(chars(cell)));
            match side {
                Side::Left => format!("{cell}{space}"),
                Side::Right => format!("{space}{cell}"),
            }
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

/// Names and values under each other, without a last line break.
pub(super) fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| chars(name)).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{name:<width$}{GAP}{value}");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let columns = [("NAME", Side::Left), ("SIZE", Side::Right), ("USED", Side::Left)];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["a", "1.50 MiB", "never"]), row(["pirate-é", "2 B", "-"])];
        let expected = "NAME          SIZE  USED\n\
                        a         1.50 MiB  never\n\
                        pirate-é       2 B  -";
        assert_eq!(table(&columns, &rows), expected);
        assert_eq!(table(&columns, &[]), "NAME  SIZE  USED");
    }

    #[test]
    fn pairs_stand_under_each_other() {
        let rows = [("rank", "8".to_owned()), ("file bytes", "12".to_owned())];
        assert_eq!(pairs(&rows), "rank        8\nfile bytes  12");
    }
}

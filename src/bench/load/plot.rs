//! Plots as SVG.
use std::fmt::Write;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 240.0;
/// Room for the axes' numbers.
const MARGIN: f64 = 50.0;
const COLOURS: [&str; 6] = ["#1f6fb2", "#d1495b", "#3a7d44", "#8f5db7", "#c77c02", "#4a4a4a"];

/// A curve and its name, which is written as it is.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// How much of all is not above each value, percent.
pub(super) fn cumulative(mut values: Vec<f64>) -> Vec<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let share = 100.0 / values.len().max(1) as f64;
    values.into_iter().zip(1..).map(|(value, rank)| (value, f64::from(rank) * share)).collect()
}

/// Curves over common axes that begin at 0.
pub(super) fn lines(lines: &[Line], x_unit: &str, y_unit: &str) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_max = points().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let y_max = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| MARGIN + value / x_max * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - value / y_max * (HEIGHT - 2.0 * MARGIN);
    let mut svg = open(HEIGHT);
    axes(&mut svg, (x_max, x_unit), (y_max, y_unit));
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path = line.points.iter().fold(String::new(), |mut path, point| {
            let _ = write!(path, "{:.1},{:.1} ", x(point.0), y(point.1));
            path
        });
        let _ = write!(
            svg,
            r#"<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>"#
        );
    }
    if lines.len() > 1 {
        legend(&mut svg, lines);
    }
    svg + "</svg>"
}

/// A bar for each request: sent, first token, end, in seconds; and the colour's number.
pub(super) fn timeline(bars: &[([f64; 3], usize)], seconds: f64) -> String {
    let (x, row) = (|at: f64| at / seconds.max(f64::MIN_POSITIVE) * WIDTH, 6.0);
    let mut svg = open(bars.len() as f64 * row);
    for (index, ([sent, first, ended], colour)) in bars.iter().enumerate() {
        let (top, colour) = (index as f64 * row, COLOURS[colour % COLOURS.len()]);
        for (from, to, opacity) in [(sent, first, 0.35), (first, ended, 1.0)] {
            let _ = write!(
                svg,
                r#"<rect x="{:.1}" y="{top}" width="{:.1}" height="{}" fill="{colour}" fill-opacity="{opacity}"/>"#,
                x(*from),
                x((to - from).max(0.0)),
                row - 1.0
            );
        }
    }
    svg + "</svg>"
}

fn open(height: f64) -> String {
    format!(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">"#)
}

fn axes(svg: &mut String, (x_max, x_unit): (f64, &str), (y_max, y_unit): (f64, &str)) {
    let (left, right, bottom) = (MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN);
    let _ =
        write!(svg, r##"<path d="M{left} {MARGIN}V{bottom}H{right}" fill="none" stroke="#888"/>"##);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let (x, y) = (left + share * (right - left), bottom - share * (bottom - MARGIN));
        let (x_value, y_value) = (number(share * x_max), number(share * y_max));
        let _ = write!(
            svg,
            r#"<text x="{x}" y="{}" text-anchor="middle">{x_value}</text><text x="{}" y="{y}" text-anchor="end">{y_value}</text>"#,
            bottom + 16.0,
            left - 6.0
        );
    }
    let _ = write!(
        svg,
        r#"<text x="{right}" y="{}" text-anchor="end">{x_unit}</text><text x="{left}" y="{}">{y_unit}</text>"#,
        bottom + 32.0,
        MARGIN - 12.0
    );
}

/// With as many digits as an axis needs.
fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn legend(svg: &mut String, lines: &[Line]) {
    for (index, (line, colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let (x, name) = (MARGIN + 120.0 + 300.0 * index as f64, &line.name);
        let _ = write!(svg, r#"<text x="{x}" y="20" fill="{colour}">{name}</text>"#);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cumulative_curve_ends_at_all() {
        assert_eq!(cumulative(vec![3.0, 1.0]), [(1.0, 50.0), (3.0, 100.0)]);
        assert!(cumulative(Vec::new()).is_empty());
    }

    #[test]
    fn a_plot_of_nothing_is_still_a_plot() {
        let empty = lines(&[Line { name: "a".into(), points: Vec::new() }], "ms", "%");
        assert!(empty.starts_with("<svg") && empty.ends_with("</svg>") && !empty.contains("NaN"));
        assert!(!timeline(&[([0.0, 0.0, 0.0], 0)], 0.0).contains("NaN"));
    }

    #[test]
    fn the_largest_value_touches_the_axis_end() {
        let svg = lines(&[Line { name: "a".into(), points: vec![(0.0, 0.0), (5.0, 2.0)] }], "", "");
        assert!(svg.contains("50.0,190.0 750.0,50.0"), "{svg}");
    }
}

//! Figures and plots on one page that needs nothing else.
use super::{
    drive::Run,
    plot::{Line, cumulative, lines, timeline},
    sample::Sample,
    stats::milliseconds,
    summary::Summary,
};
use std::fmt::Write;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>lorad bench</title>\n\
<style>body{font:14px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}pre{background:#f4f4f4;padding:1em;\
overflow-x:auto}svg{width:100%;height:auto}text{font:11px sans-serif}</style>\n<h1>lorad bench</h1>\n";

/// One page for the runs, each with its figures.
pub(super) fn page(runs: &[(&Summary, &Run)]) -> String {
    let mut html = HEAD.to_owned();
    for (summary, run) in runs {
        let text = escape(&summary.to_string());
        section(&mut html, &summary.server, &format!("<pre>{text}</pre>"));
        section(&mut html, "Requests over time (light: until the first token)", &requests(run));
    }
    let ends = ("End to end", ends as fn(&Run) -> Vec<f64>);
    let mut figures = vec![ends];
    if runs.iter().all(|(summary, _)| summary.texts_per_second.is_none()) {
        let throughput = lines(&curves(runs, throughput), "s", "tokens/s");
        section(&mut html, "Output tokens a second", &throughput);
        figures = vec![("Time to the first token", first_tokens), ("Between tokens", gaps), ends];
    }
    for (title, values) in figures {
        let curve = |run: &Run| cumulative(values(run));
        section(&mut html, title, &lines(&curves(runs, curve), "ms", "% of all"));
    }
    html
}

fn section(html: &mut String, title: &str, content: &str) {
    // A string takes everything.
    let _ = writeln!(html, "<h2>{}</h2>\n{content}", escape(title));
}

fn curves(runs: &[(&Summary, &Run)], points: impl Fn(&Run) -> Vec<(f64, f64)>) -> Vec<Line> {
    let line = |(summary, run): &(&Summary, &Run)| Line {
        name: escape(&summary.server),
        points: points(run),
    };
    runs.iter().map(line).collect()
}

fn whole(run: &Run) -> impl Iterator<Item = &Sample> {
    run.samples.iter().filter(|sample| sample.failure.is_none())
}

fn first_tokens(run: &Run) -> Vec<f64> {
    whole(run).filter_map(Sample::first_piece).map(milliseconds).collect()
}

fn gaps(run: &Run) -> Vec<f64> {
    whole(run).flat_map(Sample::pauses).map(milliseconds).collect()
}

fn ends(run: &Run) -> Vec<f64> {
    whole(run).map(|sample| milliseconds(sample.end_to_end())).collect()
}

fn requests(run: &Run) -> String {
    let bars = run.samples.iter().map(|sample| {
        let first = sample.pieces.first().unwrap_or(&sample.ended);
        ([sample.sent, *first, sample.ended].map(|time| time.as_secs_f64()), sample.route)
    });
    timeline(&bars.collect::<Vec<_>>(), run.wall.as_secs_f64())
}

/// Pieces in each of fifty parts of the run.
fn throughput(run: &Run) -> Vec<(f64, f64)> {
    const PARTS: usize = 50;
    let width = run.wall.as_secs_f64() / PARTS as f64;
    let mut counts = [0; PARTS];
    for piece in whole(run).flat_map(|sample| &sample.pieces) {
        counts[((piece.as_secs_f64() / width) as usize).min(PARTS - 1)] += 1;
    }
    let point = |(part, count)| ((part as f64 + 0.5) * width, f64::from(count) / width);
    counts.into_iter().enumerate().map(point).collect()
}

/// Text inside HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape(r#"<a href="x">&"#), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}

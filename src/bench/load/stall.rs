//! What one long prompt does to the streams that run.
use super::{
    args::TrafficArgs,
    client::Client,
    plan::{Planned, plan},
    sample::Sample,
    stats::{Spread, milliseconds},
};
use crate::bench::BenchError;
use futures_util::future::join_all;
use serde::Serialize;
use std::{
    fmt,
    num::NonZeroUsize,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Pieces that every stream has brought before the long prompt is sent.
const SETTLED: usize = 16;

/// The gaps between tokens of the running streams.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Stall {
    server: String,
    streams: usize,
    prompt_tokens: usize,
    /// When every stream had begun and the prompt was not sent yet.
    before: Spread,
    /// From its sending to its first token.
    during: Spread,
    /// The long prompt's own time to its first token, milliseconds.
    first_token: f64,
}

/// Runs `concurrency` streams and sends a prompt of `tokens` tokens into them.
pub(super) async fn measure(
    client: &Client,
    args: &TrafficArgs,
    tokens: usize,
) -> Result<Stall, BenchError> {
    let (settled, news) = unbounded_channel();
    let requests = plan(args, client.target.routes(), args.concurrency.get(), args.seed);
    let clock = Instant::now();
    let streams: Vec<_> = requests
        .iter()
        .map(|request| stream(client, args, request, clock, settled.clone()))
        .collect();
    // Each stream has its own; when the last one ends, nobody waits for news of it.
    drop(settled);
    let long = send_long(client, args, tokens, clock, news);
    let (streams, long) = tokio::join!(join_all(streams), long);
    let failed = |detail: String| BenchError::Server { url: client.target.url.clone(), detail };
    if let Some(failure) = streams.iter().find_map(|sample| sample.failure.clone()) {
        return Err(failed(failure));
    }
    let long = long.ok_or_else(|| failed(short()))?;
    if let Some(failure) = long.failure {
        return Err(failed(format!("the long prompt: {failure}")));
    }
    let spread = Gaps { streams: &streams, long: &long };
    let (before, during) = spread.before().zip(spread.during()).ok_or_else(|| failed(short()))?;
    let first_token = milliseconds(long.first_piece().unwrap_or(long.end_to_end()));
    let server = client.target.url.clone();
    let streams = streams.len();
    Ok(Stall { server, streams, prompt_tokens: tokens, before, during, first_token })
}

fn short() -> String {
    "the streams ended before the long prompt was answered; raise --output-tokens".to_owned()
}

async fn stream(
    client: &Client,
    args: &TrafficArgs,
    request: &Planned,
    clock: Instant,
    settled: UnboundedSender<()>,
) -> Sample {
    let body = client.target.body(request.route, &request.prompt, args.output_tokens.get());
    let seen = |pieces| {
        if pieces == SETTLED {
            // The receiver is there as long as it waits.
            let _ = settled.send(());
        }
    };
    client.complete(request.route, &body, clock, seen).await
}

/// Waits until all streams run, then sends; `None` when they end before that.
async fn send_long(
    client: &Client,
    args: &TrafficArgs,
    tokens: usize,
    clock: Instant,
    mut news: UnboundedReceiver<()>,
) -> Option<Sample> {
    for _ in 0..args.concurrency.get() {
        news.recv().await?;
    }
    let prompt_tokens = NonZeroUsize::new(tokens)?;
    let args = TrafficArgs { prompt_tokens, seed: args.seed + 1, ..args.clone() };
    let request = plan(&args, 1, 1, args.seed).pop()?;
    let body = client.target.body(0, &request.prompt, 1);
    Some(client.complete(0, &body, clock, |_| ()).await)
}

struct Gaps<'a> {
    streams: &'a [Sample],
    long: &'a Sample,
}

impl Gaps<'_> {
    fn before(&self) -> Option<Spread> {
        let firsts = self.streams.iter().filter_map(|sample| sample.pieces.first());
        let begun = firsts.max().copied().unwrap_or_default();
        self.spread(|(from, to)| from >= begun && to <= self.long.sent)
    }

    fn during(&self) -> Option<Spread> {
        let end = self.long.pieces.first().copied().unwrap_or(self.long.ended);
        self.spread(|(from, to)| to > self.long.sent && from < end)
    }

    fn spread(&self, wanted: impl Fn((Duration, Duration)) -> bool) -> Option<Spread> {
        let gaps = self.streams.iter().flat_map(Sample::gaps).filter(|gap| wanted(*gap));
        Spread::of(gaps.map(|(from, to)| to.saturating_sub(from)))
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} streams, then a prompt of {} tokens, whose first token came after {:.1} ms",
            self.server, self.streams, self.prompt_tokens, self.first_token
        )?;
        for (when, gaps) in [("before", self.before), ("during", self.during)] {
            writeln!(
                f,
                "between tokens {when}: worst {:.2} ms, p50 {:.2}, p99 {:.2} ({} gaps)",
                gaps.max, gaps.p50, gaps.p99, gaps.count
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sent: u64, pieces: &[u64]) -> Sample {
        let at = |ms: &u64| Duration::from_millis(*ms);
        Sample { sent: at(&sent), pieces: pieces.iter().map(at).collect(), ..Sample::default() }
    }

    #[test]
    fn gaps_lie_before_or_during_the_long_prompt() {
        // The second stream begins at 30, so earlier gaps say nothing about both.
        let streams = [sample(0, &[10, 20, 31, 45, 145, 150]), sample(0, &[30, 50, 160])];
        let long = sample(51, &[140]);
        let gaps = Gaps { streams: &streams, long: &long };
        let before = gaps.before().unwrap();
        assert_eq!((before.count, before.max), (2, 20.0));
        let during = gaps.during().unwrap();
        assert_eq!((during.count, during.max), (2, 110.0));
    }
}

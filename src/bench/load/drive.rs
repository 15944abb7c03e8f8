//! Sends the requests of a run, in a closed loop or at their times.
use super::{args::TrafficArgs, client::Client, plan::Planned, plan::plan, sample::Sample};
use crate::bench::BenchError;
use futures_util::future::join_all;
use std::{
    cell::Cell,
    time::{Duration, Instant},
};
use tokio::time::sleep_until;

/// Warm-up prompts come from this far beyond the measured ones' seeds.
const WARMUP_SEED: u64 = 1 << 40;

/// Everything that came back.
pub(super) struct Run {
    /// In the order of the plan.
    pub(super) samples: Vec<Sample>,
    /// From the first request to the end of the last answer.
    pub(super) wall: Duration,
}

/// The measured requests.
pub(super) async fn drive(client: &Client, args: &TrafficArgs, seed: u64) -> Run {
    let requests = requests(client, args, args.requests.get(), seed);
    let clock = Instant::now();
    let samples = if args.rate.is_some() {
        open(client, args, &requests, clock).await
    } else {
        closed(client, args, &requests, clock).await
    };
    let wall = samples.iter().map(|sample| sample.ended).max().unwrap_or_default();
    Run { samples, wall }
}

/// Lets the server read its adapters and fill its caches; a server that refuses is known before the measurement.
pub(super) async fn warm_up(
    client: &Client,
    args: &TrafficArgs,
    seed: u64,
) -> Result<(), BenchError> {
    let routes = client.target.routes();
    let args = TrafficArgs { rate: None, ..args.clone() };
    let count = args.warmup.unwrap_or(routes);
    let requests = requests(client, &args, count, seed + WARMUP_SEED);
    let samples = closed(client, &args, &requests, Instant::now()).await;
    match samples.into_iter().find_map(|sample| sample.failure.map(|why| (sample.route, why))) {
        None => Ok(()),
        Some((route, why)) => {
            let detail = format!("model `{}`: {why}", client.target.label(route));
            Err(BenchError::Server { url: client.target.url.clone(), detail })
        }
    }
}

/// Prompts have as many numbers as a request's texts need, where texts are read.
fn requests(client: &Client, args: &TrafficArgs, count: usize, seed: u64) -> Vec<Planned> {
    let numbers = client.texts.as_ref().map(|texts| texts.numbers(args.inputs));
    let prompt_tokens = numbers.unwrap_or(args.prompt_tokens);
    let args = TrafficArgs { prompt_tokens, ..args.clone() };
    plan(&args, client.target.routes(), count, seed)
}

/// Each of `concurrency` clients takes the next request when it has its answer.
async fn closed(
    client: &Client,
    args: &TrafficArgs,
    requests: &[Planned],
    clock: Instant,
) -> Vec<Sample> {
    let next = Cell::new(0);
    let one = || async {
        let mut samples = Vec::new();
        while let Some(request) = requests.get(next.replace(next.get() + 1)) {
            samples.push(send(client, args, request, clock).await);
        }
        samples
    };
    let clients = (0..args.concurrency.get().min(requests.len())).map(|_| one());
    let mut samples = join_all(clients).await.concat();
    samples.sort_by_key(|sample| sample.sent);
    samples
}

/// Each request at its time.
async fn open(
    client: &Client,
    args: &TrafficArgs,
    requests: &[Planned],
    clock: Instant,
) -> Vec<Sample> {
    let timed = requests.iter().map(|request| async move {
        sleep_until((clock + request.at).into()).await;
        send(client, args, request, clock).await
    });
    join_all(timed).await
}

async fn send(client: &Client, args: &TrafficArgs, request: &Planned, clock: Instant) -> Sample {
    if let Some(texts) = &client.texts {
        let body = client.target.texts(request.route, texts, &request.prompt);
        return client.encode(args.endpoint, request.route, &body, args.inputs.get(), clock).await;
    }
    let body = client.target.body(request.route, &request.prompt, args.output_tokens.get());
    client.complete(request.route, &body, clock, |_| ()).await
}

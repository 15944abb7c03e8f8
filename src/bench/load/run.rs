//! From flags to figures.
use super::{
    LoadArgs,
    client::Client,
    compare,
    drive::{Run, drive, warm_up},
    page, stall,
    summary::Summary,
    target::Target,
};
use crate::bench::{
    BenchError,
    output::{write_json, write_text},
};
use serde::Serialize;
use std::io::Write;
use tokio::runtime::Builder;

impl LoadArgs {
    /// Loads the server, or both, and writes the figures to `out` and the files asked for.
    ///
    /// # Errors
    /// When flags disagree, a server does not answer as it should, or a file cannot be written.
    pub fn run(&self, out: &mut dyn Write) -> Result<(), BenchError> {
        // One thread: the server needs the others, and reading events is little work.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.measure(out))
    }

    async fn measure(&self, out: &mut dyn Write) -> Result<(), BenchError> {
        let first = self.server.target();
        let other = self.other.target(&first)?;
        self.traffic.check(first.routes())?;
        if self.stall.is_some() && self.traffic.endpoint.reads() {
            let what = "--stall is of streams: leave --endpoint out, or --stall";
            return Err(BenchError::Usage(what.to_owned()));
        }
        let client = self.client(first)?;
        match (other, self.stall) {
            (Some(other), _) => self.compare(&client, &self.client(other)?, out).await,
            (None, Some(tokens)) => self.stall(&client, tokens.get(), out).await,
            (None, None) => self.load(&client, out).await,
        }
    }

    fn client(&self, target: Target) -> Result<Client, BenchError> {
        Client::new(target, &self.traffic)
    }

    async fn load(&self, client: &Client, out: &mut dyn Write) -> Result<(), BenchError> {
        let args = &self.traffic;
        warm_up(client, args, args.seed).await?;
        let run = drive(client, args, args.seed).await;
        let summary = Summary::new(&client.target, args, &run);
        write!(out, "{summary}")?;
        self.write_json(&summary)?;
        self.write_page(&[(&summary, &run)])?;
        all_failed(&summary)
    }

    async fn stall(
        &self,
        client: &Client,
        tokens: usize,
        out: &mut dyn Write,
    ) -> Result<(), BenchError> {
        warm_up(client, &self.traffic, self.traffic.seed).await?;
        let stall = stall::measure(client, &self.traffic, tokens).await?;
        write!(out, "{stall}")?;
        self.write_json(&stall)
    }

    async fn compare(
        &self,
        first: &Client,
        second: &Client,
        out: &mut dyn Write,
    ) -> Result<(), BenchError> {
        let args = &self.traffic;
        warm_up(first, args, args.seed).await?;
        warm_up(second, args, args.seed).await?;
        let (mut pairs, mut last) = (Vec::new(), None);
        writeln!(out, "{}", compare::HEAD)?;
        for pair in 0..self.other.pairs.get() {
            let seed = args.seed + 1 + pair as u64;
            let runs = [
                drive(first, args, seed).await,
                drive(second, args, seed + compare::apart(&first.target, &second.target)).await,
            ];
            let summaries = [
                Summary::new(&first.target, args, &runs[0]),
                Summary::new(&second.target, args, &runs[1]),
            ];
            summaries.iter().try_for_each(all_failed)?;
            let pair = compare::Pair::new(summaries);
            writeln!(out, "{pair}")?;
            pairs.push(pair);
            last = Some(runs);
        }
        let comparison = compare::Comparison::new(pairs);
        write!(out, "{comparison}")?;
        self.write_json(&comparison)?;
        if let (Some([a, b]), Some(pair)) = (&last, comparison.last()) {
            self.write_page(&[(&pair.first, a), (&pair.second, b)])?;
        }
        Ok(())
    }

    fn write_json(&self, figures: &impl Serialize) -> Result<(), BenchError> {
        self.json.as_deref().map_or(Ok(()), |path| write_json(path, figures))
    }

    fn write_page(&self, runs: &[(&Summary, &Run)]) -> Result<(), BenchError> {
        self.html.as_deref().map_or(Ok(()), |path| write_text(path, &page::page(runs)))
    }
}

/// A server that answers nothing has no figures.
fn all_failed(summary: &Summary) -> Result<(), BenchError> {
    match summary.failures.keys().next() {
        Some(failure) if summary.all.answered == 0 => {
            let detail = format!("every request failed: {failure}");
            Err(BenchError::Server { url: summary.server.clone(), detail })
        }
        _ => Ok(()),
    }
}

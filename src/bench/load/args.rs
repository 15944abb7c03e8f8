//! What the user asks for.
use super::{
    target::{FieldSets, Fields, Target},
    texts::Endpoint,
};
use crate::bench::BenchError;
use std::{num::NonZeroUsize, ops::Range, path::PathBuf, str::FromStr};

/// A load on one server, or on two in alternation.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// What is sent.
    #[command(flatten)]
    pub(super) traffic: TrafficArgs,
    /// The other server.
    #[command(flatten)]
    pub(super) other: OtherArgs,
    /// While the streams run, send one prompt of this many tokens and report the worst gap it makes in them
    #[arg(long, value_name = "TOKENS", conflicts_with_all = ["rate", "compare"])]
    pub(super) stall: Option<NonZeroUsize>,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Also write a page with plots
    #[arg(long, value_name = "FILE", conflicts_with = "stall")]
    pub(super) html: Option<PathBuf>,
}

/// One server and how to speak to it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// Root of the server
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    url: String,
    /// Names of the base or of adapters, one for each request in turn
    #[arg(long, required = true, value_delimiter = ',', value_name = "LIST",
        value_parser = clap::builder::NonEmptyStringValueParser::new())]
    models: Vec<String>,
    /// More fields for every request, a JSON object
    #[arg(long, default_value = "{}", value_name = "JSON")]
    body: Fields,
    /// More fields for each request in turn, a JSON list of objects: llama.cpp's `lora`, for example
    #[arg(long, default_value = "[]", value_name = "JSON")]
    extras: FieldSets,
    /// Key to send as `Authorization: Bearer KEY`
    #[arg(long, env = "LORAD_BENCH_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

/// The second server of a comparison; what is not said is as on the first.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OtherArgs {
    /// Root of a second server: the two run in alternation, and the ratio is reported
    #[arg(long, value_name = "URL")]
    compare: Option<String>,
    /// Names on the second server, as many as on the first [default: the same names]
    #[arg(long, requires = "compare", value_delimiter = ',', value_name = "LIST",
        value_parser = clap::builder::NonEmptyStringValueParser::new())]
    compare_models: Option<Vec<String>>,
    /// More fields for every request to the second server [default: none]
    #[arg(long, requires = "compare", default_value = "{}", value_name = "JSON")]
    compare_body: Fields,
    /// More fields for each request in turn to the second server [default: none]
    #[arg(long, requires = "compare", default_value = "[]", value_name = "JSON")]
    compare_extras: FieldSets,
    /// Runs on each server
    #[arg(long, requires = "compare", default_value = "5", value_name = "N")]
    pub(super) pairs: NonZeroUsize,
}

/// The requests and when they are sent.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TrafficArgs {
    /// Which name or extra the next request takes: each in turn, or the k-th with a weight of 1/k
    #[arg(long, value_enum, default_value_t = Mapping::Rr)]
    pub(super) map: Mapping,
    /// How many requests each name or extra takes, as shares of all of them: 8,1,1 for example
    #[arg(long, conflicts_with = "map", value_name = "LIST")]
    pub(super) split: Option<Split>,
    /// Requests that are under way at any time
    #[arg(short, long, default_value = "1", value_name = "N", conflicts_with = "rate")]
    pub(super) concurrency: NonZeroUsize,
    /// Requests in all
    #[arg(short = 'n', long, default_value = "8", value_name = "N")]
    pub(super) requests: NonZeroUsize,
    /// What is asked for
    #[arg(long, value_enum, default_value_t = Endpoint::Completions)]
    pub(super) endpoint: Endpoint,
    /// Texts in a request, where they are read and not continued
    #[arg(long, default_value = "1", value_name = "N")]
    pub(super) inputs: NonZeroUsize,
    /// Take the texts to be read from this file, one a line, instead of common words
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_tokens")]
    pub(super) texts: Option<PathBuf>,
    /// Tokens of a prompt; words of a text to be read
    #[arg(long, default_value = "128", value_name = "N")]
    pub(super) prompt_tokens: NonZeroUsize,
    /// Tokens of an answer
    #[arg(long, default_value = "64", value_name = "N")]
    pub(super) output_tokens: NonZeroUsize,
    /// Send this many requests a second at random times (Poisson), whether earlier ones are answered or not
    #[arg(long, value_name = "R", value_parser = positive)]
    pub(super) rate: Option<f64>,
    /// Requests before the measurement [default: one for each name or extra]
    #[arg(long, value_name = "N")]
    pub(super) warmup: Option<usize>,
    /// Ids that prompts are drawn from; few models have meaning-free ones at the start, all have as many as these
    #[arg(long, default_value = "100..30000", value_name = "FROM..TO")]
    pub(super) token_ids: TokenIds,
    /// Prompts depend on it alone
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) seed: u64,
    /// Seconds that one answer may take
    #[arg(long, default_value_t = 600, value_name = "N")]
    pub(super) timeout: u64,
}

/// How requests are spread over names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Mapping {
    /// Each in turn.
    Rr,
    /// The k-th with a weight of 1/k.
    Zipf,
}

/// A weight for each name or extra.
#[derive(Clone, Debug)]
pub(super) struct Split(pub(super) Vec<f64>);

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(positive).collect::<Result<_, _>>().map(Self)
    }
}

impl TrafficArgs {
    /// Whether there is a share for each of `routes` names or extras, and the texts are of the endpoint.
    ///
    /// # Errors
    /// Where the list is of another length, or prompts are continued that are said to be read.
    pub(super) fn check(&self, routes: usize) -> Result<(), BenchError> {
        if !self.endpoint.reads() && (self.inputs.get() > 1 || self.texts.is_some()) {
            let what = "--inputs and --texts are of texts to be read: say --endpoint embeddings or classify";
            return Err(BenchError::Usage(what.to_owned()));
        }
        match &self.split {
            Some(Split(shares)) if shares.len() != routes => Err(BenchError::Usage(format!(
                "--split has {} shares, and there are {routes} models or extras: give each one its own",
                shares.len()
            ))),
            _ => Ok(()),
        }
    }
}

/// A range of token ids that has some.
#[derive(Clone, Debug)]
pub(super) struct TokenIds(pub(super) Range<u32>);

impl FromStr for TokenIds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bounds = text.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
        match bounds {
            Some((Ok(from), Ok(to))) if from < to => Ok(Self(from..to)),
            _ => Err("say two token ids, the first below the second, as in 100..30000".to_owned()),
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("say a number above 0, as in 2.5".to_owned()),
    }
}

impl ServerArgs {
    pub(super) fn target(&self) -> Target {
        let Self { url, models, body, extras, api_key } = self.clone();
        Target { url: root(&url), models, body, extras, api_key }
    }
}

impl OtherArgs {
    /// The second server, where one is named.
    pub(super) fn target(&self, first: &Target) -> Result<Option<Target>, BenchError> {
        let Some(url) = &self.compare else { return Ok(None) };
        let other = Target {
            url: root(url),
            models: self.compare_models.clone().unwrap_or_else(|| first.models.clone()),
            body: self.compare_body.clone(),
            extras: self.compare_extras.clone(),
            api_key: first.api_key.clone(),
        };
        let (ours, theirs) = (first.routes(), other.routes());
        if ours == theirs {
            return Ok(Some(other));
        }
        Err(BenchError::Usage(format!(
            "the first server is asked for {ours} models or extras in turn, the second for {theirs}: a comparison \
             wants as many; see --compare-models and --compare-extras"
        )))
    }
}

/// Without what every path begins with anyway.
fn root(url: &str) -> String {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn parse(flags: &[&str]) -> Result<LoadArgs, String> {
        let line = Line::try_parse_from(["load", "--models", "base,a0"].iter().chain(flags));
        line.map(|line| line.load).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused_by_name() {
        for (flags, named) in [
            (&["--rate", "2", "--concurrency", "4"][..], "--concurrency"),
            (&["--stall", "2000", "--compare", "http://b"], "--compare"),
            (&["--pairs", "3"], "--compare"),
            (&["--rate", "0"], "above 0"),
            (&["--split", "1,0"], "above 0"),
            (&["--split", "1,,2"], "above 0"),
            (&["--split", "1,2", "--map", "zipf"], "--map"),
            (&["--token-ids", "9..9"], "100..30000"),
            (&["--extras", "{}"], "list"),
            (&["--body", "[1]"], "object"),
            (&["--requests", "0"], "--requests"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(named), "{flags:?}: {error}");
        }
    }

    #[test]
    fn texts_are_of_endpoints_that_read() {
        let check = |flags: &[&str]| parse(flags).unwrap().traffic.check(2);
        assert!(check(&["--inputs", "4"]).unwrap_err().to_string().contains("--endpoint"));
        check(&["--inputs", "4", "--endpoint", "classify"]).expect("texts");
        let error = parse(&["--texts", "x", "--prompt-tokens", "3"]).unwrap_err();
        assert!(error.contains("--prompt-tokens"), "{error}");
    }

    #[test]
    fn a_split_has_a_share_for_each() {
        let check = |split: &str| parse(&["--split", split]).unwrap().traffic.check(2);
        check("3,1").expect("two");
        assert!(check("3,1,1").unwrap_err().to_string().contains("3 shares"));
    }

    #[test]
    fn the_second_server_takes_as_many_routes() {
        let args =
            parse(&["--url", "http://a/v1/", "--compare", "http://b", "--compare-models", "x"])
                .unwrap();
        let first = args.server.target();
        assert_eq!(first.url, "http://a");
        let error = args.other.target(&first).unwrap_err().to_string();
        assert!(error.contains("--compare-models"), "{error}");
        let args = parse(&["--compare", "http://b"]).unwrap();
        assert_eq!(args.other.target(&first).unwrap().unwrap().models, ["base", "a0"]);
    }
}

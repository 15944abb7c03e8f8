//! What was seen of one request.
use std::time::Duration;

/// Times are from the start of the run.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Which of the target's kinds.
    pub(super) route: usize,
    pub(super) sent: Duration,
    /// When each piece of text came, first to last.
    pub(super) pieces: Vec<Duration>,
    pub(super) ended: Duration,
    /// Prompt's and answer's tokens as the server counted them.
    pub(super) usage: Option<(usize, usize)>,
    /// Why there is no whole answer.
    pub(super) failure: Option<String>,
}

impl Sample {
    /// Tokens of the answer: the server's count, or the pieces where it gives none.
    pub(super) fn output_tokens(&self) -> usize {
        self.usage.map_or(self.pieces.len(), |(_, output)| output)
    }

    /// From sending to the first piece of text.
    pub(super) fn first_piece(&self) -> Option<Duration> {
        self.pieces.first().map(|first| first.saturating_sub(self.sent))
    }

    /// Start and end of the time between each piece and the one before it.
    pub(super) fn gaps(&self) -> impl Iterator<Item = (Duration, Duration)> + '_ {
        self.pieces.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// How long each of [`Sample::gaps`] is.
    pub(super) fn pauses(&self) -> impl Iterator<Item = Duration> + '_ {
        self.gaps().map(|(from, to)| to.saturating_sub(from))
    }

    /// The mean time of a token after the first.
    pub(super) fn per_token(&self) -> Option<Duration> {
        let (first, last) = (self.pieces.first()?, self.pieces.last()?);
        let later = self.output_tokens().checked_sub(1).filter(|later| *later > 0)?;
        Some(last.saturating_sub(*first) / later as u32)
    }

    /// From sending to the end of the stream.
    pub(super) fn end_to_end(&self) -> Duration {
        self.ended.saturating_sub(self.sent)
    }
}

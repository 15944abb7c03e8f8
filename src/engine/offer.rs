//! What the model has to give, so that nobody waits for what cannot come and fails a step for others.
use super::{AdapterMix, EngineError, HeadKind, Labels, Output, Pooling, Submission};
use crate::model::BaseModel;

/// What may be asked for.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    causal: bool,
    generates: bool,
    /// Of the base's own head.
    labels: Option<Labels>,
}

impl Offer {
    /// What `model` can give.
    pub(super) fn of(model: &dyn BaseModel) -> Self {
        let layout = model.lora_layout();
        Self {
            causal: model.is_causal(),
            generates: layout.generates(),
            labels: layout.class_head().and_then(|head| head.base.clone()),
        }
    }

    /// Whether `submission` can be given what it asks for.
    ///
    /// # Errors
    /// [`EngineError::NotOffered`] where not.
    pub(super) fn check(&self, submission: &Submission) -> Result<(), EngineError> {
        let options = submission.sampling.options();
        let reads_logits = options.max_tokens > 0 || options.prompt_logprobs.is_some();
        match submission.output {
            Some(_) if reads_logits => {
                refuse("an output takes the place of an answer; ask for one of them")
            }
            None if !self.generates => {
                refuse("the base model does not continue texts; ask for an embedding or for labels")
            }
            None => Ok(()),
            Some(output) => self.check_output(output, &submission.adapters),
        }
    }

    fn check_output(&self, output: Output, adapters: &AdapterMix) -> Result<(), EngineError> {
        let is_of_last = matches!(output, Output::Embedding(Pooling::Last) | Output::Scores);
        if self.causal && !is_of_last {
            return refuse(
                "the base model reads from left to right: it has one output for a text, at its last token",
            );
        }
        let kind = match output {
            Output::Embedding(_) | Output::Hidden => return Ok(()),
            Output::Scores => HeadKind::Sequence,
            Output::TokenScores => HeadKind::Token,
        };
        let parts = adapters.parts();
        let heads = parts.iter().filter_map(|part| part.lease.weights.class_head());
        let own: Vec<&Labels> = heads.map(|head| &head.labels).collect();
        let labels = match own.as_slice() {
            [] => self.labels.as_ref(),
            [labels] if parts.len() == 1 => Some(*labels),
            _ => return refuse("an adapter that brings its own labels cannot be mixed"),
        };
        match labels {
            None => refuse("neither the base model nor the adapter has labels"),
            Some(labels) if labels.kind != kind => {
                refuse("the labels are of whole texts or of tokens, and the others were asked for")
            }
            Some(_) => Ok(()),
        }
    }
}

fn refuse(why: &str) -> Result<(), EngineError> {
    Err(EngineError::NotOffered(why.to_owned()))
}

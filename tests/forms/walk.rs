//! Answers made up of whatever a form allows.
use super::service::{Form, Forms, request};
use futures_util::future::join_all;
use lorad::{
    engine::TokenMask,
    generation::AnswerForm,
    telemetry::{EngineFigures, Exposition, Metrics},
};

/// An answer that was made up.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) text: String,
    /// Whether it is whole.
    pub(crate) is_whole: bool,
}

impl Forms {
    /// Asked for by so many requests at one time: how many got it.
    pub(crate) fn compile_at_once(&self, form: &AnswerForm, requests: usize) -> usize {
        let ask = |_| self.generator.generate(request(form.clone(), 1));
        let answers = self.runtime.block_on(join_all((0..requests).map(ask)));
        answers.iter().filter(|answer| answer.is_ok()).count()
    }

    /// What may come, and whether the answer may end.
    pub(crate) fn allowed(&self, form: &mut Form) -> Option<(Vec<u32>, bool)> {
        let mut mask = TokenMask::new(self.vocab);
        let may_end = form.allow(&mut mask).ok()?;
        Some(((0..self.vocab as u32).filter(|id| mask.is_allowed(*id)).collect(), may_end))
    }

    /// Follows `form` for `most` tokens at most, wherever `noise` leads. `None`: the form gave up.
    pub(crate) fn walk(&self, form: &mut Form, noise: &mut Noise, most: usize) -> Option<Walked> {
        let mut ids = Vec::new();
        let mut is_whole = false;
        while ids.len() < most && !is_whole {
            let (allowed, may_end) = self.allowed(form)?;
            if allowed.is_empty() || (may_end && noise.below(3) == 0) {
                is_whole = may_end;
                break;
            }
            let id = allowed[noise.below(allowed.len())];
            ids.push(id);
            is_whole = form.accept(id).ok()?;
        }
        Some(Walked { text: self.text(ids), is_whole })
    }

    /// As the service decodes it: bytes that are no UTF-8 would show.
    pub(crate) fn text(&self, ids: Vec<u32>) -> String {
        self.runtime.block_on(self.generator.detokenize(ids)).expect("tokens")
    }
}

/// Numbers without order, the same for a seed.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % limit
    }
}

/// The sum of a counter of grammars, over all labels.
pub(crate) fn count(metrics: &Metrics, counter: &str) -> u64 {
    let text = metrics.expose(&EngineFigures::default(), Exposition::Prometheus);
    let name = format!("lorad_grammar_{counter}_total{{");
    let lines = text.lines().filter(|line| line.starts_with(&name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

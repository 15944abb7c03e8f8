//! What a step has brought.
use super::super::{
    EngineError, FinishReason, accounts::ANSWER_TOKEN, sampler::NoChoice, schedule::Chosen,
};
use super::Scheduler;

impl Scheduler {
    /// Books the step's choices, in the order of `work` as many as each wants, and one output of each that wants it, and
    /// tells the callers.
    pub(in crate::engine) fn commit(
        &mut self,
        work: &[usize],
        choices: impl IntoIterator<Item = Chosen>,
        outputs: impl IntoIterator<Item = Vec<f32>>,
    ) {
        let (mut choices, mut outputs) = (choices.into_iter(), outputs.into_iter());
        let mut tokens = 0;
        for &index in work {
            let sequence = &mut self.running[index];
            let (judged, rows) = (sequence.prompt_rows().len(), sequence.choices());
            let pending = sequence.pending();
            let output = sequence.wanted_output().and_then(|_| outputs.next());
            let granted = std::mem::take(&mut sequence.granted);
            tokens += granted;
            let read = sequence.judge(choices.by_ref().take(judged));
            let mut wanted = choices.by_ref().take(rows);
            if let Err(why) = read {
                wanted.for_each(drop);
                self.refuse(index, Some(why));
                continue;
            }
            if rows == 0 {
                self.book_computed(index, granted);
                self.finish_reading(index, output);
                continue;
            }
            // Behind a row without a choice nothing is chosen; if the answer really gets there, that row is
            // computed again and fails then.
            let mut refusal = None;
            let chosen =
                wanted.by_ref().map_while(|chosen| chosen.map_err(|why| refusal = Some(why)).ok());
            let taken = sequence.accept_all(chosen, self.limits.max_positions);
            wanted.for_each(drop);
            if taken == 0 {
                self.refuse(index, refusal);
                continue;
            }
            let price = ANSWER_TOKEN * taken as f64;
            self.accounts.charge(sequence.account, price, sequence.share);
            self.totals.generated_tokens += taken as u64;
            self.totals.accepted_draft_tokens += taken as u64 - 1;
            // Behind a wrong guess nothing counts as computed: those positions are written again.
            self.book_computed(index, pending + taken - 1);
        }
        self.book_step(tokens);
        self.drop_over();
    }

    /// Ends it where everything is read, with the output that was wanted.
    fn finish_reading(&mut self, index: usize, output: Option<Vec<f32>>) {
        match output {
            Some(values) if values.iter().all(|value| value.is_finite()) => {
                self.running[index].give(values);
            }
            Some(_) => return self.refuse(index, Some(NoChoice::NotNumbers)),
            None => {}
        }
        self.running[index].finish_reading();
    }

    fn book_step(&mut self, tokens: usize) {
        let totals = &mut self.totals;
        let bucket = tokens.max(1).next_power_of_two().trailing_zeros() as usize;
        totals.step_sizes[bucket.min(totals.step_sizes.len() - 1)] += 1;
        totals.step_tokens += tokens as u64;
        totals.steps += 1;
    }

    /// Nothing could be chosen for it: it is whole, or that is its own failure, and nobody else's.
    fn refuse(&mut self, index: usize, why: Option<NoChoice>) {
        let sequence = &mut self.running[index];
        match why {
            Some(NoChoice::Complete) => return sequence.finish(FinishReason::EndOfSequence),
            Some(NoChoice::Unenforceable) => return sequence.fail(EngineError::Constraint),
            Some(NoChoice::NothingLeft) | None => return sequence.fail(EngineError::Step),
            Some(NoChoice::NotNumbers) => {}
        }
        let adapters = sequence.names();
        tracing::error!(?adapters, "the model's output is not a number");
        sequence.fail(EngineError::NonFinite { adapters });
        self.totals.non_finite_outputs += 1;
    }

    fn book_computed(&mut self, index: usize, more: usize) {
        let block_size = self.limits.block_size;
        let sequence = &mut self.running[index];
        let before = sequence.computed;
        sequence.computed += more;
        let (after, prompt) = (sequence.computed, sequence.prompt_len);
        self.totals.prompt_tokens += (after.min(prompt) - before.min(prompt)) as u64;
        if !self.limits.prefix_cache {
            return;
        }
        sequence.prefix.extend(&sequence.tokens, block_size);
        for full in before / block_size..after / block_size {
            self.blocks.register(sequence.block_table[full], &sequence.prefix, full);
        }
    }
}

//! `best_of`: more answers than are wanted, of which the likeliest are.
use crate::generation::Completion;

/// The `n` likeliest of every `of` answers, the likeliest first, numbered anew; all as they are where all are wanted.
pub(super) fn pick(answers: Vec<Completion>, of: usize, n: usize) -> Vec<Completion> {
    if of <= n {
        return answers;
    }
    let mut left = answers.into_iter().peekable();
    let mut picked = Vec::new();
    while left.peek().is_some() {
        let mut siblings: Vec<_> = left.by_ref().take(of).collect();
        sort(&mut siblings);
        siblings.truncate(n);
        picked.append(&mut siblings);
    }
    picked.iter_mut().enumerate().for_each(|(index, answer)| answer.index = index);
    picked
}

/// The likeliest first.
pub(super) fn sort(answers: &mut [Completion]) {
    answers.sort_by(|a, b| likelihood(b).total_cmp(&likelihood(a)));
}

/// The mean log-probability of its tokens. An answer without any is the least likely.
fn likelihood(answer: &Completion) -> f64 {
    let logprobs = || answer.tokens.iter().filter_map(|token| token.logprob);
    match logprobs().count() {
        0 => f64::NEG_INFINITY,
        count => logprobs().map(f64::from).sum::<f64>() / count as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{FinishedBecause, Token, Usage};

    fn answer(index: usize, logprobs: &[f32]) -> Completion {
        let token = |logprob: &f32| Token {
            id: 1,
            text: "a".into(),
            bytes: vec![97],
            shown: "a".into(),
            special: false,
            logprob: Some(*logprob),
            rank: Some(1),
            top: vec![],
        };
        Completion {
            index,
            text: format!("answer {index}"),
            tokens: logprobs.iter().map(token).collect(),
            prompt: None,
            because: FinishedBecause::Length,
            usage: Usage::default(),
        }
    }

    fn texts(answers: &[Completion]) -> Vec<(usize, &str)> {
        answers.iter().map(|answer| (answer.index, answer.text.as_str())).collect()
    }

    #[test]
    fn the_likeliest_of_each_prompt_are_kept_and_numbered_through() {
        let all = vec![
            answer(0, &[-2.0]),
            answer(1, &[-1.0, -1.0, -1.0]),
            answer(2, &[]),
            answer(3, &[-3.0]),
            answer(4, &[-5.0]),
            answer(5, &[-4.0]),
        ];
        let best = pick(all.clone(), 3, 2);
        let expected = [(0, "answer 1"), (1, "answer 0"), (2, "answer 3"), (3, "answer 5")];
        assert_eq!(texts(&best), expected, "by the mean, not by the sum");
        assert_eq!(texts(&pick(all.clone(), 3, 3)), texts(&all));
    }
}

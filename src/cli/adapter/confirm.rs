//! A question before what cannot be undone.
use super::error::CommandError;
use std::io::{self, BufRead, IsTerminal, Write};

/// Whether to go on; elsewhere than on a terminal only --yes can say so.
///
/// # Errors
/// Without a terminal, and for every answer but yes.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), CommandError> {
    if yes {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(CommandError::usage("there is no terminal to ask on: say --yes to go on"));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stderr().flush());
    let read = asked.and_then(|()| stdin.lock().read_line(&mut answer));
    match read {
        Ok(_) if is_yes(&answer) => Ok(()),
        _ => Err(CommandError::failed("nothing was changed")),
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("y\n") && is_yes(" Yes "));
        assert!(!is_yes("") && !is_yes("no") && !is_yes("yess"));
        confirm(true, "?").expect("said on the command line");
    }
}

//! How a command says that it failed.
use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

/// The error and its causes, on one line of standard error.
pub(super) fn fail(command: &str, error: &dyn Error) -> ExitCode {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        line = format!("{line}: {inner}");
        cause = inner.source();
    }
    let _ = writeln!(io::stderr(), "{command}: {line}");
    ExitCode::FAILURE
}

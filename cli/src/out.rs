//! Standard output that may end early, as in `slipway release list | head`.

use std::{fmt, io::Write, process};

/// Prints the command's output. A reader that has gone away has seen enough.
pub(crate) fn print(text: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    if write!(out, "{text}").and_then(|()| out.flush()).is_err() {
        process::exit(0);
    }
}

/// Prints a line.
pub(crate) fn line(text: impl fmt::Display) {
    print(format_args!("{text}\n"));
}

//! Which line says most about a failure, so that people read it first.

/// Words of lines with which programs end, the strongest first. In lower case.
const STRONG: [&[&str]; 3] = [
    &[
        "panic",
        "fatal",
        "unhandled exception",
        "uncaught",
        "unhandledpromiserejection",
        "segmentation fault",
        "out of memory",
        "outofmemory",
        "caused by:",
        "critical",
    ],
    &["exception", "error", "err:", "failed", "failure"],
    &[
        "cannot",
        "can't",
        "could not",
        "couldn't",
        "unable",
        "refused",
        "denied",
        "forbidden",
        "unauthorized",
        "not found",
        "no such",
        "not exist",
        "missing",
        "invalid",
        "unknown",
        "timed out",
        "timeout",
        "abort",
        "killed",
        "unhealthy",
        "exceeded",
        "warn",
    ],
];
/// Words of lines that say nothing new where another one has a cause.
const WEAK: [&str; 4] = ["back-off", "backoff", "no error", " 0 errors"];
/// Beginnings of the lines of a stack, which only say where.
const STACK: [&str; 5] = ["at ", "goroutine ", "file \"", "... ", "stack backtrace"];

/// The line that says most, of those that come: the last of those with the strongest words; if there are none, the last
/// one that is not empty.
pub fn telling<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let said = lines.into_iter().map(str::trim).filter(|line| !line.is_empty());
    // The last of several maxima.
    said.max_by_key(|line| strength(line))
}

fn strength(line: &str) -> usize {
    let line = line.to_lowercase();
    if STACK.iter().any(|start| line.starts_with(start)) {
        return 0;
    }
    if WEAK.iter().any(|words| line.contains(words)) {
        return 1;
    }
    let rank = STRONG
        .iter()
        .position(|words| words.iter().any(|word| line.contains(word)));
    rank.map_or(1, |rank| STRONG.len() - rank + 1)
}

#[cfg(test)]
mod tests {
    use super::telling;

    #[test]
    fn the_line_that_names_the_failure_comes_first() {
        for (lines, said) in [
            (&[][..], None),
            (&["", "  "], None),
            (&["starting", "listening on 8080", ""], Some("listening on 8080")),
            (
                &["starting", "cannot reach the database", "bye"],
                Some("cannot reach the database"),
            ),
            (
                &[
                    "starting",
                    "warning: no cache",
                    "panic: runtime error: index out of range",
                    "goroutine 1 [running]:",
                    "main.main()",
                    "\t/src/main.go:12 +0x1d",
                ],
                Some("panic: runtime error: index out of range"),
            ),
            (
                &[
                    "Exception in thread \"main\" java.lang.IllegalStateException: no start",
                    "\tat com.example.Shop.main(Shop.java:12)",
                    "Caused by: java.net.ConnectException: Connection refused",
                    "\tat java.net.Socket.connect(Socket.java:1)",
                    "\t... 12 more",
                ],
                Some("Caused by: java.net.ConnectException: Connection refused"),
            ),
            (
                &[
                    "Traceback (most recent call last):",
                    "  File \"/app/main.py\", line 3, in <module>",
                    "    connect()",
                    "ValueError: DATABASE_URL is missing",
                ],
                Some("ValueError: DATABASE_URL is missing"),
            ),
            (
                &[
                    "{\"level\":\"info\",\"msg\":\"up\"}",
                    "{\"level\":\"error\",\"msg\":\"no database\"}",
                    "{\"level\":\"info\",\"msg\":\"down\"}",
                ],
                Some("{\"level\":\"error\",\"msg\":\"no database\"}"),
            ),
            (
                &["first error", "second error", "shutting down"],
                Some("second error"),
            ),
            (&["checked 12 files, 0 errors", "exiting"], Some("exiting")),
            // Events of a pod.
            (
                &[
                    "Warning Failed: Failed to pull image \"r/x\": not found",
                    "Warning BackOff (7x): Back-off pulling image \"r/x\"",
                ],
                Some("Warning Failed: Failed to pull image \"r/x\": not found"),
            ),
            (
                &["Warning Unhealthy (22x): Readiness probe failed: HTTP probe failed with statuscode: 503"],
                Some(
                    "Warning Unhealthy (22x): Readiness probe failed: HTTP probe failed with statuscode: 503",
                ),
            ),
        ] {
            assert_eq!(telling(lines.iter().copied()), said, "{lines:?}");
        }
    }
}

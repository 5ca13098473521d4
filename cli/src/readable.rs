//! Times, durations and commits as people read them. Pure.

/// Microseconds since 1970.
pub(crate) fn micros(time: Option<&prost_types::Timestamp>) -> Option<i64> {
    time.map(|time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1000)
}

/// A duration in microseconds as people read it: `350ms`, `4.2s`, `3m05s`, `2h10m`.
pub(crate) fn seconds(micros: i64) -> String {
    let millis = micros.max(0) / 1000;
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{}.{}s", millis / 1000, millis % 1000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", millis / 60_000, millis % 60_000 / 1000),
        _ => format!("{}h{:02}m", millis / 3_600_000, millis % 3_600_000 / 60_000),
    }
}

/// The first seven digits of a commit id.
pub(crate) fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (micros, text) in [
            (0, "0ms"),
            (999_999, "999ms"),
            (4_250_000, "4.2s"),
            (185_000_000, "3m05s"),
            (7_800_000_000, "2h10m"),
        ] {
            assert_eq!(seconds(micros), text);
        }
    }
}

//! Durations as Go's `time.ParseDuration` reads them, and with it kubectl and Argo CD: `90s`, `1h30m`, `1.5h`, `250ms`.

use std::time::Duration;

/// Decimal places of a fraction beyond which nothing changes: a nanosecond is 3.6e12th of an hour.
const PLACES: usize = 18;

/// Reads a duration that is not negative; `None` when it is not one.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, behind) = digits(rest);
        let (fraction, behind) = match behind.strip_prefix('.') {
            Some(behind) => digits(behind),
            None => ("", behind),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = behind
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit = nanoseconds(unit)?;
        let whole = number(whole)?.checked_mul(unit)?;
        let fraction = &fraction[..fraction.len().min(PLACES)];
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        total = total
            .checked_add(whole)?
            .checked_add(number(fraction)? * unit / scale)?;
        rest = behind;
    }
    // Go counts nanoseconds in 64 bits, with a sign.
    i64::try_from(total)
        .ok()
        .map(|nanoseconds| Duration::from_nanos(nanoseconds.unsigned_abs()))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn number(digits: &str) -> Option<u128> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse().ok()
}

fn nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign, and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let millis = Duration::from_millis;
        let table = [
            ("0", millis(0)),
            ("0s", millis(0)),
            ("5s", millis(5_000)),
            ("+5s", millis(5_000)),
            ("1h30m", millis(5_400_000)),
            ("1m30s", millis(90_000)),
            ("250ms", millis(250)),
            ("1.5h", millis(5_400_000)),
            (".5s", millis(500)),
            ("1.s", millis(1_000)),
            ("1.5us", Duration::from_nanos(1_500)),
            ("2µs", Duration::from_nanos(2_000)),
            ("2μs", Duration::from_nanos(2_000)),
            ("0.1234567891234567891234s", Duration::from_nanos(123_456_789)),
            ("2540400h", Duration::from_secs(2_540_400 * 3_600)),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "+",
            "5",
            "s",
            ".",
            ".s",
            "x",
            "5d",
            "1d",
            "-5s",
            "1h 30m",
            "an hour",
            "1h30",
            "1S",
            "2562048h",
            "99999999999999999999999999999999999999999h",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

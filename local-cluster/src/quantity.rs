//! Quantities of the Kubernetes API: `500m`, `1.5`, `64Mi`, `1e3` (`k8s.io/apimachinery/pkg/api/resource`).

/// Quantities with more digits than this are not realistic.
const MAX_DIGITS: usize = 18;

/// The quantity in thousandths, rounded up; `None` if it is not one.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-' && c != '+')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    // Thousandths of a unit, as a fraction.
    let (times, by): (i128, i128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "" => (1000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        "Ei" => (1000 << 60, 1),
        exponent => {
            let power: i32 = exponent
                .strip_prefix(['e', 'E'])?
                .parse()
                .ok()
                .filter(|p| (-18..=18).contains(p))?;
            let ten = 10_i128.pow(power.unsigned_abs());
            if power < 0 { (1000, ten) } else { (1000 * ten, 1) }
        }
    };
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || all.len() > MAX_DIGITS || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let by = by * 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let product = all.parse::<i128>().ok()?.checked_mul(times)?;
    Some(sign * ((product + by - 1) / by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_all_their_forms() {
        let table = [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("2k", Some(2_000_000)),
            ("1e3", Some(1_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000)),
            ("100n", Some(1)),
            ("-1", Some(-1000)),
            ("", None),
            ("1.2.3", None),
            ("abc", None),
            ("1e99", None),
        ];
        for (text, expected) in table {
            assert_eq!(milli(text), expected, "{text}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Spans of time, as people write and read them.

/// Units in us, largest first.
const UNITS: [(&str, u64); 3] = [("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// Reads "2s", "250ms" or "1500us" and returns us. What is too much for a number is the largest one.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    match unit {
        Some((_, us)) if !number.is_empty() => {
            Ok(number.parse().unwrap_or(u64::MAX).saturating_mul(*us))
        }
        _ => Err(format!("'{text}' is no time: write 2s, 250ms or 1500us")),
    }
}

/// Writes us so that parse() gives them back.
pub fn exact(us: u64) -> String {
    let [largest, .., smallest] = UNITS;
    let fitting = UNITS.iter().find(|(_, unit)| us != 0 && us % unit == 0);
    let (name, unit) = fitting.unwrap_or(if us == 0 { &largest } else { &smallest });
    format!("{}{name}", us / unit)
}

/// Writes ns in about three digits.
pub fn rough(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let fraction = |unit: u64, name: &str| {
        let decimals = match ns / unit {
            0..10 => 2,
            10..100 => 1,
            _ => 0,
        };
        let text = format!("{:.decimals$}", ns as f64 / unit as f64);
        let text = match text.split_once('.') {
            Some(_) => text.trim_end_matches('0').trim_end_matches('.'),
            None => &text,
        };
        format!("{text}{name}")
    };
    match ns / SECOND {
        0 if ns < 1_000 => format!("{ns}ns"),
        0 if ns < 1_000_000 => fraction(1_000, "us"),
        0 => fraction(1_000_000, "ms"),
        1..60 => fraction(SECOND, "s"),
        s @ 60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        s @ 3_600..86_400 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        s => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(parse("2s"), Ok(2_000_000));
        assert_eq!(parse("250ms"), Ok(250_000));
        assert_eq!(parse("1500us"), Ok(1_500));
        assert_eq!(parse("0s"), Ok(0));
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "", "250", "ms", "-1ms", "1.5ms", "1 ms", "1m", "1ns", "1MS", "0x1ms", "1ms2us", "+1s",
            "١s",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(
                error,
                format!("'{text}' is no time: write 2s, 250ms or 1500us")
            );
        }
    }

    #[test]
    fn too_much_stays_too_much() {
        assert_eq!(parse("99999999999999999999us"), Ok(u64::MAX));
        assert_eq!(parse("18446744073709551615s"), Ok(u64::MAX));
    }

    #[test]
    fn exact_is_read_back() {
        for (us, text) in [
            (0, "0s"),
            (1, "1us"),
            (1_000, "1ms"),
            (1_500, "1500us"),
            (250_000, "250ms"),
            (10_000_000, "10s"),
        ] {
            assert_eq!(exact(us), text);
            assert_eq!(parse(text), Ok(us));
        }
    }

    #[test]
    fn rough_has_about_three_digits() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1us"),
            (12_345, "12.3us"),
            (250_000_000, "250ms"),
            (250_432_100, "250ms"),
            (1_004_000, "1ms"),
            (1_050_000_000, "1.05s"),
            (59_940_000_000, "59.9s"),
            (60_000_000_000, "1m00s"),
            (3_599_000_000_000, "59m59s"),
            (5_460_000_000_000, "1h31m"),
            (90_000_000_000_000, "1d01h"),
        ] {
            assert_eq!(rough(ns), text);
        }
    }
}

//! The time that `--at` names: pure.

use crate::clock;

/// Reads an RFC 3339 time with its offset, or how long ago it was (`90m`, `2h ago`), in milliseconds
/// since the Unix epoch. The error says what is wrong, for the one who typed it.
pub fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    let text = text.trim();
    let at_ms = if let Ok(time) = text.parse::<jiff::Timestamp>() {
        time.as_millisecond()
    } else {
        let ago = text.strip_suffix("ago").unwrap_or(text).trim();
        let ago = humantime::parse_duration(ago).map_err(|_| {
            format!(
                "{text:?} is neither a time such as 2026-11-23T14:05:00Z nor how long ago it was, such as 90m or \"2h ago\""
            )
        })?;
        now_ms.saturating_sub(clock::signed_millis(ago))
    };
    if at_ms > now_ms {
        return Err(format!("{text:?} is in the future"));
    }
    Ok(at_ms)
}

/// The time in words.
pub fn show(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_444_019_123;

    #[test]
    fn a_time_is_absolute_or_ago() {
        assert_eq!(parse("2026-11-23T14:26:59.123Z", NOW), Ok(NOW));
        assert_eq!(parse("2026-11-23T15:26:59.123+01:00", NOW), Ok(NOW));
        assert_eq!(parse("90m", NOW), Ok(NOW - 5_400_000));
        assert_eq!(parse(" 2h ago ", NOW), Ok(NOW - 7_200_000));
        assert_eq!(show(NOW), "2026-11-23T14:26:59.123Z");
    }

    #[test]
    fn a_time_that_means_nothing_is_refused() {
        for text in ["", "yesterday", "2026-11-23", "2026-11-23T14:26:59", "2027-11-23T00:00:00Z"] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
    }
}

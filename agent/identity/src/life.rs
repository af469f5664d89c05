//! How much of a certificate's life has passed.

use std::time::SystemTime;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The share of a certificate's validity that is over at `now`, in percent: negative before its
/// start, 100 and more after its end. Times are RFC 3339, as the status page writes them; `None`
/// where they are not.
pub fn spent_percent(not_before: &str, not_after: &str, now: SystemTime) -> Option<i64> {
    let read = |text| OffsetDateTime::parse(text, &Rfc3339).ok();
    let (start, end) = (read(not_before)?, read(not_after)?);
    let (spent, whole) = (OffsetDateTime::from(now) - start, end - start);
    let whole = whole.whole_seconds().max(1);
    Some(spent.whole_seconds().saturating_mul(100).div_euclid(whole))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_share_is_negative_before_the_start_and_a_hundred_at_the_end() {
        let (start, end) = ("2026-01-01T00:00:00Z", "2026-01-01T01:40:00Z");
        let begins = OffsetDateTime::parse(start, &Rfc3339).unwrap();
        let at = |seconds: i64| {
            let now = SystemTime::from(begins + time::Duration::seconds(seconds));
            spent_percent(start, end, now)
        };
        for (seconds, percent) in [(-1, -1), (0, 0), (3_000, 50), (5_999, 99), (6_000, 100)] {
            assert_eq!(at(seconds), Some(percent), "{seconds}");
        }
        assert_eq!(spent_percent("", end, SystemTime::UNIX_EPOCH + Duration::from_secs(1)), None);
    }
}

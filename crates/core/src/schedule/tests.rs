//! Expressions, and due times about changes of the clocks.

use proptest::prelude::*;

use super::*;

/// A time as RFC 3339, in milliseconds since the beginning of 1970.
fn at(text: &str) -> u64 {
    let at: Timestamp = text.parse().expect(text);
    u64::try_from(at.as_millisecond()).expect("after 1970")
}

/// So many due times after `from`, as UTC.
fn due(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let timetable = Timetable::new(expression, zone).expect(expression);
    let mut now = at(from);
    let mut all = Vec::new();
    for _ in 0..count {
        let next = timetable.next_after(now).expect("it is due again");
        assert!(next > now, "{expression}: {next} is not after {now}");
        // Nothing between is due earlier, and the instant before it sees the same.
        assert_eq!(timetable.next_after(next - 1), Some(next), "{expression}");
        now = next;
        let text = Timestamp::from_millisecond(i64::try_from(next).expect("small"));
        all.push(text.expect("a time").strftime("%m-%dT%H:%MZ").to_string());
    }
    all
}

#[test]
fn every_few_minutes() {
    assert_eq!(
        due("*/20 * * * *", "UTC", "2026-03-01T10:05:00.5Z", 4),
        [
            "03-01T10:20Z",
            "03-01T10:40Z",
            "03-01T11:00Z",
            "03-01T11:20Z"
        ]
    );
    assert_eq!(
        due("0 9 * * MON-FRI", "UTC", "2026-03-06T09:00:00Z", 2),
        ["03-09T09:00Z", "03-10T09:00Z"]
    );
    assert_eq!(
        due("0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z", 1),
        ["02-29T00:00Z"]
    );
    assert_eq!(
        due("30 23 L * *", "utc", "2026-02-01T00:00:00Z", 2),
        ["02-28T23:30Z", "03-31T23:30Z"]
    );
}

/// On the 29th of March 2026 clocks in Berlin go from 2:00 to 3:00, at 1:00 UTC.
#[test]
fn a_time_that_is_left_out_is_due_once_after_it() {
    let berlin =
        |expression, count| due(expression, "Europe/Berlin", "2026-03-28T12:00:00Z", count);
    assert_eq!(berlin("30 2 * * *", 2), ["03-29T01:00Z", "03-30T00:30Z"]);
    assert_eq!(
        berlin("0,15,30 2 * * *", 2),
        ["03-29T01:00Z", "03-30T00:00Z"],
        "all that are left out are due once"
    );
    assert_eq!(
        berlin("0 2,3 * * *", 3),
        ["03-29T01:00Z", "03-30T00:00Z", "03-30T01:00Z"],
        "3:00 is the instant after 2:00 that day"
    );
    assert_eq!(
        berlin("30 2,14 * * *", 3),
        ["03-28T13:30Z", "03-29T01:00Z", "03-29T12:30Z"]
    );
    assert_eq!(berlin("0 1 * * *", 2), ["03-29T00:00Z", "03-29T23:00Z"]);
    // Every hour that there is.
    assert_eq!(
        due("30 * * * *", "Europe/Berlin", "2026-03-28T23:45:00Z", 3),
        ["03-29T00:30Z", "03-29T01:30Z", "03-29T02:30Z"]
    );
}

/// On the 25th of October 2026 clocks in Berlin go from 3:00 back to 2:00, at 1:00 UTC.
#[test]
fn a_time_that_comes_twice_is_due_once() {
    let berlin =
        |expression, count| due(expression, "Europe/Berlin", "2026-10-24T12:00:00Z", count);
    assert_eq!(berlin("30 2 * * *", 2), ["10-25T00:30Z", "10-26T01:30Z"]);
    assert_eq!(
        berlin("*/30 2 * * *", 3),
        ["10-25T00:00Z", "10-25T00:30Z", "10-26T01:00Z"]
    );
    assert_eq!(
        berlin("0 2,3 * * *", 3),
        ["10-25T00:00Z", "10-25T02:00Z", "10-26T01:00Z"]
    );
    // From within the second of the two hours.
    assert_eq!(
        due("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1),
        ["10-26T01:30Z"]
    );
    // Every hour that there is, twice too.
    assert_eq!(
        due("30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 4),
        [
            "10-25T00:30Z",
            "10-25T01:30Z",
            "10-25T02:30Z",
            "10-25T03:30Z"
        ]
    );
    assert_eq!(
        due("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", 3),
        ["10-25T01:00Z", "10-25T01:30Z", "10-25T02:00Z"]
    );
}

#[test]
fn what_is_no_expression_says_which_field() {
    for (text, message) in [
        ("", "has 0 fields, not 5"),
        ("* * * *", "has 4 fields, not 5"),
        ("0 * * * * *", "has 6 fields, not 5"),
        ("@daily", "has 1 fields, not 5"),
        ("60 * * * *", "has the minute `60`, which cannot be"),
        ("0 24 * * *", "has the hour `24`, which cannot be"),
        ("0 0 0 * *", "has the day of the month `0`, which cannot be"),
        ("0 0 * 13 *", "has the month `13`, which cannot be"),
        (
            "0 0 * * MOO",
            "has the day of the week `MOO`, which cannot be",
        ),
        ("é * * * *", "has the minute `é`, which cannot be"),
        ("*/0 * * * *", "has the minute `*/0`, which cannot be"),
        ("0 0 30 2 *", "names a day that never comes"),
    ] {
        let error = check(text).expect_err(text);
        assert_eq!(error.to_string(), message, "{text}");
        assert!(!error.hint().is_empty());
    }
    let long = format!("{} * * * *", "0,".repeat(200));
    assert_eq!(check(&long), Err(ExpressionError::TooLong));
    assert_eq!(check("0 0 29 2 1#5"), Ok(()), "a rare one");
}

#[test]
fn zones_are_those_of_the_database() {
    assert_eq!(zone("europe/berlin").as_deref(), Some("Europe/Berlin"));
    assert_eq!(zone("UTC").as_deref(), Some("UTC"));
    assert_eq!(zone("Mars/Olympus"), None);
    assert!(zones().iter().any(|name| name == "Europe/Berlin"));
    assert!(Timetable::new("0 0 * * *", "Mars/Olympus").is_none());
    assert!(Timetable::new("bad", "UTC").is_none());
}

#[test]
fn no_time_is_too_late() {
    let timetable = Timetable::new("* * * * *", "Europe/Berlin").expect("good");
    for wall_ms in [0, u64::MAX, i64::MAX as u64, 253_402_300_799_999] {
        let next = timetable.next_after(wall_ms);
        assert!(next.is_none_or(|next| next > wall_ms));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_text_panics(fields in prop::collection::vec("[0-9A-Z*/,#-]{1,6}|\\PC{0,4}|[0-9*]|[1-9L]W?", 5)) {
        let expression = fields.join(" ");
        if check(&expression).is_ok() {
            let timetable = Timetable::new(&expression, "Europe/Berlin").expect("it is good");
            let mut now = at("2026-03-28T12:00:00Z");
            for _ in 0..3 {
                let next = timetable.next_after(now);
                prop_assert!(next.is_none_or(|next| next > now), "{}", expression);
                now = next.unwrap_or(now);
            }
        }
    }
}

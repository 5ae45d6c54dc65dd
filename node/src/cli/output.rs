//! Printing: a table for people, JSON for programs.

use std::io::Write as _;
use std::os::fd::AsFd;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
pub(crate) use skep_protocol::text::escaped;
use skep_protocol::time::LogInstant;

use super::Failure;
pub(crate) use super::format::Format;

/// How often a verb that waits looks whether anybody still reads what it prints.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Something that can be a row of a table.
pub(crate) trait Row: Serialize {
    /// The columns' names.
    const COLUMNS: &'static [&'static str];
    /// The columns.
    fn cells(&self) -> Vec<String>;
}

/// Prints a list.
pub(crate) fn rows<T: Row>(format: Format, rows: &[T]) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(T::COLUMNS.iter().map(|name| name.to_uppercase()));
            for row in rows {
                table.add_row(row.cells().iter().map(|cell| escaped(cell).into_owned()));
            }
            write(&table.to_string())
        }
        Format::Json => json(&rows),
        Format::Jsonl => rows.iter().try_for_each(json_line),
    }
}

/// Prints one thing: as lines of name and value for people.
pub(crate) fn one<T: Serialize>(format: Format, thing: &T, lines: &[(&str, String)]) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            let mut said = lines.iter().filter(|(_, value)| !value.is_empty());
            said.try_for_each(|(name, value)| print(&format!("{name:width$}  {value}")))
        }
        Format::Json => json(thing),
        Format::Jsonl => json_line(thing),
    }
}

/// Prints a line for people.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(&escaped(text))
}

/// Prints a JSON document.
pub(crate) fn json<T: Serialize>(thing: &T) -> Result<(), Failure> {
    write(&serde_json::to_string_pretty(thing).map_err(Failure::failed)?)
}

/// Prints a JSON document on one line.
pub(crate) fn json_line<T: Serialize>(thing: &T) -> Result<(), Failure> {
    write(&serde_json::to_string(thing).map_err(Failure::failed)?)
}

/// Tells people, beside the output, what they should know. Where nobody can hear it there is nobody to be told.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", escaped(text));
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Waits until whoever reads the output has gone away; for ever if nobody can.
pub(crate) async fn reader_gone() {
    while !is_reader_gone(&std::io::stdout()) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_reader_gone(output: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(output, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    poll(&mut polled, Some(&at_once)).is_ok() && polled[0].revents().intersects(gone)
}

/// A UUID of 16 bytes as text.
pub(crate) fn uuid_text(bytes: &[u8]) -> String {
    uuid::Uuid::from_slice(bytes).map(|id| id.to_string()).unwrap_or_default()
}

/// A UUID given as text, as bytes.
pub(crate) fn uuid_bytes(text: &str) -> Result<Vec<u8>, Failure> {
    let parsed = uuid::Uuid::try_parse(text);
    parsed.map(|id| id.as_bytes().to_vec()).map_err(|_| Failure::usage(format!("{text:?} is not an id; ids are UUIDs")))
}

/// What stands for a duration between two eras of the log clock, which nobody knows.
pub(crate) const ANOTHER_ERA: &str = "another era";

/// Milliseconds between two instants of the log clock, zero if the first is the later one; none if they are of different
/// eras.
pub(crate) fn between(earlier: u64, later: u64) -> Option<u64> {
    LogInstant::from_raw(later).checked_since_ms(LogInstant::from_raw(earlier))
}

/// An instant of the log clock as its age at another one.
pub(crate) fn age(at: u64, now: u64) -> String {
    if at == 0 {
        return String::new();
    }
    match (between(at, now), between(now, at)) {
        _ if now == 0 => format!("at {}", LogInstant::from_raw(at)),
        (Some(0), Some(ms)) if ms > 0 => format!("in {}", span(ms)),
        (Some(ms), _) => format!("{} ago", span(ms)),
        (None, _) => format!("in {ANOTHER_ERA}"),
    }
}

/// Milliseconds for people.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A duration given as text, such as `10s`.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a duration such as 10s or 500ms"))?;
    span.try_into().map_err(|_| format!("{text:?} is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_as_what_it_is() {
        // openclaw/openclaw#123797
        assert_eq!(escaped("a\u{1b}[2Jb\nc\td"), "a\\u{1b}[2Jb\\nc\\td");
        assert_eq!(escaped("\u{9b}2J \u{202e}x \u{7f}"), "\\u{9b}2J \\u{202e}x \\u{7f}");
        assert!(matches!(escaped("plain \u{2013} \u{e4}\u{5b89}"), std::borrow::Cow::Borrowed(_)));
    }

    #[test]
    fn a_pipe_that_nobody_reads_any_more_is_noticed_without_writing() {
        // sharkdp/fd#737
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!is_reader_gone(&writer));
        drop(reader);
        assert!(is_reader_gone(&writer));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!is_reader_gone(&file));
    }

    #[test]
    fn an_age_is_told_within_an_era_and_never_across_two() {
        // rfmoz/tuptime#81
        let at = LogInstant::from_raw(61_000);
        let (earlier, later) = (at.raw(), at.plus_ms(1_500).raw());
        assert_eq!(age(earlier, later), "1.5 s ago");
        assert_eq!(age(later, earlier), "in 1.5 s");
        assert_eq!(age(earlier, earlier), "0 ms ago");
        assert_eq!(age(earlier, 0), "at 61.000 s");
        let next = at.next_era().plus_ms(5).raw();
        assert_eq!(
            (age(earlier, next), age(next, earlier)),
            ("in another era".to_owned(), "in another era".to_owned())
        );
        assert_eq!((between(earlier, next), between(next, earlier)), (None, None));
    }
}

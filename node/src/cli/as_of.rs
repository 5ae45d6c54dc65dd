//! How old an answer is, and lists that tell it.

use serde::Serialize;
use skep_client::v1;

use super::Failure;
use super::output::{Format, Row, json, json_line, rows, span, tell};

/// The number of elements on one page of a list.
pub(crate) const PAGE: u32 = 1_000;

/// Where an answer stands in the log of its shard, and how old it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct AsOf {
    pub(crate) index: u64,
    pub(crate) clock: u64,
    pub(crate) linearizable: bool,
    /// How long ago the node heard from a leader or a quorum, in milliseconds; none if never.
    pub(crate) age_ms: Option<u64>,
}

impl From<Option<v1::AsOf>> for AsOf {
    fn from(as_of: Option<v1::AsOf>) -> Self {
        let v1::AsOf { index, clock, linearizable, age_ms, .. } = as_of.unwrap_or_default();
        Self { index, clock, linearizable, age_ms }
    }
}

impl AsOf {
    /// The age of an answer in pages: that of the oldest page.
    pub(crate) fn and(self, next: Self) -> Self {
        Self {
            index: self.index.min(next.index),
            clock: next.clock,
            linearizable: self.linearizable && next.linearizable,
            age_ms: self.age_ms.zip(next.age_ms).map(|(this, next)| this.max(next)),
        }
    }

    /// Tells people the age of a stale answer.
    pub(crate) fn say(&self, format: Format) {
        if !self.linearizable && format == Format::Table {
            let age = self.age_ms.map_or("the node has not heard from a leader since its start".to_owned(), |ms| {
                format!("the node heard from the leader {} ago", span(ms))
            });
            tell(&format!("this replica as it is, at index {}: {age}", self.index));
        }
    }
}

/// A list that the command line gathers page by page.
pub(crate) struct Pages<T> {
    rows: Vec<T>,
    as_of: Option<AsOf>,
}

impl<T: Row> Pages<T> {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), as_of: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn add(&mut self, as_of: Option<v1::AsOf>, rows: impl IntoIterator<Item = T>) {
        let as_of = AsOf::from(as_of);
        self.as_of = Some(self.as_of.map_or(as_of, |known| known.and(as_of)));
        self.rows.extend(rows);
    }

    /// Prints the list. A list of a replica as it is tells its age: JSON has an object with both, and JSON lines have a
    /// first line with the age.
    pub(crate) fn print(&self, format: Format, name: &str) -> Result<(), Failure> {
        let as_of = self.as_of.unwrap_or_default();
        match format {
            Format::Json if !as_of.linearizable => json(&serde_json::json!({ "as_of": as_of, name: self.rows })),
            Format::Jsonl if !as_of.linearizable => {
                json_line(&serde_json::json!({ "as_of": as_of }))?;
                rows(format, &self.rows)
            }
            Format::Table | Format::Json | Format::Jsonl => {
                rows(format, &self.rows)?;
                as_of.say(format);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_pages_is_as_old_as_the_oldest_of_them() {
        // hashicorp/consul#54
        let page = |age_ms| AsOf { index: 5, clock: 9, linearizable: false, age_ms };
        assert_eq!(page(Some(10)).and(page(Some(4_000))).age_ms, Some(4_000));
        assert_eq!(page(Some(4_000)).and(page(Some(10))).age_ms, Some(4_000));
        assert_eq!(page(Some(10)).and(page(None)).age_ms, None, "the age of that one is not known");
    }
}

//! Sorted entries in pages: they take little memory beside the entries themselves, and clones share all of it until one
//! of them changes.

use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use skep_protocol::time::LogInstant;

/// Most entries of a page. An insertion moves some of them, and the first change after a clone copies them all.
const PAGE_MAX: usize = 128;
/// A page with fewer entries is joined with one beside it, if both together are half of a page.
const PAGE_MIN: usize = PAGE_MAX / 4;
/// Number of entries for which a page makes room at a time. A vector by itself would double, and waste a third.
const GROWTH: usize = 8;

/// What pages are made of.
pub(super) trait Entry: Clone {
    /// The key by which they are sorted.
    type Key: Ord + Copy + Debug;

    /// Key of the entry; no two entries share one.
    fn key(&self) -> Self::Key;

    /// When the entry is due; none if it never is.
    fn due(&self) -> Option<LogInstant>;
}

#[derive(Clone, Debug)]
struct Page<E> {
    /// Sorted by key, and never empty.
    entries: Vec<E>,
    /// When the first of them is due.
    due: Option<LogInstant>,
}

/// Entries in order of their keys, and pages in order of the first instant that is due in them.
#[derive(Clone, Debug)]
pub(super) struct Pages<E: Entry> {
    /// Pages, each by a key that is not above any of its entries, and above all of the page before.
    pages: OrdMap<E::Key, Arc<Page<E>>>,
    due: OrdSet<(LogInstant, E::Key)>,
    len: usize,
}

impl<E: Entry> Default for Pages<E> {
    fn default() -> Self {
        Self { pages: OrdMap::new(), due: OrdSet::new(), len: 0 }
    }
}

fn soonest<E: Entry>(entries: &[E]) -> Option<LogInstant> {
    entries.iter().filter_map(E::due).min()
}

impl<E: Entry> Pages<E> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        self.pages.values().flat_map(|page| page.entries.iter())
    }

    /// Entries from a key on.
    pub(super) fn iter_from(&self, key: E::Key) -> impl Iterator<Item = &E> {
        let first = self.pages.get_prev(&key).map_or(key, |(at, _)| *at);
        let pages = self.pages.range::<_, E::Key>((Bound::Included(first), Bound::Unbounded));
        pages.flat_map(|(_, page)| page.entries.iter()).skip_while(move |entry| entry.key() < key)
    }

    pub(super) fn get(&self, key: &E::Key) -> Option<&E> {
        let (_, page) = self.pages.get_prev(key)?;
        let place = page.entries.binary_search_by(|known| known.key().cmp(key)).ok()?;
        page.entries.get(place)
    }

    /// Adds an entry, in the place of the one with its key if there is one.
    pub(super) fn insert(&mut self, entry: E) {
        let key = entry.key();
        let Some(at) = self.page_for(&key) else {
            self.len += 1;
            return self.put(vec![entry]);
        };
        let Some(page) = self.pages.get_mut(&at) else { return };
        let page = Arc::make_mut(page);
        let before = page.due;
        match page.entries.binary_search_by(|known| known.key().cmp(&key)) {
            Ok(place) => {
                page.entries[place] = entry;
                page.due = soonest(&page.entries);
            }
            Err(place) => {
                page.due = [page.due, entry.due()].into_iter().flatten().min();
                if page.entries.len() == page.entries.capacity() {
                    page.entries.reserve_exact(GROWTH);
                }
                page.entries.insert(place, entry);
                self.len += 1;
            }
        }
        let (due, is_over) = (page.due, page.entries.len() > PAGE_MAX);
        self.mind(at, before, due);
        if is_over {
            self.split(at);
        } else if key < at {
            let entries = self.take(&at);
            self.put(entries);
        }
    }

    pub(super) fn remove(&mut self, key: &E::Key) -> Option<E> {
        let (at, page) = self.pages.get_prev(key)?;
        let place = page.entries.binary_search_by(|known| known.key().cmp(key)).ok()?;
        let at = *at;
        self.cut(at, |entries| entries.remove(place))
    }

    /// Takes the entry with the lowest key out.
    pub(super) fn pop_first(&mut self) -> Option<E> {
        let at = self.pages.get_min().map(|(at, _)| *at)?;
        self.cut(at, |entries| (!entries.is_empty()).then(|| entries.remove(0))).flatten()
    }

    /// Takes out what is due before an instant, of one page; nothing once nothing is.
    pub(super) fn take_due(&mut self, now: LogInstant) -> Vec<E> {
        let is_due = |due: Option<LogInstant>| due.is_some_and(|due| due < now);
        let Some((_, at)) = self.due.get_min().copied().filter(|(due, _)| is_due(Some(*due))) else {
            return Vec::new();
        };
        self.cut(at, |entries| entries.extract_if(.., |entry| is_due(entry.due())).collect()).unwrap_or_default()
    }

    /// The page in which an entry with a key is, or would be put.
    fn page_for(&self, key: &E::Key) -> Option<E::Key> {
        let at = self.pages.get_prev(key).map(|(at, _)| *at);
        at.or_else(|| self.pages.get_min().map(|(at, _)| *at))
    }

    /// Takes entries out of a page.
    fn cut<T>(&mut self, at: E::Key, cut: impl FnOnce(&mut Vec<E>) -> T) -> Option<T> {
        let page = Arc::make_mut(self.pages.get_mut(&at)?);
        let (before, had) = (page.due, page.entries.len());
        let gone = cut(&mut page.entries);
        page.due = soonest(&page.entries);
        let (due, left) = (page.due, page.entries.len());
        if page.entries.capacity() > left + 2 * GROWTH {
            page.entries.shrink_to(left + GROWTH);
        }
        self.len = self.len.saturating_sub(had.saturating_sub(left));
        self.mind(at, before, due);
        if left < PAGE_MIN {
            self.join(at, left);
        }
        Some(gone)
    }

    /// Makes two pages of one.
    fn split(&mut self, at: E::Key) {
        // Most keys come in about the order of time: a page that is left behind stays as full as it is.
        let is_last = self.pages.get_max().is_some_and(|(last, _)| *last == at);
        let kept = if is_last { PAGE_MAX - PAGE_MAX / 8 } else { PAGE_MAX / 2 };
        let mut entries = self.take(&at);
        let rest = entries.split_off(kept.min(entries.len()));
        self.put(entries);
        self.put(rest);
    }

    /// Lets go of a page without entries; joins one that has few with one beside it, if the two fit.
    fn join(&mut self, at: E::Key, left: usize) {
        let size = |(key, page): (&E::Key, &Arc<Page<E>>)| (*key, page.entries.len());
        let after = self.pages.range::<_, E::Key>((Bound::Excluded(at), Bound::Unbounded)).next().map(size);
        let before = self.pages.range::<_, E::Key>((Bound::Unbounded, Bound::Excluded(at))).next_back().map(size);
        if left == 0 {
            self.take(&at);
            // The pages on both sides of it lie beside each other.
            if let Some((next, entries)) = after.filter(|(_, entries)| *entries < PAGE_MIN) {
                self.join(next, entries);
            }
            return;
        }
        let fits = |(_, entries): &(E::Key, usize)| entries + left <= PAGE_MAX / 2;
        let Some((other, _)) = after.filter(fits).or(before.filter(fits)) else { return };
        let mut entries = self.take(&at.min(other));
        entries.extend(self.take(&at.max(other)));
        let (joined, size) = (entries.first().map(E::key), entries.len());
        self.put(entries);
        if let Some(at) = joined.filter(|_| size < PAGE_MIN) {
            self.join(at, size);
        }
    }

    fn take(&mut self, at: &E::Key) -> Vec<E> {
        let Some(page) = self.pages.remove(at) else { return Vec::new() };
        self.mind(*at, page.due, None);
        Arc::unwrap_or_clone(page).entries
    }

    fn put(&mut self, mut entries: Vec<E>) {
        let Some(at) = entries.first().map(E::key) else { return };
        entries.shrink_to_fit();
        let due = soonest(&entries);
        self.mind(at, None, due);
        self.pages.insert(at, Arc::new(Page { entries, due }));
    }

    /// Moves a page whose first due instant has changed.
    fn mind(&mut self, at: E::Key, before: Option<LogInstant>, due: Option<LogInstant>) {
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, at));
        }
        if let Some(due) = due {
            self.due.insert((due, at));
        }
    }
}

#[cfg(test)]
impl<E: Entry> Pages<E> {
    /// About how many bytes of memory it takes beside what its entries own: all allocated memory, used or not, and two
    /// places in each tree for a page, since their nodes may be half full.
    pub(super) fn approximate_bytes(&self) -> usize {
        const ALLOCATION: usize = 16;
        let fixed = ALLOCATION + 2 * size_of::<usize>() + size_of::<Page<E>>() + ALLOCATION;
        let in_trees = 2 * size_of::<(E::Key, Arc<Page<E>>)>();
        let due = 2 * size_of::<(LogInstant, E::Key)>() * self.due.len();
        let pages = self.pages.values();
        pages.map(|page| fixed + in_trees + page.entries.capacity() * size_of::<E>()).sum::<usize>() + due
    }

    /// Panics unless everything is where the code looks for it.
    pub(super) fn check(&self) {
        let mut last = None;
        let mut due: OrdSet<(LogInstant, E::Key)> = OrdSet::new();
        for (at, page) in self.pages.iter() {
            assert!(!page.entries.is_empty() && page.entries.len() <= PAGE_MAX);
            for entry in &page.entries {
                assert!(entry.key() >= *at && last.is_none_or(|last| last < entry.key()), "{:?}", entry.key());
                last = Some(entry.key());
            }
            assert_eq!(page.due, soonest(&page.entries));
            due.extend(page.due.map(|due| (due, *at)));
        }
        assert_eq!(due, self.due);
        assert_eq!(self.iter().count(), self.len);
        let sizes: Vec<usize> = self.pages.values().map(|page| page.entries.len()).collect();
        assert!(sizes.windows(2).all(|two| two[0] + two[1] > PAGE_MIN), "{sizes:?}");
    }
}

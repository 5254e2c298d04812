//! Splice editing: a list of replacements over bytes that are otherwise kept.
//!
//! A transparent relay must hand on what it does not understand. So nothing here is ever parsed and written
//! back: an edit names a range of the original and its new text, and [`Splices::apply`] copies everything
//! between the edits byte for byte. SIP heads, SDP bodies and multipart bodies are all edited this way.
//!
//! Invariant: bytes outside the edited ranges come out as they went in, in their order.

use std::{fmt, io::Write as _, ops::Range};

/// Replacements over one original, applied all at once.
#[derive(Clone, Debug, Default)]
pub struct Splices {
    /// The new texts, one after the other: one allocation for all edits.
    text: Vec<u8>,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
struct Edit {
    start: usize,
    end: usize,
    text: Range<usize>,
}

impl Splices {
    /// No edits yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Puts `text` in the place of `range`. A range that overlaps an edit starting before it is left out when
    /// applied; of two insertions at one place, the first asked for comes first.
    pub fn replace(&mut self, range: Range<usize>, text: &[u8]) {
        let from = self.text.len();
        self.text.extend_from_slice(text);
        self.push(range, from);
    }

    /// [`Splices::replace`] with formatted text.
    pub fn replace_fmt(&mut self, range: Range<usize>, text: fmt::Arguments<'_>) {
        let from = self.text.len();
        // Writing to a Vec cannot fail; a Display implementation that fails leaves its text short.
        let _ = self.text.write_fmt(text);
        self.push(range, from);
    }

    /// Inserts `text` before the byte at `at`.
    pub fn insert(&mut self, at: usize, text: &[u8]) {
        self.replace(at..at, text);
    }

    /// Takes `range` out.
    pub fn remove(&mut self, range: Range<usize>) {
        self.replace(range, b"");
    }

    fn push(&mut self, range: Range<usize>, from: usize) {
        self.edits.push(Edit {
            start: range.start,
            end: range.end.max(range.start),
            text: from..self.text.len(),
        });
    }

    /// The original with all edits made.
    #[must_use]
    pub fn apply(&self, original: &[u8]) -> Vec<u8> {
        let mut order: Vec<&Edit> = self.edits.iter().collect();
        order.sort_by_key(|edit| edit.start); // stable: insertions at one place keep their order
        let mut out = Vec::with_capacity(original.len() + self.text.len());
        let mut done = 0;
        for edit in order {
            if edit.start < done || edit.end > original.len() {
                continue;
            }
            out.extend_from_slice(original.get(done..edit.start).unwrap_or_default());
            out.extend_from_slice(self.text.get(edit.text.clone()).unwrap_or_default());
            done = edit.end;
        }
        out.extend_from_slice(original.get(done..).unwrap_or_default());
        out
    }
}

/// Where `part` lies in `whole`, when it is a part of the very same memory.
///
/// Parsers hand out slices; editors need offsets. This turns one into the other without carrying both.
#[must_use]
pub fn offset_in(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edits_are_applied_in_the_order_of_their_place() {
        let mut splices = Splices::new();
        splices.replace(6..11, b"there");
        splices.insert(0, b">");
        splices.insert(0, b"> ");
        splices.remove(5..6);
        assert_eq!(splices.apply(b"hello world"), b">> hellothere");
    }

    proptest! {
        #[test]
        fn one_edit_keeps_what_is_before_and_after_it(
            original in proptest::collection::vec(any::<u8>(), 0..64),
            a in 0usize..64, b in 0usize..64,
            text in proptest::collection::vec(any::<u8>(), 0..16),
        ) {
            let (a, b) = (a.min(original.len()), b.min(original.len()));
            let (a, b) = (a.min(b), a.max(b));
            let mut splices = Splices::new();
            splices.replace(a..b, &text);
            let expected = [&original[..a], &text[..], &original[b..]].concat();
            prop_assert_eq!(splices.apply(&original), expected);
        }

        #[test]
        fn edits_outside_the_original_or_overlapping_never_panic(
            original in proptest::collection::vec(any::<u8>(), 0..32),
            edits in proptest::collection::vec((0usize..64, 0usize..64), 0..8),
        ) {
            let mut splices = Splices::new();
            for (a, b) in edits { splices.replace(a..b, b"x"); }
            let _ = splices.apply(&original);
        }
    }
}

//! Where the slots of an object's PLT lie, and which pages are theirs alone.
//!
//! Linkers put the slots (`.got.plt`) behind what RELRO protects, unless all functions are bound at start-up, and directly before the
//! writable data. There are no section headers at run time, so `DT_JMPREL` tells which words are slots and `DT_PLTGOT` where the three
//! words before them are. Once all slots are bound nobody writes a page that holds nothing else.

use crate::addr::{VAddr, PAGE_SIZE};
use crate::memory;
use crate::object::Object;
use core::ops::Range;
use goblin::elf64::reloc::{Rela, R_X86_64_IRELATIVE, R_X86_64_JUMP_SLOT, R_X86_64_TLSDESC};

/// The words before the slots that the PLT's first entry uses.
const HEADER: u64 = 24;

/// The relocations of an object's PLT; none if they lie outside the object.
pub fn records(object: &Object) -> &'static [Rela] {
    let bytes = object.dynamic.plt_rela.and_then(|table| object.image.view().bytes(table.at, table.size));
    bytes.and_then(|bytes| plain::slice_from_bytes(bytes).ok()).unwrap_or(&[])
}

/// The pages of an object on which slots of its PLT lie that RELRO does not protect, and those of them that hold nothing else.
pub fn pages(object: &Object) -> Option<GotPages> {
    let relro = object.relro.clone().unwrap_or(VAddr(0)..VAddr(0));
    GotPages::find(records(object), object.dynamic.plt_got, &relro)
}

/// Pages with slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GotPages {
    /// All of them.
    pub all: Range<VAddr>,
    /// Those that lie wholly inside; empty if there are none.
    pub own: Range<VAddr>,
}

impl GotPages {
    /// From the records of the PLT, the address that `DT_PLTGOT` gives, and the pages that RELRO protects.
    pub fn find(records: &[Rela], plt_got: Option<VAddr>, relro: &Range<VAddr>) -> Option<GotPages> {
        let slots = || records.iter().filter_map(slot).filter(|slot| !relro.contains(&slot.start));
        let start = slots().map(|slot| slot.start).min()?;
        let end = slots().map(|slot| slot.end).max()?;
        let all = start.page_floor()..end.page_ceil()?;
        let none = all.end..all.end;
        if end.0 - start.0 + HEADER < PAGE_SIZE {
            return Some(GotPages { all, own: none });
        }
        let own = longest_run(slots())
            .map(|mut run| {
                if plt_got.and_then(|at| at.checked_add(HEADER)) == Some(run.start) {
                    run.start = plt_got.unwrap_or(run.start);
                }
                run.start.page_ceil().unwrap_or(run.end)..run.end.page_floor()
            })
            .filter(|own| own.start < own.end)
            .unwrap_or(none);
        Some(GotPages { all, own })
    }
}

/// The words that a record of the PLT fills.
fn slot(record: &Rela) -> Option<Range<VAddr>> {
    let len = match (record.r_info & 0xffff_ffff) as u32 {
        R_X86_64_JUMP_SLOT | R_X86_64_IRELATIVE => 8,
        R_X86_64_TLSDESC => 16,
        _ => return None,
    };
    let start = VAddr(record.r_offset);
    Some(start..start.checked_add(len)?)
}

/// The longest stretch without a hole; none if there is no memory to find it.
fn longest_run(slots: impl Iterator<Item = Range<VAddr>> + Clone) -> Option<Range<VAddr>> {
    // As linkers write them.
    if slots.clone().is_sorted_by_key(|slot| slot.start) {
        return longest_of_sorted(slots);
    }
    let mut sorted = memory::with_capacity(slots.clone().count()).ok()?;
    sorted.extend(slots);
    sorted.sort_unstable_by_key(|slot| slot.start);
    longest_of_sorted(sorted.into_iter())
}

fn longest_of_sorted(mut slots: impl Iterator<Item = Range<VAddr>>) -> Option<Range<VAddr>> {
    let mut run = slots.next()?;
    let mut longest = run.clone();
    for slot in slots {
        if slot.start <= run.end {
            run.end = run.end.max(slot.end);
        } else {
            run = slot;
        }
        if run.end.0 - run.start.0 > longest.end.0 - longest.start.0 {
            longest = run.clone();
        }
    }
    Some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn record(at: u64, kind: u32) -> Rela {
        Rela { r_offset: at, r_info: u64::from(kind), r_addend: 0 }
    }

    fn slots(from: u64, count: u64) -> Vec<Rela> {
        (0..count).map(|n| record(from + 8 * n, R_X86_64_JUMP_SLOT)).collect()
    }

    fn find(records: &[Rela], plt_got: u64, relro: Range<u64>) -> Option<(Range<u64>, Range<u64>)> {
        let found = GotPages::find(records, Some(VAddr(plt_got)), &(VAddr(relro.start)..VAddr(relro.end)))?;
        Some((found.all.start.0..found.all.end.0, found.own.start.0..found.own.end.0))
    }

    #[test]
    fn a_small_table_shares_its_page() {
        assert_eq!(find(&slots(0x4000, 10), 0x3fe8, 0x3000..0x4000), Some((0x4000..0x5000, 0x5000..0x5000)));
    }

    #[test]
    fn slots_in_relro_are_not_counted() {
        assert_eq!(find(&slots(0x3018, 10), 0x3000, 0x3000..0x4000), None);
        assert_eq!(find(&[], 0x3000, 0..0), None);
    }

    #[test]
    fn whole_pages_are_its_own() {
        // As ld places it: the header at the end of RELRO, the slots from a page's start on.
        assert_eq!(find(&slots(0x4000, 1200), 0x3fe8, 0x3000..0x4000), Some((0x4000..0x7000, 0x4000..0x6000)));
        // The header belongs to it, and the order of the records is of no account.
        let mut unsorted = slots(0x4018, 600);
        unsorted.reverse();
        assert_eq!(find(&unsorted, 0x4000, 0..0), Some((0x4000..0x6000, 0x4000..0x5000)));
        assert_eq!(find(&slots(0x4018, 600), 0x3000, 0..0), Some((0x4000..0x6000, 0x6000..0x6000)));
    }

    #[test]
    fn a_hole_is_somebody_else_s() {
        let mut records = slots(0x4000, 700);
        records.remove(300);
        assert_eq!(find(&records, 0x3fe8, 0x3000..0x4000), Some((0x4000..0x6000, 0x6000..0x6000)));
        records.extend(slots(0x6000, 512));
        assert_eq!(find(&records, 0x3fe8, 0x3000..0x4000), Some((0x4000..0x7000, 0x6000..0x7000)));
    }

    #[test]
    fn descriptors_fill_two_words_and_strangers_none() {
        let mut records = slots(0x4000, 510);
        records.push(record(0x4ff0, R_X86_64_TLSDESC));
        assert_eq!(find(&records, 0x3fe8, 0x3000..0x4000), Some((0x4000..0x5000, 0x4000..0x5000)));
        records.pop();
        records.push(record(0x4ff0, 1));
        assert_eq!(find(&records, 0x3fe8, 0x3000..0x4000), Some((0x4000..0x5000, 0x5000..0x5000)));
    }

    #[test]
    fn addresses_at_the_end_of_the_address_space_are_survived() {
        assert_eq!(find(&[record(u64::MAX, R_X86_64_JUMP_SLOT)], 0, 0..0), None);
        assert_eq!(find(&[record(u64::MAX - 8, R_X86_64_JUMP_SLOT)], u64::MAX, 0..0), None);
    }
}

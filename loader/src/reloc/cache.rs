//! Remembers the outcome of lookups in one scope, so that a name is looked up once per transaction and not once per relocation.

use crate::elf::symbols::HashedName;
use crate::elf::version::Wanted;
use crate::lookup::{Class, Definition};
use alloc::vec;
use alloc::vec::Vec;

/// One remembered outcome.
#[derive(Clone, Copy)]
struct Entry {
    name: &'static [u8],
    gnu: u32,
    /// Hash of the version; 0 for none.
    version: u32,
    class: Class,
    outcome: Option<Definition>,
}

/// A direct-mapped table: an entry is overwritten by the next one that falls on its place.
pub struct LookupCache {
    entries: Vec<Option<Entry>>,
}

impl LookupCache {
    /// A table for about `expected` names.
    pub fn new(expected: usize) -> LookupCache {
        LookupCache { entries: vec![None; expected.next_power_of_two().clamp(64, 1 << 15)] }
    }

    fn place(&self, name: &HashedName<'_>, version: u32, class: Class) -> usize {
        let spread = (name.gnu ^ version.rotate_left(7) ^ class as u32).wrapping_mul(0x9e37_79b1);
        (spread >> 8) as usize & (self.entries.len() - 1)
    }

    /// What is remembered for this question.
    pub fn get(&self, name: &HashedName<'_>, version: Option<Wanted<'_>>, class: Class) -> Option<Option<Definition>> {
        let hash = version.map_or(0, |v| v.version.hash);
        let entry = self.entries[self.place(name, hash, class)].as_ref()?;
        let same = entry.gnu == name.gnu && entry.version == hash && entry.class == class && entry.name == name.name;
        same.then_some(entry.outcome)
    }

    /// Remembers an outcome.
    pub fn put(
        &mut self,
        name: &HashedName<'static>,
        version: Option<Wanted<'_>>,
        class: Class,
        outcome: Option<Definition>,
    ) {
        let version = version.map_or(0, |v| v.version.hash);
        let place = self.place(name, version, class);
        self.entries[place] = Some(Entry { name: name.name, gnu: name.gnu, version, class, outcome });
    }
}

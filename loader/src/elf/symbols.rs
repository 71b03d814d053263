//! The dynamic symbol table of one object and its hash tables.
//!
//! gABI "Symbol Table" and "Hash Table"; the GNU hash table is described with the GNU linker. All bounds are checked when a
//! table is parsed, or where a chain is walked, so that a damaged file costs a failed lookup and never a stray read.

use crate::addr::VAddr;
use crate::elf::dynamic::Dynamic;
use crate::elf::view::{u32_at, View};
use crate::error::Reason;
pub use goblin::elf64::sym::Sym;

/// The dynamic symbols of an object.
#[derive(Clone, Copy, Default)]
pub struct Symbols<'a> {
    /// `DT_SYMTAB`, up to the end of its segment: the real number of symbols is not written anywhere.
    table: &'a [Sym],
    /// `DT_STRTAB`; ends in a NUL byte, or is empty.
    strings: &'a [u8],
    /// `DT_VERSYM`, empty if the object has no versions.
    versym: &'a [u16],
    hash: Hash<'a>,
}

/// The hash table in use: the GNU one where there is one, as in glibc.
#[derive(Clone, Copy, Default)]
enum Hash<'a> {
    #[default]
    None,
    Gnu(GnuHash<'a>),
    Sysv {
        buckets: &'a [u32],
        chain: &'a [u32],
    },
}

/// The Bloom filter of a GNU hash table: tells at the cost of one word of memory that most names are not in it.
#[derive(Clone, Copy)]
pub struct BloomFilter<'a> {
    /// As many words as a power of two.
    words: &'a [u64],
    shift: u32,
}

impl BloomFilter<'_> {
    /// A filter that lets every name pass, for objects without one.
    pub const OPEN: BloomFilter<'static> = BloomFilter { words: &[u64::MAX], shift: 0 };

    /// Whether the table may hold a name with this hash.
    #[inline]
    pub fn may_hold(&self, hash: u32) -> bool {
        match self.words.get((hash as usize / 64) & (self.words.len().wrapping_sub(1))) {
            Some(word) => (word >> (hash % 64)) & (word >> ((hash >> self.shift) % 64)) & 1 != 0,
            None => false,
        }
    }
}

#[derive(Clone, Copy)]
struct GnuHash<'a> {
    filter: BloomFilter<'a>,
    buckets: &'a [u32],
    /// Index of the first hashed symbol.
    symbol_base: u32,
    chain: &'a [u32],
}

/// Both hashes of a name; the System V one is computed only when some object needs it.
#[derive(Clone, Copy)]
pub struct HashedName<'a> {
    /// The name, without NUL.
    pub name: &'a [u8],
    /// Its GNU hash.
    pub gnu: u32,
}

impl<'a> HashedName<'a> {
    /// The NUL-terminated name at the start of `bytes`, hashed while its end is looked for.
    #[inline]
    pub fn up_to_nul(bytes: &'a [u8]) -> Option<HashedName<'a>> {
        let mut gnu = super::hash::GNU_START;
        for (len, &c) in bytes.iter().enumerate() {
            if c == 0 {
                return Some(HashedName { name: &bytes[..len], gnu });
            }
            gnu = super::hash::gnu_step(gnu, c);
        }
        None
    }

    /// Hashes `name`.
    pub fn new(name: &'a [u8]) -> HashedName<'a> {
        HashedName { name, gnu: super::hash::gnu(name) }
    }
}

/// Views `bytes` as a slice of as many `T` as fit; `None` when they are not aligned for it.
fn table_of<T: plain::Plain>(bytes: &[u8]) -> Option<&[T]> {
    let count = bytes.len() / core::mem::size_of::<T>();
    plain::slice_from_bytes_len(bytes, count).ok()
}

impl<'a> Symbols<'a> {
    /// Finds the tables that the dynamic section names.
    pub fn parse(view: &View<'a>, dynamic: &Dynamic) -> Result<Symbols<'a>, Reason> {
        let bad = |what, at: VAddr| Reason::Malformed { what, at: at.0 };
        let strings = match dynamic.strings {
            None => &[][..],
            Some(t) => view.bytes(t.at, t.size).ok_or(bad("string table outside the object", t.at))?,
        };
        if strings.last().is_some_and(|&b| b != 0) {
            return Err(Reason::Fault("string table without a terminating NUL"));
        }
        let table = match dynamic.symbols {
            None => &[][..],
            Some(at) => view.tail(at).and_then(table_of).ok_or(bad("symbol table outside the object", at))?,
        };
        // Indexes of versions mean nothing where no version has one.
        let has_versions = dynamic.verdef.is_some() || dynamic.verneed.is_some();
        let versym = match dynamic.versym.filter(|_| has_versions) {
            None => &[][..],
            Some(at) => view.tail(at).and_then(table_of).ok_or(bad("version table outside the object", at))?,
        };
        let hash = match (dynamic.gnu_hash, dynamic.sysv_hash) {
            (Some(at), _) => Hash::Gnu(
                view.tail(at)
                    .and_then(GnuHash::parse)
                    .ok_or(bad("GNU hash table outside the object or malformed", at))?,
            ),
            (None, Some(at)) => {
                view.tail(at).and_then(parse_sysv).ok_or(bad("hash table outside the object or malformed", at))?
            }
            (None, None) => Hash::None,
        };
        Ok(Symbols { table, strings, versym, hash })
    }

    /// The symbol with an index.
    pub fn get(&self, index: u32) -> Option<&'a Sym> {
        self.table.get(index as usize)
    }

    /// The string at an offset of `DT_STRTAB`, without its NUL.
    pub fn string(&self, offset: u64) -> Option<&'a [u8]> {
        let rest = self.strings.get(usize::try_from(offset).ok()?..)?;
        rest.get(..memchr_nul(rest)?)
    }

    /// The name of a symbol with its hash; empty if it has none or a bad one.
    #[inline]
    pub fn hashed_name(&self, symbol: &Sym) -> HashedName<'a> {
        let rest = self.strings.get(symbol.st_name as usize..).unwrap_or(&[]);
        HashedName::up_to_nul(rest).unwrap_or(HashedName { name: &[], gnu: super::hash::GNU_START })
    }

    /// The filter that says which names are not worth looking for.
    pub fn filter(&self) -> BloomFilter<'a> {
        match &self.hash {
            Hash::Gnu(table) => table.filter,
            Hash::None | Hash::Sysv { .. } => BloomFilter::OPEN,
        }
    }

    /// The name of a symbol; empty if it has none or a bad one.
    pub fn name(&self, symbol: &Sym) -> &'a [u8] {
        self.string(u64::from(symbol.st_name)).unwrap_or(&[])
    }

    /// The `DT_VERSYM` entry of a symbol; `None` if the object has no versions.
    pub fn version_index(&self, index: u32) -> Option<u16> {
        self.versym.get(index as usize).copied()
    }

    /// Calls `accept` for each symbol of that name, in hash chain order, until it answers something.
    #[inline]
    pub fn find<T>(&self, name: HashedName<'_>, mut accept: impl FnMut(u32, &'a Sym) -> Option<T>) -> Option<T> {
        let mut check = |index: u32| -> Option<T> {
            let symbol = self.table.get(index as usize)?;
            if self.has_name(symbol, name.name) {
                accept(index, symbol)
            } else {
                None
            }
        };
        match &self.hash {
            Hash::None => None,
            Hash::Gnu(table) => table.walk(name.gnu, check),
            Hash::Sysv { buckets, chain } => {
                let mut index = buckets[super::hash::sysv(name.name) as usize % buckets.len()];
                // A cyclic chain is not longer than the table.
                for _ in 0..chain.len() {
                    if index == 0 {
                        return None;
                    }
                    if let Some(found) = check(index) {
                        return Some(found);
                    }
                    index = *chain.get(index as usize)?;
                }
                None
            }
        }
    }

    #[inline]
    fn has_name(&self, symbol: &Sym, name: &[u8]) -> bool {
        let Some(rest) = self.strings.get(symbol.st_name as usize..) else {
            return false;
        };
        rest.get(name.len()) == Some(&0) && rest[..name.len()] == *name
    }

    /// How many symbols the table holds, as far as the hash table tells: for walks over all of them (`dladdr`).
    pub fn count(&self) -> u32 {
        let hashed = match &self.hash {
            Hash::None => 0,
            Hash::Gnu(table) => table.end(),
            Hash::Sysv { chain, .. } => chain.len() as u32,
        };
        hashed.min(self.table.len() as u32)
    }

    /// Whether names are found by `DT_GNU_HASH`.
    pub fn has_gnu_hash(&self) -> bool {
        matches!(self.hash, Hash::Gnu(_))
    }

    /// The position of a symbol that came from this table.
    pub fn index_of(&self, symbol: &Sym) -> Option<u32> {
        let offset = (core::ptr::from_ref(symbol) as usize).checked_sub(self.table.as_ptr() as usize)?;
        u32::try_from(offset / core::mem::size_of::<Sym>()).ok()
    }
}

/// Position of the first NUL.
fn memchr_nul(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&b| b == 0)
}

impl<'a> GnuHash<'a> {
    fn parse(bytes: &'a [u8]) -> Option<GnuHash<'a>> {
        let (nbuckets, symbol_base) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?);
        let (bloom_words, bloom_shift) = (u32_at(bytes, 8)? as usize, u32_at(bytes, 12)?);
        if !bloom_words.is_power_of_two() || bloom_shift > 31 {
            return None;
        }
        let rest = bytes.get(16..)?;
        let bloom: &[u64] = table_of(rest.get(..bloom_words.checked_mul(8)?)?)?;
        let rest = rest.get(bloom_words * 8..)?;
        let buckets: &[u32] = table_of(rest.get(..(nbuckets as usize).checked_mul(4)?)?)?;
        let chain: &[u32] = table_of(rest.get(nbuckets as usize * 4..)?)?;
        Some(GnuHash { filter: BloomFilter { words: bloom, shift: bloom_shift }, buckets, symbol_base, chain })
    }

    #[inline]
    fn walk<T>(&self, hash: u32, mut check: impl FnMut(u32) -> Option<T>) -> Option<T> {
        if self.buckets.is_empty() || !self.filter.may_hold(hash) {
            return None;
        }
        let mut index = *self.buckets.get(hash as usize % self.buckets.len())?;
        if index == 0 {
            return None;
        }
        // The chain ends at the last bit, or at the end of the segment in a damaged file.
        loop {
            let link = *self.chain.get(index.checked_sub(self.symbol_base)? as usize)?;
            if (link ^ hash) >> 1 == 0 {
                if let Some(found) = check(index) {
                    return Some(found);
                }
            }
            if link & 1 != 0 {
                return None;
            }
            index = index.checked_add(1)?;
        }
    }

    /// One past the index of the last hashed symbol.
    fn end(&self) -> u32 {
        let Some(&last) = self.buckets.iter().max() else {
            return self.symbol_base;
        };
        let mut index = last;
        while let Some(link) = index.checked_sub(self.symbol_base).and_then(|i| self.chain.get(i as usize)) {
            index += 1;
            if link & 1 != 0 {
                break;
            }
        }
        index.max(self.symbol_base)
    }
}

fn parse_sysv(bytes: &[u8]) -> Option<Hash<'_>> {
    let (nbuckets, nchain) = (u32_at(bytes, 0)? as usize, u32_at(bytes, 4)? as usize);
    if nbuckets == 0 {
        return None;
    }
    let rest = bytes.get(8..)?;
    let buckets: &[u32] = table_of(rest.get(..nbuckets.checked_mul(4)?)?)?;
    let chain: &[u32] = table_of(rest.get(nbuckets * 4..)?.get(..nchain.checked_mul(4)?)?)?;
    Some(Hash::Sysv { buckets, chain })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::view::View;
    use alloc::vec::Vec;

    /// libc.so.6 laid out by its program headers, as an image would be.
    fn libc() -> (Vec<u8>, goblin::elf::Elf<'static>) {
        let path = "/lib/x86_64-linux-gnu/libc.so.6";
        let bytes = std::fs::read(path).expect("a glibc system");
        let leaked: &'static [u8] = Vec::leak(bytes.clone());
        let elf = goblin::elf::Elf::parse(leaked).expect("parses");
        let end = elf.program_headers.iter().map(|p| p.p_vaddr + p.p_memsz).max().unwrap_or(0) as usize;
        let mut image = alloc::vec![0; end];
        for p in elf.program_headers.iter().filter(|p| p.p_type == 1) {
            let (from, to, n) = (p.p_offset as usize, p.p_vaddr as usize, p.p_filesz as usize);
            image[to..to + n].copy_from_slice(&bytes[from..from + n]);
        }
        (image, elf)
    }

    #[test]
    fn every_symbol_of_libc_is_found_by_its_name() {
        let (image, elf) = libc();
        let at = elf.program_headers.iter().find(|p| p.p_type == 2).expect("PT_DYNAMIC");
        let mut view = View::new();
        view.push(VAddr(0), &image);
        let bytes = view.bytes(VAddr(at.p_vaddr), at.p_memsz).expect("in range");
        let dynamic = crate::elf::dynamic::parse(bytes, VAddr(at.p_vaddr)).expect("parses");
        let symbols = Symbols::parse(&view, &dynamic).expect("parses");
        assert_eq!(symbols.count() as usize, elf.dynsyms.len());
        for (index, sym) in elf.dynsyms.iter().enumerate().filter(|(_, s)| s.st_shndx != 0) {
            let name = elf.dynstrtab.get_at(sym.st_name).expect("a name");
            let hashed = HashedName::new(name.as_bytes());
            let found = symbols.find(hashed, |i, _| (i as usize == index).then_some(()));
            assert!(found.is_some(), "{name} not found");
        }
        assert!(symbols.find(HashedName::new(b"no such symbol"), |_, _| Some(())).is_none());
    }

    proptest::proptest! {
        #[test]
        fn damaged_tables_never_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
            gnu in 0u64..64, strings in 0u64..64, size in 0u64..300
        ) {
            let mut view = View::new();
            view.push(VAddr(0), &bytes);
            let dynamic = Dynamic {
                gnu_hash: Some(VAddr(gnu)),
                symbols: Some(VAddr(8)),
                strings: Some(crate::elf::dynamic::Table { at: VAddr(strings), size }),
                ..Dynamic::default()
            };
            if let Ok(symbols) = Symbols::parse(&view, &dynamic) {
                symbols.count();
                symbols.find(HashedName::new(b"x"), |_, _| Some(()));
            }
            let sysv = Dynamic { gnu_hash: None, sysv_hash: Some(VAddr(gnu)), ..dynamic };
            if let Ok(symbols) = Symbols::parse(&view, &sysv) {
                symbols.find(HashedName::new(b"x"), |_, _| Some(()));
            }
        }
    }
}

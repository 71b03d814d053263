//! `/etc/ld.so.cache`: from a soname to the path that ldconfig found for it.
//!
//! Three layouts exist: the current one (magic `glibc-ld.so.cache1.1`), the one of libc5 (magic `ld.so-1.7.0`), and the
//! current one behind the old one in the same file. The file is a table of entries sorted for a binary search, strings,
//! and an extension directory that names the glibc-hwcaps subdirectories.
//!
//! Nothing in the file is trusted: every offset is checked, and a string runs to its NUL or to the end of the file.
//! Results are those of glibc 2.36, also on caches that ldconfig would not write.
#![deny(unsafe_code)]

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::hwcaps::Hwcaps;
use crate::elf::view::u32_at;

const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const NEW_HEADER: usize = 48;
const OLD_HEADER: usize = 16;
const NEW_ENTRY: usize = 24;
const OLD_ENTRY: usize = 12;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const EXTENSION_SECTION: usize = 16;
const TAG_GLIBC_HWCAPS: u32 = 1;

/// `FLAG_X8664_LIB64 | FLAG_ELF_LIBC6`: a library for x86-64 programs. Entries of other kinds are not for us.
const FLAG_NATIVE: u32 = 0x0303;

/// Why a cache file cannot be used. Callers go on as if there were no cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheError {
    /// Neither magic is at the start.
    BadMagic,
    /// The table does not fit into the file.
    Truncated,
    /// Written for a machine of the other byte order.
    WrongEndian,
}

impl core::fmt::Display for CacheError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            CacheError::BadMagic => "not an ld.so.cache",
            CacheError::Truncated => "truncated ld.so.cache",
            CacheError::WrongEndian => "ld.so.cache of the other byte order",
        })
    }
}

/// One row of the table, as [`Cache::entries`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The soname.
    pub name: &'a [u8],
    /// The file to open.
    pub path: &'a [u8],
    /// Library type and architecture (`FLAG_*` of ldconfig); 0x0303 for x86-64.
    pub flags: u32,
    /// The least kernel version, `major << 16 | minor << 8 | patch`, or 0.
    pub os_version: u32,
    /// Hardware capabilities: legacy bits, or the index of a glibc-hwcaps name.
    pub hwcap: u64,
}

/// A cache file whose header has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Cache<'a> {
    file: &'a [u8],
    table: Table<'a>,
}

/// The sorted table and the strings its offsets point to.
#[derive(Debug, Clone, Copy)]
struct Table<'a> {
    entries: &'a [u8],
    entry_size: usize,
    count: usize,
    strings: &'a [u8],
    extension_offset: u32,
}

impl<'a> Cache<'a> {
    /// Checks the headers of `file`, the whole content of `/etc/ld.so.cache`.
    ///
    /// # Errors
    /// A file that glibc would ignore as a whole gives the reason.
    pub fn parse(file: &'a [u8]) -> Result<Self, CacheError> {
        let table = if file.starts_with(NEW_MAGIC) {
            new_table(file)?
        } else if file.starts_with(OLD_MAGIC) {
            old_table(file)?
        } else {
            return Err(CacheError::BadMagic);
        };
        Ok(Cache { file, table })
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.count
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.count == 0
    }

    /// All entries whose strings lie inside the file, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + '_ {
        (0..self.table.count).filter_map(|index| {
            let row = self.table.row(index)?;
            Some(Entry {
                name: self.table.string(row.key)?,
                path: self.table.string(row.value)?,
                flags: row.flags,
                os_version: row.os_version,
                hwcap: row.hwcap,
            })
        })
    }

    /// The glibc-hwcaps names of the extension section, in the order their indices count. A name whose offset lies outside
    /// the file is `None`; a missing or malformed extension gives no names.
    pub fn hwcaps_names(&self) -> impl Iterator<Item = Option<&'a [u8]>> + '_ {
        let section = hwcaps_section(self.file, self.table.extension_offset).unwrap_or_default();
        let file = self.file;
        section.chunks_exact(4).map(move |word| string_at(file, u32_at(word, 0)?))
    }

    /// Priorities of the names of the extension section on a machine, to be computed once and given to [`Cache::lookup`].
    #[must_use]
    pub fn ranking(&self, hwcaps: &Hwcaps<'_>) -> Ranking {
        Ranking { by_index: self.hwcaps_names().map(|name| hwcaps.priority(name?)).collect() }
    }

    /// The path for `soname`, chosen as glibc 2.36 chooses: the best glibc-hwcaps entry this machine can use, else the
    /// first entry whose legacy capabilities it has.
    #[must_use]
    pub fn lookup(&self, soname: &[u8], hwcaps: &Hwcaps<'_>, ranking: &Ranking) -> Option<&'a [u8]> {
        let (found, end) = self.table.find(soname)?;
        let first = self.table.first_of_run(soname, found);
        let mut best = None;
        let mut best_priority = u32::MAX;
        for index in first..end {
            let row = self.table.row(index)?;
            if index > found && !self.table.has_name(&row, soname) {
                break;
            }
            let Some(path) = self.table.string(row.value).filter(|_| row.flags == FLAG_NATIVE) else {
                continue;
            };
            match row.required_capability() {
                Capability::Named { index, isa_level } => {
                    if !hwcaps.has_isa_level(isa_level) || !hwcaps.has_os_version(row.os_version) {
                        continue;
                    }
                    let Some(priority) = ranking.of(index) else { continue };
                    if best.is_none() || priority < best_priority {
                        best = Some(path);
                        best_priority = priority;
                    }
                }
                Capability::Legacy(bits) => {
                    if self.table.has_capabilities() {
                        if best.is_some() {
                            break;
                        }
                        if !hwcaps.has_legacy(bits) || !hwcaps.has_os_version(row.os_version) {
                            continue;
                        }
                    }
                    best = Some(path);
                    break;
                }
            }
        }
        best
    }
}

/// The priority on one machine of each glibc-hwcaps name of one cache. Made by [`Cache::ranking`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranking {
    by_index: Vec<Option<u32>>,
}

impl Ranking {
    fn of(&self, index: u32) -> Option<u32> {
        *self.by_index.get(usize::try_from(index).ok()?)?
    }
}

/// An entry of the table with its offsets not yet followed.
struct Row {
    flags: u32,
    key: u32,
    value: u32,
    os_version: u32,
    hwcap: u64,
}

/// What an entry asks of the machine.
enum Capability {
    Named { index: u32, isa_level: u32 },
    Legacy(u64),
}

impl Row {
    /// Bit 62 alone, but for the ten ISA level bits from 32 on, marks a glibc-hwcaps index in the low 32 bits.
    fn required_capability(&self) -> Capability {
        const ISA_LEVEL_MASK: u32 = 0x3ff;
        let high = (self.hwcap >> 32) as u32;
        if high & !ISA_LEVEL_MASK == 1 << 30 {
            Capability::Named { index: self.hwcap as u32, isa_level: high & ISA_LEVEL_MASK }
        } else {
            Capability::Legacy(self.hwcap)
        }
    }
}

impl<'a> Table<'a> {
    /// Entries of the libc5 layout carry no capabilities.
    fn has_capabilities(&self) -> bool {
        self.entry_size == NEW_ENTRY
    }

    fn row(&self, index: usize) -> Option<Row> {
        let start = index.checked_mul(self.entry_size)?;
        let entry = self.entries.get(start..start.checked_add(self.entry_size)?)?;
        let (os_version, hwcap) = if self.has_capabilities() {
            (u32_at(entry, 12)?, u64::from(u32_at(entry, 16)?) | u64::from(u32_at(entry, 20)?) << 32)
        } else {
            (0, 0)
        };
        Some(Row { flags: u32_at(entry, 0)?, key: u32_at(entry, 4)?, value: u32_at(entry, 8)?, os_version, hwcap })
    }

    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        string_at(self.strings, offset)
    }

    fn has_name(&self, row: &Row, name: &[u8]) -> bool {
        self.string(row.key).is_some_and(|key| compare_names(name, key) == Ordering::Equal)
    }

    /// An entry of that name, and the bound below which all others are. The table is sorted downwards.
    fn find(&self, name: &[u8]) -> Option<(usize, usize)> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            // glibc's inclusive bounds meet one entry lower in a table of even length; on a table with a broken order the
            // probes must be the same ones.
            let middle = low + (high - 1 - low) / 2;
            let key = self.string(self.row(middle)?.key)?;
            match compare_names(name, key) {
                Ordering::Equal => return Some((middle, high)),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn first_of_run(&self, name: &[u8], found: usize) -> usize {
        let before = (0..found).rev();
        let same = before.take_while(|&index| self.row(index).is_some_and(|row| self.has_name(&row, name)));
        same.last().unwrap_or(found)
    }
}

/// The current layout, starting at the start of `strings`, to whose start its string offsets refer.
fn new_table(strings: &[u8]) -> Result<Table<'_>, CacheError> {
    if strings.len() < NEW_HEADER {
        return Err(CacheError::Truncated);
    }
    let word = |offset| u32_at(strings, offset).ok_or(CacheError::Truncated);
    let count = usize::try_from(word(20)?).map_err(|_| CacheError::Truncated)?;
    let endian = strings.get(28).copied().ok_or(CacheError::Truncated)?;
    const LITTLE: u8 = 2;
    if endian != 0 && endian & 3 != LITTLE {
        return Err(CacheError::WrongEndian);
    }
    let entries = table_bytes(strings, NEW_HEADER, NEW_ENTRY, count)?;
    Ok(Table { entries, entry_size: NEW_ENTRY, count, strings, extension_offset: word(32)? })
}

/// The libc5 layout, or the current one that follows it at the next multiple of eight.
fn old_table(file: &[u8]) -> Result<Table<'_>, CacheError> {
    let count = u32_at(file, 12).and_then(|n| usize::try_from(n).ok()).ok_or(CacheError::Truncated)?;
    let entries = table_bytes(file, OLD_HEADER, OLD_ENTRY, count)?;
    let end = OLD_HEADER + entries.len();
    let embedded = file.get(end.next_multiple_of(8)..).unwrap_or_default();
    if embedded.len() >= NEW_HEADER && embedded.starts_with(NEW_MAGIC) {
        return new_table(embedded);
    }
    let strings = file.get(end..).unwrap_or_default();
    Ok(Table { entries, entry_size: OLD_ENTRY, count, strings, extension_offset: 0 })
}

fn table_bytes(bytes: &[u8], start: usize, entry_size: usize, count: usize) -> Result<&[u8], CacheError> {
    let size = count.checked_mul(entry_size).ok_or(CacheError::Truncated)?;
    let end = start.checked_add(size).ok_or(CacheError::Truncated)?;
    bytes.get(start..end).ok_or(CacheError::Truncated)
}

/// The section of glibc-hwcaps name offsets. One malformed row makes glibc ignore the whole directory.
fn hwcaps_section(file: &[u8], offset: u32) -> Option<&[u8]> {
    if offset == 0 || !offset.is_multiple_of(4) {
        return None;
    }
    let directory = file.get(usize::try_from(offset).ok()?..)?;
    if u32_at(directory, 0)? != EXTENSION_MAGIC {
        return None;
    }
    let count = usize::try_from(u32_at(directory, 4)?).ok()?;
    let rows = directory.get(8..)?.get(..count.checked_mul(EXTENSION_SECTION)?)?;
    let mut found = None;
    for row in rows.chunks_exact(EXTENSION_SECTION) {
        let start = usize::try_from(u32_at(row, 8)?).ok()?;
        let size = usize::try_from(u32_at(row, 12)?).ok()?;
        let section = file.get(start..start.checked_add(size)?)?;
        if u32_at(row, 0)? == TAG_GLIBC_HWCAPS {
            found = (start.is_multiple_of(4) && size.is_multiple_of(4)).then_some(section);
        }
    }
    found
}

fn string_at(bytes: &[u8], offset: u32) -> Option<&[u8]> {
    let tail = bytes.get(usize::try_from(offset).ok()?..).filter(|tail| !tail.is_empty())?;
    tail.split(|&byte| byte == 0).next()
}

/// The order of the table: bytes compared as signed chars, runs of digits as numbers (of 32 bits, wrapping), a digit above
/// everything else, including the end of the string.
#[must_use]
pub fn compare_names(left: &[u8], right: &[u8]) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let Some((&a, rest_of_left)) = left.split_first() else {
            return 0i8.cmp(&right.first().map_or(0, |&b| b as i8));
        };
        let b = right.first().copied().unwrap_or(0);
        match (a.is_ascii_digit(), b.is_ascii_digit()) {
            (true, true) => {
                let (x, after_x) = leading_number(left);
                let (y, after_y) = leading_number(right);
                if x != y {
                    // The sign of the wrapped difference, as the writer of the table computed it.
                    return x.wrapping_sub(y).cmp(&0);
                }
                (left, right) = (after_x, after_y);
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if a != b => return (a as i8).cmp(&(b as i8)),
            (false, false) => (left, right) = (rest_of_left, right.get(1..).unwrap_or_default()),
        }
    }
}

fn leading_number(bytes: &[u8]) -> (i32, &[u8]) {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = bytes.split_at(digits);
    (number.iter().fold(0i32, |n, &digit| n.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'))), rest)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;

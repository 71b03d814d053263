//! What the program of `fixtures/sealing` prints about its own mappings, as a value.

use super::maps::Region;
use std::ops::Range;

/// The attacks, in the order of a line.
pub const ATTACKS: [&str; 6] =
    ["mprotect other", "mprotect same", "munmap", "mremap", "mmap MAP_FIXED", "madvise MADV_DONTNEED"];

/// Index of MADV_DONTNEED in [`ATTACKS`]: the kernel refuses it on sealed anonymous memory that can't be written, and there only.
pub const DISCARD: usize = 5;

/// A mapping and what came of attacking it.
#[derive(Debug, Clone)]
pub struct Attacked {
    /// The mapping.
    pub region: Region,
    /// `ok`, the name of an error, or `fatal`, in the order of [`ATTACKS`].
    pub outcomes: [String; 6],
}

impl Attacked {
    /// Every attack that a seal stops was stopped, and smaps says so.
    pub fn sealed(&self) -> bool {
        self.region.sealed && self.outcomes[..DISCARD].iter().all(|outcome| outcome == "EPERM")
    }

    /// No attack met a seal, and smaps shows none.
    pub fn open(&self) -> bool {
        !self.region.sealed && self.outcomes.iter().all(|outcome| outcome != "EPERM")
    }

    /// For messages.
    pub fn told(&self) -> String {
        let Region { start, end, permissions, name, sealed, .. } = &self.region;
        let outcomes: Vec<String> = ATTACKS.iter().zip(&self.outcomes).map(|(a, o)| format!("{a}: {o}")).collect();
        let flag = if *sealed { "sl" } else { "--" };
        format!("{start:x}-{end:x} {permissions} {flag} {name} ({})", outcomes.join(", "))
    }
}

/// A program header that dl_iterate_phdr(3) told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The object's name; `main` for the program.
    pub object: String,
    /// PT_GNU_RELRO, else PT_LOAD.
    pub relro: bool,
    /// Addresses, not rounded.
    pub range: Range<u64>,
    /// PF_W is set.
    pub writable: bool,
}

/// Everything printed.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// In the order of loading.
    pub segments: Vec<Segment>,
    /// Where something of a known kind lies.
    pub addresses: Vec<(String, u64)>,
    /// In ascending order.
    pub regions: Vec<Attacked>,
}

const PAGE: u64 = 4096;

fn down(address: u64) -> u64 {
    address / PAGE * PAGE
}

fn up(address: u64) -> u64 {
    address.div_ceil(PAGE) * PAGE
}

impl Table {
    /// Reads the output of the program.
    ///
    /// # Errors
    /// The line that is of no known form.
    pub fn parse(output: &str) -> Result<Table, String> {
        let mut table = Table::default();
        for line in output.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let known = match fields.as_slice() {
                ["segment", rest @ ..] => segment(rest).map(|s| table.segments.push(s)),
                ["address", what, address] => u64::from_str_radix(address, 16)
                    .ok()
                    .map(|address| table.addresses.push((what.to_string(), address))),
                ["region", rest @ ..] => attacked(rest).map(|a| table.regions.push(a)),
                ["constructor", _] => Some(()),
                _ => None,
            };
            known.ok_or_else(|| format!("an unknown line: {line}"))?;
        }
        Ok(table)
    }

    /// The names of all objects, in the order of loading.
    pub fn objects(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.segments.iter().map(|s| s.object.as_str()).collect();
        names.dedup();
        names
    }

    /// From the first to the last page of an object.
    pub fn image(&self, object: &str) -> Range<u64> {
        let loads = || self.segments.iter().filter(|s| s.object == object && !s.relro);
        let start = loads().map(|s| down(s.range.start)).min().unwrap_or(0);
        start..loads().map(|s| up(s.range.end)).max().unwrap_or(0)
    }

    /// The pages of an object that are read-only after relocation. Both ends are rounded down, as ld.so does.
    pub fn relro(&self, object: &str) -> Range<u64> {
        let relro = self.segments.iter().find(|s| s.object == object && s.relro);
        relro.map_or(0..0, |s| down(s.range.start)..down(s.range.end))
    }

    /// The pages of an object that stay writable.
    pub fn data(&self, object: &str) -> Vec<Range<u64>> {
        let relro = self.relro(object);
        let writable = self.segments.iter().filter(|s| s.object == object && !s.relro && s.writable);
        let pages = writable.map(|s| down(s.range.start)..up(s.range.end));
        pages
            .flat_map(|p| match relro.start < p.end && p.start < relro.end {
                true => vec![p.start..relro.start.max(p.start), relro.end.min(p.end)..p.end],
                false => vec![p],
            })
            .filter(|p| p.start < p.end)
            .collect()
    }

    /// The attacked mappings that have a page in `range`.
    pub fn within(&self, range: &Range<u64>) -> Vec<&Attacked> {
        self.regions.iter().filter(|a| a.region.start < range.end && range.start < a.region.end).collect()
    }

    /// The mapping of an address that the program told of.
    pub fn of(&self, what: &str) -> Option<&Attacked> {
        let address = self.addresses.iter().find(|(name, _)| name == what)?.1;
        self.regions.iter().find(|a| (a.region.start..a.region.end).contains(&address))
    }
}

fn segment(fields: &[&str]) -> Option<Segment> {
    let [object, kind, start, end, flags] = fields else { return None };
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(Segment {
        object: object.to_string(),
        relro: *kind == "relro",
        range: number(start)?..number(end)?,
        writable: number(flags)? & 2 != 0,
    })
}

fn attacked(fields: &[&str]) -> Option<Attacked> {
    let [start, end, permissions, sealed, outcomes @ .., name] = fields else { return None };
    let outcomes: [String; 6] = outcomes.iter().map(|o| o.to_string()).collect::<Vec<_>>().try_into().ok()?;
    let region = Region {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        permissions: permissions.to_string(),
        name: name.to_string(),
        anonymous: 0,
        sealed: *sealed == "1",
    };
    Some(Attacked { region, outcomes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_an_object_are_told_apart() {
        let output = "\
constructor\tneeded
segment\tmain\tload\t10000\t10ca0\t4
segment\tmain\tload\t13d7c\t20160\t6
segment\tmain\trelro\t13d7c\t15000\t4
address\tdata\t15040
region\t10000\t11000\tr--p\t1\tEPERM\tEPERM\tEPERM\tEPERM\tEPERM\tok\t/x/main
region\t15000\t21000\trw-p\t0\tok\tok\tok\tok\tok\tok\t
";
        let table = Table::parse(output).expect("of known form");
        assert_eq!(table.objects(), ["main"]);
        assert_eq!((table.image("main"), table.relro("main")), (0x10000..0x21000, 0x13000..0x15000));
        assert_eq!(table.data("main"), vec![table.relro("main").end..table.image("main").end]);
        assert!(table.regions[0].sealed() && table.regions[1].open());
        assert_eq!(table.of("data").map(|a| a.region.start), Some(0x15000));
        assert!(Table::parse("region\t1\n").is_err());
    }
}

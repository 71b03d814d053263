//! `/proc/PID/maps` and `/proc/PID/smaps` as values (proc_pid_maps(5), proc_pid_smaps(5)).

use std::fs;
use std::io;

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// `r-xp` and the like.
    pub permissions: String,
    /// Path, `[name]`, or nothing for anonymous memory.
    pub name: String,
    /// Bytes of memory that belong to no file: written to, or never in one; 0 if only `maps` was read. (`Private_Dirty` would count
    /// pages of a file that was written a moment ago, too.)
    pub anonymous: u64,
    /// `VmFlags` holds `sl`.
    pub sealed: bool,
}

impl Region {
    /// What is after the last `/` of the name.
    pub fn base_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// Stores are allowed.
    pub fn writable(&self) -> bool {
        self.permissions.as_bytes().get(1) == Some(&b'w')
    }
}

/// The mappings of a process as `smaps` tells them.
///
/// # Errors
/// The file can't be read, or a line of it has an unknown form.
pub fn of_process(pid: u32) -> io::Result<Vec<Region>> {
    parse(&fs::read_to_string(format!("/proc/{pid}/smaps"))?)
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/smaps has an unknown form")))
}

/// The mappings that a text in the form of `maps` or `smaps` lists.
pub fn parse(text: &str) -> Option<Vec<Region>> {
    let mut regions: Vec<Region> = Vec::new();
    for line in text.lines() {
        let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (first.strip_suffix(':'), regions.last_mut()) {
            (None, _) => regions.push(head(first, rest)?),
            (Some("Anonymous"), Some(region)) => {
                let kibibytes: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
                region.anonymous = kibibytes * 1024;
            }
            (Some("VmFlags"), Some(region)) => region.sealed = rest.split_whitespace().any(|flag| flag == "sl"),
            (Some(_), Some(_)) => {}
            (Some(_), None) => return None,
        }
    }
    Some(regions)
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE [NAME]`; the name may hold blanks.
fn head(range: &str, rest: &str) -> Option<Region> {
    let (start, end) = range.split_once('-')?;
    let mut fields = rest.splitn(5, ' ');
    let permissions = fields.next()?.to_string();
    let inode_and_name = fields.nth(2)?;
    let name = match fields.next() {
        Some(padded) => padded.trim_start(),
        None => inode_and_name.split_once(' ').map_or("", |(_, name)| name),
    };
    Some(Region {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        permissions,
        name: name.to_string(),
        anonymous: 0,
        sealed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_is_read() {
        let text = "\
55d0-55e0 r-xp 00001000 fe:00 1234                       /usr/bin/a b
Size:                 64 kB
Anonymous:         8 kB
VmFlags: rd ex mr mw me sl 
7f00-7f10 rw-p 00000000 00:00 0 
Anonymous:         0 kB
VmFlags: rd wr mr mw me ac 
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";
        let regions = parse(text).expect("of known form");
        let seen: Vec<_> =
            regions.iter().map(|r| (r.start, r.name.as_str(), r.anonymous, r.sealed, r.writable())).collect();
        let vsyscall = 0xffff_ffff_ff60_0000;
        let expected = [
            (0x55d0, "/usr/bin/a b", 8192, true, false),
            (0x7f00, "", 0, false, true),
            (vsyscall, "[vsyscall]", 0, false, false),
        ];
        assert_eq!(seen, expected);
        assert_eq!(regions[0].base_name(), "a b");
    }

    #[test]
    fn the_maps_of_this_process_are_read() {
        let regions = of_process(std::process::id()).expect("readable");
        assert!(regions.iter().any(|r| r.name == "[stack]" && r.anonymous > 0));
        let text = fs::read_to_string("/proc/self/maps").expect("readable");
        assert!(parse(&text).is_some_and(|r| !r.is_empty()));
    }
}

//! `/proc/PID/smaps`, as far as seals are concerned (proc_pid_smaps(5)).
//!
//! A pure function from the text to values. Lines that it does not know are skipped, so that it survives new kernels.

use std::fmt;
use std::ops::Range;

/// One mapping of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// Addresses, whole pages.
    pub range: Range<u64>,
    /// The four letters, e.g. `r-xp`.
    pub permissions: Permissions,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// Inode of the file, 0 without one.
    pub inode: u64,
    /// The path of the file, or a name in brackets; empty for anonymous memory. The kernel writes a newline as `\012`, which
    /// is undone here.
    pub name: String,
    /// Whether `VmFlags` has `sl`.
    pub sealed: bool,
}

/// What may be done with a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// `r`
    pub read: bool,
    /// `w`
    pub write: bool,
    /// `x`
    pub execute: bool,
    /// `s` instead of `p`: stores go to the file.
    pub shared: bool,
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |on, letter| if on { letter } else { '-' };
        let (read, write, execute) = (letter(self.read, 'r'), letter(self.write, 'w'), letter(self.execute, 'x'));
        write!(f, "{read}{write}{execute}{}", if self.shared { 's' } else { 'p' })
    }
}

/// A line that is not of the form the kernel writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a line of smaps: {:?}", self.0)
    }
}

/// Reads all mappings, in the order of the text: by address.
///
/// # Errors
/// The first line that is neither the head of a mapping nor an attribute of one.
pub fn parse(text: &str) -> Result<Vec<Mapping>, Malformed> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = head(line) {
            mappings.push(mapping);
            continue;
        }
        let malformed = || Malformed(line.to_owned());
        let (key, value) = line.split_once(':').ok_or_else(malformed)?;
        let mapping = mappings.last_mut().ok_or_else(malformed)?;
        if key == "VmFlags" {
            mapping.sealed = value.split_ascii_whitespace().any(|flag| flag == "sl");
        }
    }
    Ok(mappings)
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE  NAME`
fn head(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let range = hexadecimal(start)?..hexadecimal(end)?;
    let (permissions, rest) = rest.split_once(' ')?;
    let (offset, rest) = rest.split_once(' ')?;
    let (_device, rest) = rest.split_once(' ')?;
    let (inode, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let inode = inode.parse().ok()?;
    // The name is padded to a column of its own; only the padding may be cut, a file's name can begin or end in blanks.
    let name = name.trim_start_matches(' ').replace("\\012", "\n");
    let permissions = permissions_of(permissions)?;
    Some(Mapping { range, permissions, offset: hexadecimal(offset)?, inode, name, sealed: false })
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok())?
}

fn permissions_of(text: &str) -> Option<Permissions> {
    let &[read, write, execute, shared] = text.as_bytes() else { return None };
    let letter = |byte: u8, on: u8| (byte == on || byte == b'-').then_some(byte == on);
    let shared = matches!(shared, b's' | b'p').then_some(shared == b's')?;
    Some(Permissions {
        read: letter(read, b'r')?,
        write: letter(write, b'w')?,
        execute: letter(execute, b'x')?,
        shared,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = "\
55f0c0a3e000-55f0c0a40000 r--p 00000000 fe:00 1050421                    /usr/bin/my cat
Size:                  8 kB
Rss:                   8 kB
THPeligible:           0
ProtectionKey:         0
VmFlags: rd mr mw me sl 
7ffd1d3c9000-7ffd1d3ea000 rw-p 00000000 00:00 0                          [stack]
Size:                132 kB
VmFlags: rd wr mr mw me gd ac 
7ffd1d3f0000-7ffd1d3f1000 ---p 00000000 00:00 0 
Size:                  4 kB
VmFlags: mr mw me 
7ffd1d3f2000-7ffd1d3f3000 rw-s 00003000 00:01 2049                       /memfd:a\\012b (deleted)
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
VmFlags: ex 
";

    #[test]
    fn sample() {
        let mappings = parse(SAMPLE).expect("well-formed");
        let names: Vec<_> = mappings.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["/usr/bin/my cat", "[stack]", "", "/memfd:a\nb (deleted)", "[vsyscall]"]);
        assert_eq!(mappings.iter().map(|m| m.sealed).collect::<Vec<_>>(), [true, false, false, false, false]);
        let permissions: Vec<_> = mappings.iter().map(|m| m.permissions.to_string()).collect();
        assert_eq!(permissions, ["r--p", "rw-p", "---p", "rw-s", "--xp"]);
        assert_eq!(mappings[0].range, 0x55f0c0a3e000..0x55f0c0a40000);
        assert_eq!((mappings[3].offset, mappings[0].inode), (0x3000, 1050421));
    }

    #[test]
    fn flags_are_whole_words() {
        let text = "1000-2000 r--p 00000000 00:00 0 \nVmFlags: rd slx xsl \n";
        assert!(!parse(text).expect("well-formed")[0].sealed);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["x", "VmFlags: sl", "1000 r--p 0 00:00 0\n", "1000-2000 r--q 0 00:00 0", "+1-2 r--p 0 0:0 0"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn this_process() {
        let text = std::fs::read("/proc/self/smaps").expect("smaps");
        let mappings = parse(&String::from_utf8_lossy(&text)).expect("well-formed");
        assert!(mappings.iter().any(|m| m.permissions.execute && m.name.starts_with('/')));
        assert!(mappings.iter().all(|m| m.range.start < m.range.end));
        assert!(mappings.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[0-9a-f: \\-rwxps\nVmFlagssl/\\[\\]]{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read(
            start in 0u64..1 << 40, pages in 1u64..1 << 20, letters in prop::array::uniform4(any::<bool>()), offset in any::<u32>(),
            inode in any::<u32>(), name in "(/[ -~]{1,30})?", sealed in any::<bool>(), around in "( (rd|wr|mr|me)){0,4}",
        ) {
            let name = name.replace('\\', "/").trim_end().to_owned();
            let [read, write, execute, shared] = letters;
            let permissions = Permissions { read, write, execute, shared };
            let range = start * 4096..(start + pages) * 4096;
            let (from, to) = (range.start, range.end);
            let seal = if sealed { " sl" } else { "" };
            let text = format!(
                "{from:x}-{to:x} {permissions} {offset:08x} fe:00 {inode} {name:>40}\nSize: 4 kB\nVmFlags:{around}{seal}{around} \n"
            );
            let expected = Mapping { range, permissions, offset: offset.into(), inode: inode.into(), name, sealed };
            prop_assert_eq!(parse(&text), Ok(vec![expected]));
        }
    }
}

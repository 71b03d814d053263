//! Hardware capabilities: which subdirectories of a search directory suit this machine, and in which order.
//!
//! Two families exist. `glibc-hwcaps/NAME` holds builds for an ISA level of the psABI (`x86-64-v2` and up) or a name of the
//! user's choice (`--glibc-hwcaps-prepend`, ld.so(8)). The legacy one combines `tls`, the platform and the names of
//! AT_HWCAP bits; glibc dropped it with 2.37.
#![deny(unsafe_code)]

use alloc::vec::Vec;

/// Levels of the psABI with a subdirectory of their own, best first, and the bit of each in `X86_ISA_1_NEEDED`'s numbering.
pub const ISA_LEVELS: [(&[u8], u32); 3] = [(b"x86-64-v4", 1 << 3), (b"x86-64-v3", 1 << 2), (b"x86-64-v2", 1 << 1)];

/// Names of the bits of glibc's own hwcap word for x86 (not the kernel's AT_HWCAP), by bit number.
pub const LEGACY_NAMES: [&[u8]; 3] = [b"sse2", b"x86_64", b"avx512_1"];

/// Platforms in the order of their bits in a cache entry, from bit [`FIRST_PLATFORM`] on.
const PLATFORMS: [&[u8]; 4] = [b"i586", b"i686", b"haswell", b"xeon_phi"];
const FIRST_PLATFORM: u32 = 48;
const PLATFORM_MASK: u64 = 0xf << FIRST_PLATFORM;
/// The number of a platform's bit in a cache entry.
#[must_use]
pub fn platform_bit(name: &[u8]) -> Option<u32> {
    let index = PLATFORMS.iter().position(|&known| known == name)?;
    u32::try_from(index).ok()?.checked_add(FIRST_PLATFORM)
}

/// Set in cache entries of `tls` subdirectories.
const TLS_BIT: u64 = 1 << 63;

/// What the search order needs to know of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine<'a> {
    /// The psABI levels the CPU has, as the bits of `GNU_PROPERTY_X86_ISA_1_NEEDED`: baseline 1, v2 2, v3 4, v4 8.
    pub isa_1: u32,
    /// Of these, the levels that the user has disabled a feature of: their subdirectories are not searched, though objects that need
    /// them are loaded.
    pub disabled_levels: u32,
    /// glibc's `_dl_platform`: `haswell`, `xeon_phi`, or the kernel's AT_PLATFORM, `x86_64`.
    pub platform: Option<&'a [u8]>,
    /// glibc's `_dl_hwcap & hwcap_mask`: 2 is x86_64, 4 avx512_1.
    pub hwcap: u64,
    /// The kernel version, `major << 16 | minor << 8 | patch`; 0: not asked for, every entry suits.
    pub os_version: u32,
    /// Whether the legacy subdirectories exist (glibc up to 2.36).
    pub legacy_subdirectories: bool,
}

/// A machine's capabilities after `--glibc-hwcaps-prepend` and `--glibc-hwcaps-mask`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hwcaps<'a> {
    machine: Machine<'a>,
    names: Vec<&'a [u8]>,
    /// How many of the names are the user's.
    prepended: usize,
    /// Which of the levels `--glibc-hwcaps-mask` lets be searched.
    unmasked: [bool; 3],
}

/// A subdirectory of `glibc-hwcaps`, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// It is a level that the CPU has.
    pub supported: bool,
    /// It is searched.
    pub searched: bool,
    /// It is a level that `--glibc-hwcaps-mask` leaves out.
    pub masked: bool,
}

impl Machine<'_> {
    /// The levels whose subdirectories suit it.
    fn levels(&self) -> u32 {
        self.isa_1 & !self.disabled_levels
    }
}

impl<'a> Hwcaps<'a> {
    /// `prepend` and `mask` are colon-separated lists: names to search first, and those of the built-in names to keep.
    #[must_use]
    pub fn new(machine: Machine<'a>, prepend: Option<&'a [u8]>, mask: Option<&[u8]>) -> Self {
        let mut names: Vec<&[u8]> = list(prepend.unwrap_or_default()).collect();
        let prepended = names.len();
        let unmasked = ISA_LEVELS.map(|(name, _)| mask.is_none_or(|mask| list(mask).any(|unmasked| unmasked == name)));
        for ((name, bit), unmasked) in ISA_LEVELS.into_iter().zip(unmasked) {
            if machine.levels() & bit != 0 && unmasked {
                names.push(name);
            }
        }
        Hwcaps { machine, names, prepended, unmasked }
    }

    /// Every name below `glibc-hwcaps/` that could be searched, best first: those of the user's choice, then the levels.
    pub fn known_names(&self) -> impl Iterator<Item = Name<'a>> + '_ {
        let own = self.names.iter().take(self.prepended);
        let own = own.map(|&name| Name { name, supported: false, searched: true, masked: false });
        let levels = ISA_LEVELS.into_iter().zip(self.unmasked).map(|((name, bit), unmasked)| {
            let supported = self.machine.levels() & bit != 0;
            Name { name, supported, searched: supported && unmasked, masked: !unmasked }
        });
        own.chain(levels)
    }

    /// The names below `glibc-hwcaps/` that are searched, best first.
    #[must_use]
    pub fn names(&self) -> &[&'a [u8]] {
        &self.names
    }

    /// The priority of a glibc-hwcaps name: 1 is best, `None` is not searched.
    #[must_use]
    pub fn priority(&self, name: &[u8]) -> Option<u32> {
        let position = self.names.iter().position(|&known| known == name)?;
        u32::try_from(position).ok()?.checked_add(1)
    }

    /// The levels of the CPU, as the bits of `GNU_PROPERTY_X86_ISA_1_NEEDED`.
    #[must_use]
    pub fn isa_1(&self) -> u32 {
        self.machine.isa_1
    }

    /// Whether the CPU has the level a cache entry asks for: the number of a bit of [`Machine::isa_1`], 0 for any.
    #[must_use]
    pub fn has_isa_level(&self, level: u32) -> bool {
        // Every x86-64 CPU has the baseline, even where a caller leaves its bit out. A level beyond 31 wraps as in glibc.
        (self.machine.isa_1 | 1) & 1u32.wrapping_shl(level) != 0
    }

    /// Whether the machine has every legacy capability of a cache entry.
    #[must_use]
    pub fn has_legacy(&self, bits: u64) -> bool {
        let platform = self.machine.platform.and_then(|name| PLATFORMS.iter().position(|&known| known == name));
        let platform_bit = platform.map_or(0, |index| 1u64 << FIRST_PLATFORM << index);
        let wanted_platform = bits & PLATFORM_MASK;
        bits & !(self.machine.hwcap | PLATFORM_MASK | TLS_BIT) == 0
            && (wanted_platform == 0 || wanted_platform == platform_bit)
    }

    /// Whether the kernel is new enough for a cache entry.
    #[must_use]
    pub fn has_os_version(&self, version: u32) -> bool {
        self.machine.os_version == 0 || version <= self.machine.os_version
    }

    /// The components of the legacy subdirectories, most significant first: a subdirectory is any selection of them.
    #[must_use]
    pub fn legacy_components(&self) -> Vec<&'a [u8]> {
        if !self.machine.legacy_subdirectories {
            return Vec::new();
        }
        let mut components: Vec<&[u8]> = Vec::new();
        components.push(b"tls");
        components.extend(self.machine.platform);
        let known = LEGACY_NAMES.iter().enumerate().rev();
        components.extend(known.filter(|&(bit, _)| self.machine.hwcap >> bit & 1 != 0).map(|(_, &name)| name));
        components
    }
}

/// The elements of a colon-separated list, empty ones left out.
pub(crate) fn list(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b':').filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine<'static> = Machine {
        isa_1: 7,
        disabled_levels: 0,
        platform: Some(b"haswell"),
        hwcap: 6,
        os_version: 0x060c05,
        legacy_subdirectories: true,
    };

    #[test]
    fn what_the_user_disables_or_masks_is_told_apart() {
        let disabled = Machine { disabled_levels: 4, ..MACHINE };
        let hwcaps = Hwcaps::new(disabled, Some(b"own"), Some(b"x86-64-v4:x86-64-v3"));
        let known: Vec<_> = hwcaps.known_names().map(|n| (n.name, n.supported, n.searched, n.masked)).collect();
        let expected: [(&[u8], bool, bool, bool); 4] = [
            (b"own", false, true, false),
            (b"x86-64-v4", false, false, false),
            (b"x86-64-v3", false, false, false),
            (b"x86-64-v2", true, false, true),
        ];
        assert_eq!(known, expected);
        assert_eq!(hwcaps.names(), [b"own"]);
    }

    #[test]
    fn levels_come_best_first_behind_what_the_user_prepends() {
        let names = |prepend, mask| Hwcaps::new(MACHINE, prepend, mask).names().to_vec();
        assert_eq!(names(None, None), [b"x86-64-v3", b"x86-64-v2"]);
        assert_eq!(names(Some(b"a::b"), Some(b"x86-64-v2:x86-64-v4")), [&b"a"[..], b"b", b"x86-64-v2"]);
        assert!(names(None, Some(b"")).is_empty());
        let hwcaps = Hwcaps::new(MACHINE, Some(b"x86-64-v2"), None);
        assert_eq!(hwcaps.priority(b"x86-64-v2"), Some(1));
        assert_eq!(hwcaps.priority(b"x86-64-v3"), Some(2));
        assert_eq!(hwcaps.priority(b"x86-64-v4"), None);
    }

    #[test]
    fn cache_entries_are_judged_by_level_bits_platform_and_kernel() {
        let hwcaps = Hwcaps::new(MACHINE, None, None);
        assert!(hwcaps.has_isa_level(0) && hwcaps.has_isa_level(2) && !hwcaps.has_isa_level(3));
        assert!(hwcaps.has_legacy(0) && hwcaps.has_legacy(6 | TLS_BIT) && !hwcaps.has_legacy(1));
        assert!(hwcaps.has_legacy(1 << 50) && !hwcaps.has_legacy(1 << 51) && !hwcaps.has_legacy(3 << 50));
        assert!(!hwcaps.has_legacy(1 << 52));
        assert!(hwcaps.has_os_version(0x060c05) && !hwcaps.has_os_version(0x060c06));
    }

    #[test]
    fn legacy_components_end_with_the_lowest_bit() {
        let components = |machine| Hwcaps::new(machine, None, None).legacy_components();
        assert_eq!(components(MACHINE), [&b"tls"[..], b"haswell", b"avx512_1", b"x86_64"]);
        assert_eq!(components(Machine { platform: None, hwcap: 2, ..MACHINE }), [&b"tls"[..], b"x86_64"]);
        assert!(components(Machine { legacy_subdirectories: false, ..MACHINE }).is_empty());
    }
}

//! Where the fields of glibc's private structures are, for one snapshot of glibc.
//!
//! Offsets differ between releases, and within a release between snapshots of its branch, so they are data: one
//! [`Layout`] per snapshot in [`super::tables`], made from debug information by the tool `glibc-layouts` and selected at
//! run time by [`choose`], which checks it against what the mapped `libc.so.6` exports about itself.
//!
//! Names are glibc's, without leading underscores and with `_` for a nested member's dot, so that a field can be found in
//! both places by searching for it. A field that not every release from 2.34 on has is an [`Option`].

mod choose;
mod schema;

pub use choose::{choose, ChooseError, Fingerprint};
pub use schema::*;

/// A field narrower than a byte, or not on a byte's edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitField {
    /// Offset in bytes of the byte that holds the lowest bit.
    pub byte: usize,
    /// Number of the lowest bit in that byte, 0 being the least significant.
    pub bit: u32,
    /// Width in bits. No field crosses the edge of its byte.
    pub width: u32,
}

impl BitField {
    /// The bits of the field in its byte.
    pub const fn mask(self) -> u8 {
        (((1u16 << self.width) - 1) << self.bit) as u8
    }

    /// The field's value, given the byte at [`BitField::byte`].
    pub const fn get(self, byte: u8) -> u8 {
        (byte & self.mask()) >> self.bit
    }

    /// The byte at [`BitField::byte`] with the field set to `value`, of which the low [`BitField::width`] bits count.
    pub const fn with(self, byte: u8, value: u8) -> u8 {
        (byte & !self.mask()) | ((value << self.bit) & self.mask())
    }
}

/// All that is known about the private structures of one snapshot of glibc. Offsets and sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The release, as in the highest `GLIBC_x.y` version definition of its libc.so.6.
    pub version: (u32, u32),
    /// Which snapshot of the release this is, for messages.
    pub snapshot: &'static str,
    /// `_rtld_global`.
    pub rtld_global: RtldGlobal,
    /// An element of `_rtld_global._dl_ns`.
    pub link_namespaces: LinkNamespaces,
    /// `_rtld_global_ro`.
    pub rtld_global_ro: RtldGlobalRo,
    /// A loaded object.
    pub link_map: LinkMap,
    /// The thread control block, at the thread pointer.
    pub pthread: Pthread,
    /// `_rtld_global_ro._dl_x86_cpu_features`.
    pub cpu_features: CpuFeaturesLayout,
    /// Values of `cpu_features.basic.kind`.
    pub cpu_kinds: CpuKinds,
    /// What debuggers read at `_r_debug`.
    pub r_debug: RDebug,
    /// `_r_debug` with a link to the next namespace's (2.35 and later).
    pub r_debug_extended: Option<RDebugExtended>,
    /// The table behind `_rtld_global_ro._dl_dlfcn_hook`.
    pub dlfcn_hook: DlfcnHook,
    /// The result of `_dl_find_object` (2.35 and later).
    pub dl_find_object: Option<DlFindObject>,
    /// An error in flight.
    pub dl_exception: DlException,
    /// An element of a thread's dynamic thread vector.
    pub dtv: Dtv,
    /// A block of the list of modules with TLS.
    pub dtv_slotinfo_list: DtvSlotinfoList,
    /// An element of such a block.
    pub dtv_slotinfo: DtvSlotinfo,
    /// A list of objects to search.
    pub scope_elem: ScopeElem,
    /// A version asked for or defined.
    pub found_version: FoundVersion,
    /// A name an object is known by.
    pub libname_list: LibnameList,
    /// The functions of an audit module.
    pub audit_ifaces: AuditIfaces,
    /// A mutex, as in the members of type `__rtld_lock_recursive_t`.
    pub mutex: Mutex,
    /// A node of a doubly linked list, as in the lists of stacks.
    pub list_head: ListHead,
    /// What libc's `_thread_db_*` descriptors must say: symbol, and its first words (see [`Fingerprint`]).
    pub thread_db: &'static [(&'static str, [u32; 3])],
}

/// Values of `cpu_features.basic.kind`, which differ between releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuKinds {
    /// Not determined yet.
    pub unknown: u32,
    /// `GenuineIntel`.
    pub intel: u32,
    /// `AuthenticAMD`.
    pub amd: u32,
    /// `CentaurHauls` or `  Shanghai  `.
    pub zhaoxin: u32,
    /// Any other maker.
    pub other: u32,
}

const DT_THISPROC: u64 = 0x7000_0000;
const DT_VERSIONTAGS: u64 = 16;
const DT_EXTRATAGS: u64 = 3;
const DT_VALTAGS: u64 = 12;
const DT_ADDRTAGS: u64 = 11;

impl LinkMap {
    /// The index in `l_info` where glibc keeps the pointer to the dynamic entry with this tag, or `None` for a tag that
    /// has no slot.
    ///
    /// Slots are: the tags of the gABI by value, the processor's own, then counting down from the top of their ranges
    /// the version tags, the three Sun extensions, and the value and address tags.
    pub const fn slot(&self, tag: u64) -> Option<usize> {
        let (generic, processor) = match self.tag_ranges() {
            Some(ranges) => ranges,
            None => return None,
        };
        let versions = generic + processor;
        let extra = versions + DT_VERSIONTAGS;
        let values = extra + DT_EXTRATAGS;
        let addresses = values + DT_VALTAGS;
        let slot = match tag {
            _ if tag < generic => tag,
            _ if tag >= DT_THISPROC && tag - DT_THISPROC < processor => generic + (tag - DT_THISPROC),
            0x6fff_fff0..=0x6fff_ffff => versions + (0x6fff_ffff - tag),
            0x7fff_fffd..=0x7fff_ffff => extra + (0x7fff_ffff - tag),
            0x6fff_fdf4..=0x6fff_fdff => values + (0x6fff_fdff - tag),
            0x6fff_fef5..=0x6fff_feff => addresses + (0x6fff_feff - tag),
            _ => return None,
        };
        Some(slot as usize)
    }

    /// How many tags the gABI and how many the processor supplement define, in the eyes of this glibc.
    ///
    /// Only the sum is recorded in debug information, as the length of `l_info`. The gABI's grew from 35 to 38 with
    /// DT_RELR (glibc 2.36), the processor's from 0 to 4 with DT_X86_64_PLT (glibc 2.39).
    const fn tag_ranges(&self) -> Option<(u64, u64)> {
        let fixed = DT_VERSIONTAGS + DT_EXTRATAGS + DT_VALTAGS + DT_ADDRTAGS;
        match (self.l_info_len as u64).checked_sub(fixed) {
            Some(35) => Some((35, 0)),
            Some(38) => Some((38, 0)),
            Some(42) => Some((38, 4)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glibc::tables::LAYOUTS;

    #[test]
    fn bits_are_read_and_written_in_their_byte_only() {
        let field = BitField { byte: 7, bit: 3, width: 2 };
        assert_eq!(field.mask(), 0b0001_1000);
        assert_eq!(field.get(0b1111_0111), 0b10);
        assert_eq!(field.with(0b1110_0111, 0b01), 0b1110_1111);
        assert_eq!(field.with(0xff, 0), 0b1110_0111);
        let whole = BitField { byte: 0, bit: 0, width: 8 };
        assert_eq!(whole.with(0, 0xab), 0xab);
    }

    #[test]
    fn slots_fill_l_info_without_collision() {
        for layout in LAYOUTS {
            let map = &layout.link_map;
            let tags = (0..64).chain(0x6fff_fd00..0x7000_0010).chain(0x7fff_fff0..=0x7fff_ffff);
            let mut slots: std::vec::Vec<usize> = tags.filter_map(|tag| map.slot(tag)).collect();
            slots.sort_unstable();
            let all: std::vec::Vec<usize> = (0..map.l_info_len).collect();
            assert_eq!(slots, all, "{:?}", layout.version);
        }
    }

    #[test]
    fn slots_of_2_36() {
        let map = &crate::glibc::tables::layout_v2_36::LAYOUT.link_map;
        let expected = [
            (5, 5),
            (36, 36),
            (0x6fff_ffff, 38),
            (0x6fff_fffb, 42),
            (0x6fff_fff0, 53),
            (0x7fff_ffff, 54),
            (0x7fff_fffd, 56),
            (0x6fff_fef5, 79),
        ];
        for (tag, slot) in expected {
            assert_eq!(map.slot(tag), Some(slot), "tag {tag:#x}");
        }
        assert_eq!(map.slot(38), None);
        assert_eq!(map.slot(0x7000_0000), None);
    }

    #[test]
    fn a_length_of_l_info_that_is_not_known_has_no_slots() {
        let map = LinkMap { l_info_len: 41, ..crate::glibc::tables::layout_v2_36::LAYOUT.link_map };
        assert_eq!(map.slot(5), None);
    }
}

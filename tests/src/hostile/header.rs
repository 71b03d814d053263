//! Faults of the file as a whole and of its header (gABI, chapter 4).

use super::Case;
use super::Freedom::{Refuse, Words};
use object::elf::{DataEncoding, FileClass, FileVersion, OsAbi};
use object::elf::{ELFCLASS32, ELFDATA2MSB, EM_386, EM_AARCH64, ET_CORE, ET_NONE, ET_REL};
use object::LittleEndian as Le;

/// The cases.
pub const CASES: &[Case] = &[
    Case::new("header/magic", |i| i.put(0, b"\x7fELG")),
    Case::new("header/class-32", |i| i.header().e_ident.class = ELFCLASS32),
    Case::new("header/class-unknown", |i| i.header().e_ident.class = FileClass(7)).free(Words),
    Case::new("header/big-endian", |i| i.header().e_ident.data = ELFDATA2MSB),
    Case::new("header/encoding-unknown", |i| i.header().e_ident.data = DataEncoding(0)),
    Case::new("header/ident-version-0", |i| i.header().e_ident.version = FileVersion(0)),
    Case::new("header/ident-version-2", |i| i.header().e_ident.version = FileVersion(2)),
    Case::new("header/os-abi", |i| i.header().e_ident.os_abi = OsAbi(99)),
    Case::new("header/abi-version", |i| i.header().e_ident.abi_version = 9),
    Case::new("header/ident-padding", |i| i.header().e_ident.padding[3] = 1),
    Case::new("header/version-2", |i| i.header().e_version.set(Le, 2)),
    Case::new("header/machine-386", |i| i.header().e_machine.set(Le, EM_386)),
    Case::new("header/machine-aarch64", |i| i.header().e_machine.set(Le, EM_AARCH64)),
    Case::new("header/type-none", |i| i.header().e_type.set(Le, ET_NONE)),
    Case::new("header/type-relocatable", |i| i.header().e_type.set(Le, ET_REL)),
    Case::new("header/type-core", |i| i.header().e_type.set(Le, ET_CORE)),
    Case::new("header/ehsize", |i| i.header().e_ehsize.set(Le, 3)),
    Case::new("header/phentsize-0", |i| i.header().e_phentsize.set(Le, 0)),
    Case::new("header/phentsize-55", |i| i.header().e_phentsize.set(Le, 55)),
    Case::new("header/phentsize-64", |i| i.header().e_phentsize.set(Le, 64)),
    Case::new("header/phnum-0", |i| i.header().e_phnum.set(Le, 0)),
    Case::new("header/phnum-1", |i| i.header().e_phnum.set(Le, 1)).free(Refuse),
    Case::new("header/phnum-65535", |i| i.header().e_phnum.set(Le, 0xffff)).free(Words),
    Case::new("header/phoff-beyond-file", |i| i.header().e_phoff.set(Le, 1 << 40)).free(Refuse),
    Case::new("header/phoff-last-byte", |i| {
        let length = i.bytes().len() as u64;
        i.header().e_phoff.set(Le, length - 1);
    })
    .free(Refuse),
    Case::new("header/phoff-overflow", |i| i.header().e_phoff.set(Le, u64::MAX - 8)).free(Words),
    Case::new("header/phoff-negative", |i| i.header().e_phoff.set(Le, 1 << 63)).free(Words),
    Case::new("header/phoff-0", |i| i.header().e_phoff.set(Le, 0)).free(Words),
    Case::new("header/sections-nonsense", |i| {
        i.header().e_shoff.set(Le, u64::MAX);
        i.header().e_shnum.set(Le, 0xfff0);
    }),
    Case::new("truncated/1", |i| i.truncate(1)),
    Case::new("truncated/ident", |i| i.truncate(16)),
    Case::new("truncated/header", |i| i.truncate(63)),
    Case::new("truncated/after-header", |i| i.truncate(64)),
    Case::new("truncated/in-program-headers", |i| i.truncate(64 + 56 * 2 + 20)),
    Case::new("truncated/before-segments", |i| i.truncate(832)).free(Refuse),
    Case::new("truncated/in-first-segment", |i| i.truncate(0x600)).free(Refuse),
    Case::new("truncated/page", |i| i.truncate(0x1000)).free(Refuse),
    Case::new("truncated/in-text", |i| i.truncate(0x1080)).free(Refuse),
    Case::new("truncated/in-read-only-data", |i| i.truncate(0x2010)).free(Refuse),
    Case::new("truncated/in-data", |i| {
        let load = i.last_load();
        let middle = load.p_offset.get(Le) + load.p_filesz.get(Le) / 2;
        i.truncate(middle as usize);
    })
    .free(Refuse),
    Case::new("truncated/after-data", |i| {
        let load = i.last_load();
        let end = load.p_offset.get(Le) + load.p_filesz.get(Le);
        i.truncate(end as usize);
    }),
];

//! Faults of the dynamic section (gABI, chapter 5).

use super::Case;
use super::Freedom::{Accept, Refuse, Words};
use object::elf::{
    DynamicTag, DT_BIND_NOW, DT_DEBUG, DT_FINI, DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_FLAGS, DT_FLAGS_1, DT_GNU_HASH,
    DT_INIT, DT_INIT_ARRAY, DT_INIT_ARRAYSZ, DT_JMPREL, DT_NEEDED, DT_NULL, DT_PLTGOT, DT_PLTREL, DT_PLTRELSZ,
    DT_PREINIT_ARRAY, DT_PREINIT_ARRAYSZ, DT_REL, DT_RELA, DT_RELACOUNT, DT_RELAENT, DT_RELASZ, DT_RELR, DT_RELRENT,
    DT_RELRSZ, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRSZ, DT_STRTAB, DT_SYMENT, DT_SYMTAB, DT_TEXTREL,
};
use object::LittleEndian as Le;

/// Far from any image.
const AWAY: u64 = 0x7_0000_0000;

/// A tag that nobody has given a meaning.
const UNKNOWN: DynamicTag = DynamicTag(0x6000_0123);

/// The cases.
pub const CASES: &[Case] = &[
    Case::new("dynamic/unterminated", |i| {
        for entry in i.entries() {
            if entry.d_tag.get(Le) == DT_NULL {
                entry.d_tag.set(Le, UNKNOWN);
            }
        }
    })
    .free(Refuse),
    Case::new("dynamic/null-first", |i| i.entries()[0].d_tag.set(Le, DT_NULL)).free(Refuse),
    Case::new("dynamic/unknown-tags", |i| {
        i.add(UNKNOWN, AWAY);
        i.add(DynamicTag(-5), AWAY);
    }),
    Case::new("strings/outside", |i| i.set(DT_STRTAB, AWAY)).free(Refuse),
    Case::new("strings/overflow", |i| i.set(DT_STRTAB, u64::MAX - 10)).free(Words),
    Case::new("strings/none", |i| i.rename(DT_STRTAB, UNKNOWN).d_val.set(Le, 0)).free(Refuse),
    Case::new("strings/size-0", |i| i.set(DT_STRSZ, 0)).free(Refuse),
    Case::new("strings/size-huge", |i| i.set(DT_STRSZ, u64::MAX)).free(Refuse),
    Case::new("strings/no-size", |i| i.rename(DT_STRSZ, UNKNOWN).d_val.set(Le, 0)).free(Refuse),
    Case::new("strings/at-the-end-of-the-image", |i| {
        let end = i.end().next_multiple_of(0x1000);
        i.set(DT_STRTAB, end - 1);
    })
    .free(Words),
    Case::new("symbols/outside", |i| i.set(DT_SYMTAB, AWAY)).free(Refuse),
    Case::new("symbols/none", |i| i.rename(DT_SYMTAB, UNKNOWN).d_val.set(Le, 0)).free(Refuse),
    Case::new("symbols/entry-size", |i| i.set(DT_SYMENT, 16)).free(Refuse),
    Case::new("symbols/unaligned", |i| {
        let address = i.value(DT_SYMTAB);
        i.set(DT_SYMTAB, address + 1);
    })
    .free(Refuse),
    Case::new("needed/name-outside", |i| i.set(DT_NEEDED, AWAY)).free(Refuse),
    Case::new("needed/name-overflow", |i| i.set(DT_NEEDED, u64::MAX)).free(Refuse),
    Case::new("needed/name-empty", |i| i.set(DT_NEEDED, 0)).free(Refuse),
    Case::new("needed/name-one-past", |i| {
        let size = i.value(DT_STRSZ);
        i.set(DT_NEEDED, size);
    })
    .free(Refuse),
    Case::new("soname/outside", |i| i.add(DT_SONAME, AWAY)).free(Accept),
    Case::new("runpath/outside", |i| i.add(DT_RUNPATH, AWAY)).free(Accept),
    Case::new("rpath/outside", |i| i.add(DT_RPATH, AWAY)).free(Accept),
    Case::new("rela/outside", |i| i.set(DT_RELA, AWAY)).free(Refuse),
    Case::new("rela/none-but-size", |i| i.rename(DT_RELA, UNKNOWN).d_val.set(Le, 0)).free(Refuse),
    Case::new("rela/size-huge", |i| i.set(DT_RELASZ, 0xffff_fff0)).free(Refuse),
    Case::new("rela/size-overflow", |i| i.set(DT_RELASZ, u64::MAX)).free(Refuse),
    Case::new("rela/size-not-a-multiple", |i| {
        let size = i.value(DT_RELASZ);
        i.set(DT_RELASZ, size - 7);
    })
    .free(Refuse),
    Case::new("rela/entry-size", |i| i.set(DT_RELAENT, 16)).free(Refuse),
    Case::new("rela/entry-size-0", |i| i.set(DT_RELAENT, 0)).free(Refuse),
    Case::new("rela/count-too-great", |i| i.set(DT_RELACOUNT, 1 << 40)).free(Accept),
    Case::new("rela/count-of-others", |i| i.set(DT_RELACOUNT, 12)).free(Accept),
    Case::new("rela/unaligned", |i| {
        let address = i.value(DT_RELA);
        i.set(DT_RELA, address + 3);
    })
    .free(Refuse),
    Case::new("jmprel/outside", |i| i.set(DT_JMPREL, AWAY)).free(Refuse),
    Case::new("jmprel/size-huge", |i| i.set(DT_PLTRELSZ, 1 << 40)).free(Refuse),
    Case::new("jmprel/size-not-a-multiple", |i| {
        let size = i.value(DT_PLTRELSZ);
        i.set(DT_PLTRELSZ, size - 5);
    })
    .free(Refuse),
    Case::new("jmprel/kind-rel", |i| i.set(DT_PLTREL, DT_REL.0 as u64)).free(Refuse),
    Case::new("jmprel/kind-unknown", |i| i.set(DT_PLTREL, 0x1234)).free(Refuse),
    Case::new("relr/outside", |i| {
        i.add(DT_RELR, AWAY);
        i.add(DT_RELRSZ, 16);
        i.add(DT_RELRENT, 8);
    })
    .free(Refuse),
    Case::new("relr/garbage", |i| {
        let text = i.value(DT_INIT);
        i.add(DT_RELR, text);
        i.add(DT_RELRSZ, 64);
        i.add(DT_RELRENT, 8);
    })
    .free(Refuse),
    Case::new("relr/entry-size", |i| {
        let table = i.value(DT_RELA);
        i.add(DT_RELR, table);
        i.add(DT_RELRSZ, 0);
        i.add(DT_RELRENT, 3);
    })
    .free(Refuse),
    Case::new("init/outside", |i| i.set(DT_INIT, AWAY)).free(Refuse),
    Case::new("init/in-data", |i| {
        let end = i.end();
        i.set(DT_INIT, end - 64);
    })
    .free(Refuse),
    Case::new("init-array/outside", |i| i.set(DT_INIT_ARRAY, AWAY)).free(Refuse),
    Case::new("init-array/size-huge", |i| i.set(DT_INIT_ARRAYSZ, 1 << 40)).free(Refuse),
    Case::new("init-array/size-odd", |i| i.set(DT_INIT_ARRAYSZ, 13)).free(Refuse),
    Case::new("preinit-array/outside", |i| {
        i.add(DT_PREINIT_ARRAY, AWAY);
        i.add(DT_PREINIT_ARRAYSZ, 8);
    })
    .free(Refuse),
    Case::new("fini/outside", |i| i.set(DT_FINI, AWAY)).free(Refuse),
    Case::new("fini-array/outside", |i| i.set(DT_FINI_ARRAY, AWAY)).free(Refuse),
    Case::new("fini-array/size-huge", |i| i.set(DT_FINI_ARRAYSZ, 1 << 40)).free(Refuse),
    Case::new("pltgot/outside", |i| i.set(DT_PLTGOT, AWAY)).free(Accept),
    Case::new("debug/in-a-library", |i| i.add(DT_DEBUG, AWAY)),
    // Level 2 refuses it; that level 1 does not is pinned by fixtures.
    Case::new("flags/text-relocations-announced", |i| i.add(DT_TEXTREL, 0)).free(Refuse),
    // DF_TEXTREL among them.
    Case::new("flags/all", |i| i.entry(DT_FLAGS).d_val.set(Le, 0xffff_ffff)).free(Refuse),
    // But DF_1_NODEFLIB and DF_1_PIE, which mean something for a file that is found in other ways.
    Case::new("flags/most-of-flags-1", |i| i.entry(DT_FLAGS_1).d_val.set(Le, 0xf7ff_f7ff)),
    Case::new("flags/bind-now-twice", |i| i.add(DT_BIND_NOW, 7)),
    Case::new("tags/everything-twice", |i| {
        let hash = i.value(DT_GNU_HASH);
        i.add(DT_GNU_HASH, hash);
        let symbols = i.value(DT_SYMTAB);
        i.add(DT_SYMTAB, symbols);
    }),
];

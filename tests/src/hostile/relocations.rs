//! Faults of relocations (psABI, chapter 4).

use super::image::{Image, Relocation};
use super::lookup::named;
use super::stage::Role;
use super::Case;
use super::Freedom::{Accept, Refuse, Words};
use object::elf::{
    RelocationType, DT_INIT, DT_JMPREL, DT_PLTRELSZ, DT_RELA, DT_RELACOUNT, DT_RELASZ, R_X86_64_32, R_X86_64_64,
    R_X86_64_COPY, R_X86_64_DTPMOD64, R_X86_64_GLOB_DAT, R_X86_64_IRELATIVE, R_X86_64_NONE, R_X86_64_RELATIVE,
    R_X86_64_TPOFF64,
};
use object::LittleEndian as Le;

/// Far from any image.
const AWAY: u64 = 0x7_0000_0000;

/// The cases.
pub const CASES: &[Case] = &[
    Case::new("relocation/relative-outside", |i| relative(i).r_offset.set(Le, AWAY)).free(Refuse),
    Case::new("relocation/relative-before", |i| relative(i).r_offset.set(Le, 0u64.wrapping_sub(0x10_0000)))
        .free(Refuse),
    Case::new("relocation/relative-at-the-end", |i| {
        let end = i.end().next_multiple_of(0x1000);
        relative(i).r_offset.set(Le, end - 4);
    })
    .free(Refuse),
    Case::new("relocation/symbolic-outside", |i| symbolic(i).r_offset.set(Le, AWAY)).free(Refuse),
    Case::new("relocation/in-text", |i| {
        let text = i.value(DT_INIT);
        symbolic(i).r_offset.set(Le, text);
    })
    .free(Refuse),
    Case::new("relocation/in-the-file-header", |i| symbolic(i).r_offset.set(Le, 0)).free(Refuse),
    Case::new("relocation/between-segments", |i| {
        let load = i.loads().remove(1);
        let end = load.p_vaddr.get(Le) + load.p_memsz.get(Le);
        symbolic(i).r_offset.set(Le, end.next_multiple_of(0x1000) - 8);
    })
    .free(Refuse),
    Case::new("relocation/symbol-index-outside", |i| change(symbolic(i), Some(0x00ff_ffff), None)).free(Refuse),
    Case::new("relocation/symbol-index-huge", |i| change(symbolic(i), Some(0xffff_ffff), None)).free(Refuse),
    Case::new("relocation/type-unknown", |i| change(symbolic(i), None, Some(RelocationType(0x63)))).free(Words),
    Case::new("relocation/type-huge", |i| change(symbolic(i), None, Some(RelocationType(0xffff_ff01)))).free(Words),
    Case::new("relocation/type-none", |i| change(symbolic(i), None, Some(R_X86_64_NONE))).free(Accept),
    Case::new("relocation/relative-type-unknown", |i| {
        i.set(DT_RELACOUNT, 0);
        change(relative(i), None, Some(RelocationType(0x63)));
    })
    .free(Words),
    Case::new("relocation/copy-in-a-library", |i| change(symbolic(i), None, Some(R_X86_64_COPY)))
        .only(&Role::LIBRARY)
        .free(Refuse),
    Case::new("relocation/32-bits", |i| change(symbolic(i), None, Some(R_X86_64_32))).free(Words),
    Case::new("relocation/thread-offset-of-data", |i| change(symbolic(i), None, Some(R_X86_64_TPOFF64))).free(Accept),
    Case::new("relocation/thread-module-of-data", |i| change(symbolic(i), None, Some(R_X86_64_DTPMOD64))).free(Accept),
    Case::new("relocation/indirect-outside", |i| {
        change(symbolic(i), Some(0), Some(R_X86_64_IRELATIVE));
        find(i, |info| info == u64::from(R_X86_64_IRELATIVE.0)).r_addend.set(Le, AWAY as i64);
    })
    .free(Refuse),
    Case::new("relocation/indirect-in-data", |i| {
        let end = i.end();
        change(symbolic(i), Some(0), Some(R_X86_64_IRELATIVE));
        find(i, |info| info == u64::from(R_X86_64_IRELATIVE.0)).r_addend.set(Le, end as i64 - 64);
    })
    .free(Refuse),
    Case::new("relocation/plt-outside", |i| i.row::<Relocation>(DT_JMPREL, 0).r_offset.set(Le, AWAY)).free(Refuse),
    Case::new("relocation/plt-symbol-outside", |i| {
        let row = i.row::<Relocation>(DT_JMPREL, 0);
        change(row, Some(0x00ff_ffff), None);
    })
    .free(Refuse),
    Case::new("relocation/plt-type-unknown", |i| {
        let row = i.row::<Relocation>(DT_JMPREL, 0);
        change(row, None, Some(RelocationType(0x63)));
    })
    .free(Words),
    Case::new("relocation/plt-addend", |i| {
        let count = i.value(DT_PLTRELSZ) as usize / 24;
        for n in 0..count {
            i.row::<Relocation>(DT_JMPREL, n).r_addend.set(Le, 0x1000);
        }
    }),
    Case::new("relocation/got-addend", |i| {
        let count = i.value(DT_RELASZ) as usize / 24;
        for n in 0..count {
            let row = i.row::<Relocation>(DT_RELA, n);
            if row.r_info.get(Le) as u32 == R_X86_64_GLOB_DAT.0 {
                row.r_addend.set(Le, 0x1000);
            }
        }
    }),
    Case::new("relocation/over-the-relocations", |i| {
        let table = i.value(DT_RELA);
        relative(i).r_offset.set(Le, table);
    })
    .free(Refuse),
];

/// The first relocation: a relative one, as linkers sort them.
fn relative(image: &mut Image) -> &mut Relocation {
    let row = image.row::<Relocation>(DT_RELA, 0);
    assert_eq!(row.r_info.get(Le), u64::from(R_X86_64_RELATIVE.0));
    row
}

/// The relocation of a pointer to `environ`: the program only asks whether the pointer is null.
fn symbolic(image: &mut Image) -> &mut Relocation {
    let environ = named(image, b"environ") as u64;
    find(image, |info| info == environ << 32 | u64::from(R_X86_64_64.0))
}

/// The relocation whose `r_info` is as wanted.
fn find(image: &mut Image, wanted: impl Fn(u64) -> bool) -> &mut Relocation {
    let count = image.value(DT_RELASZ) as usize / 24;
    let info = |image: &mut Image, n| image.row::<Relocation>(DT_RELA, n).r_info.get(Le);
    let n = (0..count).find(|&n| wanted(info(image, n))).expect("such a relocation");
    image.row(DT_RELA, n)
}

fn change(relocation: &mut Relocation, symbol: Option<u32>, kind: Option<RelocationType>) {
    let info = relocation.r_info.get(Le);
    let symbol = symbol.map_or(info >> 32, u64::from);
    let kind = kind.map_or(info & 0xffff_ffff, |kind| u64::from(kind.0));
    relocation.r_info.set(Le, symbol << 32 | kind);
}

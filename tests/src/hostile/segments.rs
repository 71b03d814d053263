//! Faults of program headers (gABI, chapter 5; psABI, chapter 5).

use super::image::Image;
use super::stage::Role;
use super::Case;
use super::Freedom::{Accept, Refuse, Words};
use object::elf::{
    ProgramFlags, PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_PROPERTY, PT_GNU_RELRO, PT_GNU_STACK, PT_INTERP, PT_LOAD,
    PT_NOTE, PT_NULL, PT_PHDR, PT_TLS,
};
use object::LittleEndian as Le;

/// Far from any image.
const AWAY: u64 = 0x7_0000_0000;

/// The cases.
pub const CASES: &[Case] = &[
    Case::new("load/none", |i| {
        for load in i.loads() {
            load.p_type.set(Le, PT_NULL);
        }
    }),
    Case::new("load/offset-beyond-file", |i| {
        let offset = i.last_load().p_offset.get(Le);
        i.last_load().p_offset.set(Le, offset + (1 << 40));
    })
    .free(Refuse),
    Case::new("load/filesz-beyond-file", |i| {
        let load = i.last_load();
        load.p_filesz.set(Le, 0x10_0000);
        load.p_memsz.set(Le, 0x10_0000);
    })
    .free(Refuse),
    Case::new("load/filesz-greater-than-memsz", |i| {
        let load = i.last_load();
        let size = load.p_filesz.get(Le);
        load.p_memsz.set(Le, size - 0x20);
    })
    .free(Refuse),
    Case::new("load/filesz-overflow", |i| {
        let load = i.last_load();
        load.p_filesz.set(Le, u64::MAX - 0x100);
        load.p_memsz.set(Le, u64::MAX - 0x100);
    })
    .free(Refuse),
    Case::new("load/memsz-huge", |i| i.last_load().p_memsz.set(Le, 1 << 46)).free(Words),
    Case::new("load/memsz-more-than-addresses", |i| i.last_load().p_memsz.set(Le, 1 << 48)).free(Words),
    Case::new("load/memsz-overflow", |i| i.last_load().p_memsz.set(Le, u64::MAX)).free(Words),
    Case::new("load/vaddr-huge", |i| {
        let low = i.last_load().p_vaddr.get(Le) & 0xfff;
        i.last_load().p_vaddr.set(Le, !0xfff | low);
    })
    .free(Words),
    Case::new("load/align-3", |i| i.first_load().p_align.set(Le, 3)),
    Case::new("load/align-0", |i| i.first_load().p_align.set(Le, 0)),
    Case::new("load/align-1", |i| i.first_load().p_align.set(Le, 1)),
    Case::new("load/align-0x1800", |i| i.last_load().p_align.set(Le, 0x1800)),
    Case::new("load/align-huge", |i| i.last_load().p_align.set(Le, 1 << 63)).free(Words),
    Case::new("load/align-16-gib", |i| i.first_load().p_align.set(Le, 1 << 34)).free(Refuse),
    Case::new("load/not-congruent", |i| {
        let address = i.last_load().p_vaddr.get(Le);
        i.last_load().p_vaddr.set(Le, address + 8);
    }),
    Case::new("load/unordered", |i| swap(i, 0, 3)).free(Words),
    Case::new("load/last-two-swapped", |i| swap(i, 2, 3)).free(Words),
    Case::new("load/overlapping", |i| {
        let first = i.loads()[1].p_vaddr.get(Le);
        i.loads()[2].p_vaddr.set(Le, first);
    })
    .free(Refuse),
    Case::new("load/all-the-same-address", |i| {
        for load in i.loads() {
            let low = load.p_vaddr.get(Le) & 0xfff;
            load.p_vaddr.set(Le, low);
        }
    })
    .free(Words),
    Case::new("load/memsz-into-the-next", |i| i.loads()[1].p_memsz.set(Le, 0x1800)).free(Refuse),
    Case::new("load/empty", |i| {
        let end = i.end().next_multiple_of(0x1000);
        let load = i.add_segment(PT_LOAD);
        load.p_vaddr.set(Le, end);
        load.p_align.set(Le, 0x1000);
    }),
    Case::new("load/no-permissions", |i| i.first_load().p_flags.set(Le, ProgramFlags(0))).free(Refuse),
    Case::new("load/data-read-only", |i| i.last_load().p_flags.set(Le, PF_R)).free(Refuse),
    Case::new("load/everything-allowed", |i| {
        for load in i.loads() {
            load.p_flags.set(Le, ProgramFlags(PF_R.0 | PF_W.0 | PF_X.0));
        }
    }),
    Case::new("load/bss-only-with-offset-beyond", |i| {
        let load = i.add_segment(PT_LOAD);
        load.p_offset.set(Le, 1 << 30);
        load.p_vaddr.set(Le, 0x10_0000);
        load.p_memsz.set(Le, 0x1000);
        load.p_align.set(Le, 0x1000);
    }),
    Case::new("load/far-away", |i| {
        let load = i.add_segment(PT_LOAD);
        load.p_vaddr.set(Le, 1 << 45);
        load.p_memsz.set(Le, 0x1000);
        load.p_align.set(Le, 0x1000);
    })
    .free(Refuse),
    Case::new("relro/outside", |i| i.segment(PT_GNU_RELRO).p_vaddr.set(Le, AWAY)).free(Refuse),
    Case::new("relro/past-the-end", |i| {
        let end = i.end();
        i.segment(PT_GNU_RELRO).p_memsz.set(Le, end + 0x10_0000);
    })
    .free(Refuse),
    Case::new("relro/huge", |i| i.segment(PT_GNU_RELRO).p_memsz.set(Le, u64::MAX)).free(Refuse),
    Case::new("relro/over-text", |i| {
        let address = i.loads()[1].p_vaddr.get(Le);
        let relro = i.segment(PT_GNU_RELRO);
        relro.p_vaddr.set(Le, address);
        relro.p_memsz.set(Le, 0x1000);
    })
    .free(Refuse),
    Case::new("relro/empty", |i| i.segment(PT_GNU_RELRO).p_memsz.set(Le, 0)),
    Case::new("relro/unaligned", |i| {
        let relro = i.segment(PT_GNU_RELRO);
        let (address, size) = (relro.p_vaddr.get(Le), relro.p_memsz.get(Le));
        relro.p_vaddr.set(Le, address + 1);
        relro.p_memsz.set(Le, size - 2);
    }),
    Case::new("dynamic-segment/none", |i| i.segment(PT_DYNAMIC).p_type.set(Le, PT_NULL)).free(Refuse),
    Case::new("dynamic-segment/outside", |i| i.segment(PT_DYNAMIC).p_vaddr.set(Le, AWAY)).free(Refuse),
    Case::new("dynamic-segment/past-the-end", |i| {
        let end = i.end();
        i.segment(PT_DYNAMIC).p_vaddr.set(Le, end.next_multiple_of(0x1000) - 16);
    })
    .free(Refuse),
    Case::new("dynamic-segment/overflow", |i| i.segment(PT_DYNAMIC).p_vaddr.set(Le, u64::MAX - 7)).free(Refuse),
    Case::new("dynamic-segment/unaligned", |i| {
        let address = i.segment(PT_DYNAMIC).p_vaddr.get(Le);
        i.segment(PT_DYNAMIC).p_vaddr.set(Le, address + 1);
    })
    .free(Refuse),
    Case::new("dynamic-segment/empty", |i| {
        i.segment(PT_DYNAMIC).p_filesz.set(Le, 0);
        i.segment(PT_DYNAMIC).p_memsz.set(Le, 0);
    })
    .free(Refuse),
    Case::new("dynamic-segment/size-wrong", |i| i.segment(PT_DYNAMIC).p_memsz.set(Le, 1 << 40)).free(Refuse),
    Case::new("dynamic-segment/over-text", |i| {
        let address = i.loads()[1].p_vaddr.get(Le);
        i.segment(PT_DYNAMIC).p_vaddr.set(Le, address);
    })
    .free(Refuse),
    Case::new("dynamic-segment/over-bss", |i| {
        let end = i.end();
        i.segment(PT_DYNAMIC).p_vaddr.set(Le, (end - 0x800) & !15);
    })
    .free(Refuse),
    Case::new("tls/align-3", |i| i.segment(PT_TLS).p_align.set(Le, 3)).free(Refuse),
    Case::new("tls/align-0", |i| i.segment(PT_TLS).p_align.set(Le, 0)).free(Accept),
    Case::new("tls/align-huge", |i| i.segment(PT_TLS).p_align.set(Le, 1 << 46)).free(Refuse),
    Case::new("tls/align-top-bit", |i| i.segment(PT_TLS).p_align.set(Le, 1 << 63)).free(Refuse),
    Case::new("tls/filesz-greater-than-memsz", |i| i.segment(PT_TLS).p_filesz.set(Le, 0x40)).free(Refuse),
    Case::new("tls/outside", |i| i.segment(PT_TLS).p_vaddr.set(Le, AWAY)).free(Refuse),
    Case::new("tls/past-the-end", |i| {
        let end = i.end();
        let tls = i.segment(PT_TLS);
        tls.p_vaddr.set(Le, end - 1);
        tls.p_filesz.set(Le, 0x10_0000);
        tls.p_memsz.set(Le, 0x10_0000);
    })
    .free(Refuse),
    Case::new("tls/memsz-huge", |i| i.segment(PT_TLS).p_memsz.set(Le, 1 << 46)).free(Refuse),
    Case::new("tls/memsz-overflow", |i| i.segment(PT_TLS).p_memsz.set(Le, u64::MAX - 3)).free(Refuse),
    Case::new("tls/empty", |i| {
        i.segment(PT_TLS).p_filesz.set(Le, 0);
        i.segment(PT_TLS).p_memsz.set(Le, 0);
    })
    .only(&[Role::Main])
    .free(Accept),
    Case::new("stack/executable", |i| {
        i.segment(PT_GNU_STACK).p_flags.set(Le, ProgramFlags(PF_R.0 | PF_W.0 | PF_X.0));
    }),
    Case::new("interp/outside", |i| {
        i.segment(PT_INTERP).p_offset.set(Le, 1 << 40);
        i.segment(PT_INTERP).p_vaddr.set(Le, AWAY);
    })
    .only(&[Role::Main])
    .free(Accept),
    Case::new("interp/no-such-file", |i| {
        let at = i.segment(PT_INTERP).p_offset.get(Le) as usize;
        i.put(at, b"/nowhere");
    })
    .only(&[Role::Main]),
    Case::new("interp/unterminated", |i| i.segment(PT_INTERP).p_filesz.set(Le, 5)).only(&[Role::Main]).free(Refuse),
    Case::new("interp/empty", |i| i.segment(PT_INTERP).p_filesz.set(Le, 0)).only(&[Role::Main]).free(Refuse),
    Case::new("phdr/outside", |i| i.segment(PT_PHDR).p_vaddr.set(Le, AWAY)).only(&[Role::Main]).free(Accept),
    Case::new("phdr/in-a-library", |i| i.add_segment(PT_PHDR).p_vaddr.set(Le, AWAY)).only(&Role::LIBRARY).free(Accept),
    Case::new("note/outside", |i| {
        let note = i.segment(PT_NOTE);
        note.p_vaddr.set(Le, AWAY);
        note.p_offset.set(Le, AWAY);
    })
    .free(Accept),
    Case::new("note/huge", |i| {
        let note = i.segment(PT_NOTE);
        note.p_filesz.set(Le, 1 << 46);
        note.p_memsz.set(Le, 1 << 46);
    })
    .free(Accept),
    Case::new("property/outside", |i| {
        let property = i.add_segment(PT_GNU_PROPERTY);
        property.p_vaddr.set(Le, AWAY);
        property.p_offset.set(Le, AWAY);
        property.p_filesz.set(Le, 0x20);
        property.p_memsz.set(Le, 0x20);
        property.p_align.set(Le, 8);
    })
    .free(Accept),
    Case::new("property/garbage", |i| {
        let text = i.loads()[1].p_vaddr.get(Le);
        let property = i.add_segment(PT_GNU_PROPERTY);
        property.p_vaddr.set(Le, text);
        property.p_offset.set(Le, 0x1000);
        property.p_filesz.set(Le, 0x100);
        property.p_memsz.set(Le, 0x100);
        property.p_align.set(Le, 8);
    }),
];

/// Exchanges two PT_LOADs.
fn swap(image: &mut Image, first: usize, second: usize) {
    let is_load = |s: &super::image::Segment| s.p_type.get(Le) == PT_LOAD;
    let places: Vec<usize> = (0..image.segments().len()).filter(|&n| is_load(&image.segments()[n])).collect();
    image.segments().swap(places[first], places[second]);
}

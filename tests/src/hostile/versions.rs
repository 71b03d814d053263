//! Faults of version tables (the GNU extension described in the LSB, "Symbol Versioning").

use super::image::Image;
use super::stage::Role;
use super::Case;
use super::Freedom::{Accept, Refuse, Words};
use object::elf::{
    DynamicTag, Verdaux, Verdef, Vernaux, Verneed, VersionIndex, VersymIndex, DT_VERDEF, DT_VERDEFNUM, DT_VERNEED,
    DT_VERNEEDNUM, DT_VERSYM,
};
use object::{LittleEndian as Le, U16};
use std::mem::size_of;

/// Far from any image.
const AWAY: u64 = 0x7_0000_0000;

/// The cases.
pub const CASES: &[Case] = &[
    Case::new("versym/outside", |i| i.set(DT_VERSYM, AWAY)).free(Refuse),
    Case::new("versym/none", |i| i.rename(DT_VERSYM, DynamicTag(0x6000_0123)).d_val.set(Le, 0)).free(Accept),
    Case::new("versym/index-unknown", |i| {
        for n in 1..8 {
            i.row::<U16<Le>>(DT_VERSYM, n).set(Le, 0x7ff0);
        }
    })
    .free(Accept),
    Case::new("verneed/outside", |i| i.set(DT_VERNEED, AWAY)).free(Refuse),
    Case::new("verneed/overflow", |i| i.set(DT_VERNEED, u64::MAX - 3)).free(Words),
    Case::new("verneed/count-huge", |i| i.set(DT_VERNEEDNUM, u64::MAX)).free(Refuse),
    Case::new("verneed/count-0", |i| i.set(DT_VERNEEDNUM, 0)).free(Refuse),
    Case::new("verneed/version", |i| need(i).vn_version.set(Le, 2)),
    Case::new("verneed/to-itself", |i| {
        let file = need(i).vn_file.get(Le);
        let first = i.offset_of(DT_VERNEED);
        assert!(file != 0 && first != 0);
        // A link is an unsigned distance: the way back wraps around.
        need(i).vn_next.set(Le, 0u32.wrapping_sub(size_of::<Verneed<Le>>() as u32));
    })
    .free(Accept),
    Case::new("verneed/next-outside", |i| need(i).vn_next.set(Le, 0x7fff_fff0)).free(Accept),
    Case::new("verneed/next-inside-itself", |i| need(i).vn_next.set(Le, 1)).free(Accept),
    Case::new("verneed/file-outside", |i| need(i).vn_file.set(Le, 0x0fff_ffff)).free(Refuse),
    Case::new("verneed/file-not-loaded", |i| need(i).vn_file.set(Le, 0)).free(Words),
    Case::new("verneed/no-auxiliaries", |i| {
        need(i).vn_cnt.set(Le, 0);
        need(i).vn_aux.set(Le, 0);
    })
    .free(Accept),
    Case::new("verneed/auxiliary-outside", |i| need(i).vn_aux.set(Le, 0x7fff_fff0)).free(Refuse),
    Case::new("verneed/auxiliary-count-huge", |i| need(i).vn_cnt.set(Le, 0xffff)).free(Refuse),
    Case::new("vernaux/next-outside", |i| auxiliary(i).vna_next.set(Le, 0x7fff_fff0)).free(Accept),
    Case::new("vernaux/next-back", |i| {
        auxiliary(i).vna_next.set(Le, 0u32.wrapping_sub(16));
    })
    .free(Accept),
    Case::new("vernaux/name-outside", |i| auxiliary(i).vna_name.set(Le, 0x0fff_ffff)).free(Refuse),
    Case::new("vernaux/name-unknown", |i| {
        let name = auxiliary(i).vna_name.get(Le);
        auxiliary(i).vna_name.set(Le, name + 1);
        auxiliary(i).vna_hash.set(Le, 0x1234);
    }),
    Case::new("vernaux/hash-wrong", |i| auxiliary(i).vna_hash.set(Le, 0x1234)),
    Case::new("vernaux/index-huge", |i| auxiliary(i).vna_other.set(Le, VersionIndex(0x7fff))).free(Refuse),
    Case::new("verdef/outside", |i| i.set(DT_VERDEF, AWAY)).free(Refuse),
    Case::new("verdef/count-huge", |i| i.set(DT_VERDEFNUM, u64::MAX)).free(Refuse),
    Case::new("verdef/version", |i| definition(i).vd_version.set(Le, 2)).only(&Role::LIBRARY).free(Words),
    Case::new("verdef/next-outside", |i| definition(i).vd_next.set(Le, 0x7fff_fff0)).free(Refuse),
    Case::new("verdef/next-back", |i| {
        definition(i).vd_next.set(Le, 0u32.wrapping_sub(4));
    })
    .free(Refuse),
    Case::new("verdef/auxiliary-outside", |i| definition(i).vd_aux.set(Le, 0x7fff_fff0)).free(Refuse),
    Case::new("verdef/index-huge", |i| definition(i).vd_ndx.set(Le, VersionIndex(0x7fff))).free(Refuse),
    Case::new("verdef/name-outside", |i| {
        let first = i.offset_of(DT_VERDEF);
        let second = first + definition(i).vd_next.get(Le) as usize;
        let names = second + i.at::<Verdef<Le>>(second).vd_aux.get(Le) as usize;
        i.at::<Verdaux<Le>>(names).vda_name.set(Le, 0x0fff_ffff);
    })
    .free(Refuse),
    Case::new("verdef/no-auxiliaries", |i| definition(i).vd_cnt.set(Le, 0)).free(Accept),
];

fn need(image: &mut Image) -> &mut Verneed<Le> {
    image.row(DT_VERNEED, 0)
}

fn auxiliary(image: &mut Image) -> &mut Vernaux<Le> {
    let offset = image.offset_of(DT_VERNEED) + need(image).vn_aux.get(Le) as usize;
    image.at(offset)
}

fn definition(image: &mut Image) -> &mut Verdef<Le> {
    image.row(DT_VERDEF, 0)
}

const _: () = assert!(size_of::<VersymIndex>() == 2);

//! Faults of symbols and of the tables that find them (gABI, chapter 5; the GNU hash section has no standard but its users).

use super::image::Image;
use super::stage::Role;
use super::Case;
use super::Freedom::{Accept, Refuse, Words};
use object::elf::{DynamicTag, GnuHashHeader, SymbolBind, DT_GNU_HASH, DT_HASH, STT_GNU_IFUNC};
use object::elf::{DT_STRTAB, DT_SYMTAB};
use object::{LittleEndian as Le, U32};

/// Far from any image.
const AWAY: u64 = 0x7_0000_0000;

type Word = U32<Le>;

/// The cases.
pub const CASES: &[Case] = &[
    Case::new("gnu-hash/outside", |i| i.set(DT_GNU_HASH, AWAY)).free(Refuse),
    Case::new("gnu-hash/overflow", |i| i.set(DT_GNU_HASH, u64::MAX - 7)).free(Refuse),
    Case::new("gnu-hash/in-the-last-bytes", |i| {
        let end = i.end().next_multiple_of(0x1000);
        i.set(DT_GNU_HASH, end - 8);
    })
    .free(Refuse),
    Case::new("gnu-hash/no-buckets", |i| gnu(i).bucket_count.set(Le, 0)).free(Words),
    Case::new("gnu-hash/buckets-huge", |i| gnu(i).bucket_count.set(Le, 0xffff_ffff)).free(Accept),
    Case::new("gnu-hash/bloom-size-0", |i| gnu(i).bloom_count.set(Le, 0)).free(Refuse),
    Case::new("gnu-hash/bloom-size-3", |i| gnu(i).bloom_count.set(Le, 3)).free(Refuse),
    Case::new("gnu-hash/bloom-size-huge", |i| gnu(i).bloom_count.set(Le, 0x8000_0000)).free(Refuse),
    Case::new("gnu-hash/bloom-shift-huge", |i| gnu(i).bloom_shift.set(Le, 0xffff_ffff)).free(Words),
    Case::new("gnu-hash/first-symbol-huge", |i| gnu(i).symbol_base.set(Le, 0xffff_ff00)).free(Accept),
    Case::new("gnu-hash/bucket-outside", |i| {
        let buckets = buckets(i);
        every_bucket(i, buckets, 0x00ff_ffff);
    })
    .free(Accept),
    Case::new("gnu-hash/bucket-huge", |i| {
        let buckets = buckets(i);
        every_bucket(i, buckets, 0xffff_fffe);
    })
    .free(Accept),
    Case::new("gnu-hash/bucket-below-first-symbol", |i| {
        let buckets = buckets(i);
        every_bucket(i, buckets, 1);
    })
    .free(Words),
    Case::new("gnu-hash/chain-without-end", |i| {
        let (start, count) = buckets(i);
        let base = gnu(i).symbol_base.get(Le);
        let last = (0..count).map(|n| i.at::<Word>(start + 4 * n).get(Le)).max().expect("a bucket");
        let chains = start + 4 * count;
        for n in 0..=(last - base) as usize + 2 {
            let word = i.at::<Word>(chains + 4 * n);
            let value = word.get(Le);
            word.set(Le, value & !1);
        }
    })
    .free(Accept),
    Case::new("hash/none", |i| i.rename(DT_GNU_HASH, DynamicTag(0x6000_0123)).d_val.set(Le, 0)).free(Words),
    Case::new("sysv-hash/outside", |i| i.rename(DT_GNU_HASH, DT_HASH).d_val.set(Le, AWAY)).free(Refuse),
    Case::new("sysv-hash/no-buckets", |i| sysv(i, &[0, 16])).free(Words),
    Case::new("sysv-hash/buckets-huge", |i| sysv(i, &[0xffff_ffff, 16])).free(Refuse),
    Case::new("sysv-hash/chains-huge", |i| sysv(i, &[1, 0xffff_ffff, 1])).free(Accept),
    Case::new("sysv-hash/cyclic-chain", |i| sysv(i, &[1, 4, 1, 0, 2, 3, 1])).free(Accept),
    Case::new("sysv-hash/chain-to-itself", |i| sysv(i, &[1, 4, 1, 0, 1, 2, 3])).free(Accept).only(&[Role::Needed]),
    Case::new("sysv-hash/bucket-outside", |i| sysv(i, &[1, 4, 0x00ff_ffff, 0, 0, 0, 0])).free(Accept),
    Case::new("sysv-hash/chain-outside", |i| sysv(i, &[1, 4, 1, 0, 0xffff_fff0, 0, 0])).free(Accept),
    Case::new("sysv-hash/empty", |i| sysv(i, &[1, 0, 0])).free(Words),
    Case::new("symbol/name-outside", |i| {
        let n = named(i, b"puts");
        i.symbol(n).st_name.set(Le, 0x0fff_ffff);
    })
    .free(Refuse),
    Case::new("symbol/name-huge", |i| {
        let n = named(i, b"puts");
        i.symbol(n).st_name.set(Le, 0xffff_ffff);
    })
    .free(Refuse),
    Case::new("symbol/name-of-a-definition-outside", |i| {
        let n = named(i, b"victim");
        i.symbol(n).st_name.set(Le, 0x0fff_ffff);
    })
    .free(Refuse),
    Case::new("symbol/name-unknown", |i| {
        let n = named(i, b"puts");
        let name = i.symbol(n).st_name.get(Le);
        i.symbol(n).st_name.set(Le, name + 1);
    }),
    Case::new("symbol/section-unknown", |i| {
        let n = named(i, b"victim");
        i.symbol(n).st_shndx.set(Le, object::elf::SymbolSection(0xfeff));
    })
    .free(Refuse),
    Case::new("symbol/binding-unknown", |i| {
        let n = named(i, b"victim");
        let kind = i.symbol(n).st_type();
        i.symbol(n).set_st_info(SymbolBind(7), kind);
    })
    .free(Words),
    // The data symbol is looked up by a relocation of the file itself, the resolver would be called at an address outside.
    Case::new("symbol/indirect-function-outside", |i| {
        let n = named(i, b"data");
        let bind = i.symbol(n).st_bind();
        i.symbol(n).set_st_info(bind, STT_GNU_IFUNC);
        i.symbol(n).st_value.set(Le, AWAY);
    })
    .free(Refuse),
    Case::new("symbol/indirect-function-in-data", |i| {
        let n = named(i, b"data");
        let bind = i.symbol(n).st_bind();
        i.symbol(n).set_st_info(bind, STT_GNU_IFUNC);
    })
    .free(Refuse),
    Case::new("symbol/unaligned-hash", |i| {
        let table = i.value(DT_GNU_HASH);
        i.set(DT_GNU_HASH, table + 2);
    })
    .free(Refuse),
    Case::new("symbol/table-is-the-string-table", |i| {
        let strings = i.value(DT_STRTAB);
        i.set(DT_SYMTAB, strings & !7);
    })
    .free(Refuse),
    // A program that nobody searches: its own definitions are not asked for.
    Case::new("gnu-hash/all-zero", |i| {
        let offset = i.offset_of(DT_GNU_HASH);
        i.put(offset, &[0; 16]);
    })
    .only(&[Role::Main])
    .free(Accept),
];

fn gnu(image: &mut Image) -> &mut GnuHashHeader<Le> {
    image.row(DT_GNU_HASH, 0)
}

/// File offset and number of the buckets.
fn buckets(image: &mut Image) -> (usize, usize) {
    let offset = image.offset_of(DT_GNU_HASH);
    let (bloom, count) = (gnu(image).bloom_count.get(Le) as usize, gnu(image).bucket_count.get(Le) as usize);
    (offset + 16 + 8 * bloom, count)
}

fn every_bucket(image: &mut Image, (start, count): (usize, usize), value: u32) {
    for n in 0..count {
        image.at::<Word>(start + 4 * n).set(Le, value);
    }
}

/// Replaces the GNU hash table by a SysV one with these words, in the same place.
fn sysv(image: &mut Image, words: &[u32]) {
    let offset = image.offset_of(DT_GNU_HASH);
    image.entry(DT_GNU_HASH).d_tag.set(Le, DT_HASH);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.put(offset, &bytes);
}

/// The index of the dynamic symbol with a name.
pub(super) fn named(image: &mut Image, name: &[u8]) -> usize {
    let strings = image.offset_of(DT_STRTAB);
    let wanted = [name, b"\0"].concat();
    (1..1000)
        .find(|&n| {
            let at = strings + image.symbol(n).st_name.get(Le) as usize;
            image.bytes()[at..].starts_with(&wanted)
        })
        .expect("a symbol with this name")
}

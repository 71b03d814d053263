//! `dladdr(3)`: the object and the symbol of an address.

use crate::process::Process;
use goblin::elf::sym::{STB_GLOBAL, STB_LOCAL, STB_WEAK};
use loader::addr::Addr;
use loader::elf::symbols::Sym;
use loader::object::{Object, ObjectId};

/// What is known of an address.
pub struct Located {
    /// The object in whose image it lies.
    pub object: ObjectId,
    /// The symbol at or before it, if one covers it.
    pub symbol: Option<&'static Sym>,
}

/// Finds the object and the closest symbol of an address.
pub fn locate(process: &Process, address: Addr) -> Option<Located> {
    let object = process.linker.find_by_address(address)?;
    Some(Located { object, symbol: closest_symbol(&process.linker.objects[object], address) })
}

/// The global symbol with the highest address not above `address` that covers it. As in glibc, a symbol of size 0 covers its own address
/// only, and absolute and thread-local symbols have no address here, nor unique ones where there is no GNU hash table.
fn closest_symbol(object: &Object, address: Addr) -> Option<&'static Sym> {
    const STT_TLS: u8 = 6;
    let is_listed = |binding: u8| match binding {
        STB_LOCAL => false,
        STB_GLOBAL | STB_WEAK => true,
        _ => object.symbols.has_gnu_hash(),
    };
    let value = object.image.bias.link_time(address).0;
    let covers = |s: &&Sym| {
        let defined = s.st_shndx != 0 || s.st_value != 0;
        let size_covers = if s.st_size == 0 || s.st_shndx == 0 {
            value == s.st_value
        } else {
            value >= s.st_value && value - s.st_value < s.st_size
        };
        s.st_info & 0xf != STT_TLS
            && is_listed(s.st_info >> 4)
            && s.st_shndx != loader::lookup::SHN_ABS
            && defined
            && size_covers
    };
    let mut best: Option<&'static Sym> = None;
    for symbol in (0..object.symbols.count()).filter_map(|i| object.symbols.get(i)).filter(covers) {
        if best.is_none_or(|b| b.st_value < symbol.st_value) {
            best = Some(symbol);
        }
    }
    best
}

//! The slots of an object's PLT one by one, for who wants to know what each of them is bound to.

use super::binder::Binding;
use crate::addr::VAddr;
use crate::elf::symbols::Sym;
use crate::error::{LoadError, Reason};
use crate::lookup::Class;
use crate::object::{Object, ObjectId};
use goblin::elf64::reloc::{self, Rela};

/// A slot and what it is bound to.
#[derive(Clone, Copy)]
pub struct Slot {
    /// Where it lies.
    pub at: VAddr,
    /// The definition; `None` for a weak reference without one.
    pub definer: Option<(ObjectId, &'static Sym)>,
    /// The definition's address, or that of the resolver which tells it; 0 without a definition.
    pub address: u64,
    /// Whether it is a resolver's.
    pub is_ifunc: bool,
}

/// How many slots an object's PLT has, at most.
pub fn count(object: &Object) -> usize {
    records(object).len()
}

/// Looks up what the slot of the relocation with an index in `DT_JMPREL` is bound to; `None` for a relocation of another kind.
///
/// # Errors
/// No definition, or an index outside the table.
pub fn slot(binding: &Binding<'_, '_>, index: usize) -> Result<Option<Slot>, LoadError> {
    let complain = |what| LoadError::new(binding.object.display_name(), Reason::Malformed { what, at: index as u64 });
    let record =
        records(binding.object).get(index).ok_or_else(|| complain("PLT relocation index outside the table"))?;
    if (record.r_info & 0xffff_ffff) as u32 != reloc::R_X86_64_JUMP_SLOT {
        return Ok(None);
    }
    let resolved = binding.resolve((record.r_info >> 32) as u32, Class::Plt)?;
    let definer = binding.definer(&resolved).and_then(|(id, _, symbol)| Some((id, symbol?)));
    let address = binding.address(&resolved);
    Ok(Some(Slot { at: VAddr(record.r_offset), definer, address, is_ifunc: resolved.is_ifunc() }))
}

/// The relocations of an object's PLT; none if they lie outside the object, which relocating it would have found.
fn records(object: &Object) -> &'static [Rela] {
    let bytes = object.dynamic.plt_rela.and_then(|table| object.image.view().bytes(table.at, table.size));
    bytes.and_then(|bytes| plain::slice_from_bytes(bytes).ok()).unwrap_or(&[])
}

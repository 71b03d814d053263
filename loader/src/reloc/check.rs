//! What relocation would find, without applying anything: for listings (ldd(1) with `-r` and `-u`).

use super::x86_64::{self, symbol_index};
use super::Binding;
use crate::error::{LoadError, Reason};
use crate::lookup::Class;
use crate::object::ObjectId;
use alloc::vec::Vec;
use goblin::elf64::reloc::{self, Rela};

/// Looks up every symbol that the relocations of an object name; those of the PLT only with `functions`. `undefined` gets what has no
/// definition, in the order of the relocations, between the warnings that relocating gives.
///
/// The objects that define something it refers to, each once.
///
/// # Errors
/// A table that does not lie in the object, or an index outside the symbol table.
pub fn references(
    binding: &Binding<'_, '_>,
    functions: bool,
    undefined: &mut dyn FnMut(LoadError),
) -> Result<Vec<ObjectId>, LoadError> {
    x86_64::tell_begin(binding.object, !functions);
    let mut definers = Vec::new();
    let (rela, plt) = x86_64::records_of(binding.object)?;
    let relative = (binding.object.dynamic.relative_count as usize).min(rela.len());
    let mut failed = None;
    for rela in rela[relative..].iter().chain(plt.iter().filter(|_| functions)) {
        let (index, class) = (symbol_index(rela), class_of(rela));
        // Linkers sort by symbol: the same one is looked up, and complained of, once.
        if index == 0 || failed == Some((index, class)) {
            continue;
        }
        match binding.resolve(index, class) {
            Ok(resolved) => {
                failed = None;
                let Some((definer, _, symbol)) = binding.definer(&resolved) else { continue };
                if let (Class::Copy, Some(original)) = (class, symbol) {
                    let reference = binding.object.symbols.get(index);
                    reference.inspect(|reference| x86_64::warn_of_size(binding.object, reference, original));
                }
                if !definers.contains(&definer) {
                    definers.push(definer);
                }
            }
            Err(error @ LoadError { reason: Reason::UndefinedSymbol { .. }, .. }) => {
                failed = Some((index, class));
                undefined(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(definers)
}

fn class_of(rela: &Rela) -> Class {
    match x86_64::kind(rela) {
        reloc::R_X86_64_COPY => Class::Copy,
        reloc::R_X86_64_JUMP_SLOT
        | reloc::R_X86_64_DTPMOD64
        | reloc::R_X86_64_DTPOFF64
        | reloc::R_X86_64_TPOFF64
        | reloc::R_X86_64_TLSDESC => Class::Plt,
        _ => Class::Data,
    }
}

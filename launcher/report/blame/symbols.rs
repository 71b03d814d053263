//! Names of functions by address, from an object's own symbols or from the debug file that belongs to it.

use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _, ReadCache, ReadRef};
use object::{SectionKind, SymbolKind};
use std::borrow::Cow;
use std::fs::File;
use std::path::PathBuf;

/// Where distributions put the symbols that they strip (gdb, "Separate Debug Files").
const DEBUG_FILES: &str = "/usr/lib/debug/.build-id";

/// A function.
struct Symbol {
    start: u64,
    /// 0 if the symbol does not say.
    size: u64,
    name: String,
}

/// The functions of an object, at the addresses of its file.
#[derive(Default)]
pub struct Symbols(Vec<Symbol>);

impl Symbols {
    /// Those of a file: its `.symtab`, else that of its debug file, else `.dynsym`.
    pub fn of_file(file: File) -> Symbols {
        let cache = ReadCache::new(file);
        let Ok(object) = object::File::parse(&cache) else { return Symbols::default() };
        if object.symbol_table().is_none() {
            let id = object.build_id().ok().flatten().filter(|id| id.len() > 1);
            let symbols = id.and_then(|id| File::open(debug_file(id)).ok()).map(|file| {
                let cache = ReadCache::new(file);
                object::File::parse(&cache).map_or_else(|_| Symbols::default(), |object| Symbols::read(&object))
            });
            if let Some(symbols) = symbols.filter(|symbols| !symbols.0.is_empty()) {
                return symbols;
            }
        }
        Symbols::read(&object)
    }

    /// Those of an image in memory: the vDSO's.
    pub fn of_bytes(bytes: &[u8]) -> Symbols {
        object::File::parse(bytes).map_or_else(|_| Symbols::default(), |object| Symbols::read(&object))
    }

    fn read<'a>(object: &object::File<'a, impl ReadRef<'a>>) -> Symbols {
        let symbols: Vec<_> = match object.symbol_table() {
            Some(_) => object.symbols().collect(),
            None => object.dynamic_symbols().collect(),
        };
        let in_text = |index| object.section_by_index(index).is_ok_and(|section| section.kind() == SectionKind::Text);
        let is_function = |kind, section: Option<_>| match kind {
            SymbolKind::Text => true,
            // A label of assembly; the linker's own, as `_end`, are no places in code.
            SymbolKind::Unknown => section.is_some_and(in_text),
            _ => false,
        };
        let defined = symbols.into_iter().filter(|symbol| symbol.address() != 0);
        let functions = defined.filter(|symbol| is_function(symbol.kind(), symbol.section_index()));
        let named = functions.filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            let preference = (symbol.is_local(), name.len() - name.trim_start_matches('_').len());
            Some((preference, Symbol { start: symbol.address(), size: symbol.size(), name: name.to_owned() }))
        });
        let mut named: Vec<_> = named.collect();
        // Of several names of one address the one that others see, with the fewest underscores.
        named.sort_by(|(a, one), (b, other)| (one.start, a).cmp(&(other.start, b)));
        named.dedup_by_key(|(_, symbol)| symbol.start);
        Symbols(named.into_iter().map(|(_, symbol)| symbol).collect())
    }

    /// The function at an address, and how far into it that is.
    pub fn find(&self, address: u64) -> Option<(String, u64)> {
        let after = self.0.partition_point(|symbol| symbol.start <= address);
        let symbol = self.0[..after].last()?;
        let offset = address - symbol.start;
        (symbol.size == 0 || offset < symbol.size).then(|| (readable(&symbol.name).into_owned(), offset))
    }
}

fn debug_file(id: &[u8]) -> PathBuf {
    let hexadecimal: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hexadecimal.split_at(2);
    PathBuf::from(format!("{DEBUG_FILES}/{first}/{rest}.debug"))
}

/// The name as it stands in the source, where it is one of Rust or C++.
fn readable(name: &str) -> Cow<'_, str> {
    let name = name.split('@').next().unwrap_or(name);
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}").into();
    }
    let cpp = name.starts_with("_Z").then(|| cpp_demangle::Symbol::new(name).ok()?.demangle().ok()).flatten();
    cpp.map_or(name.into(), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        assert_eq!(readable("_ZN2v88internal7FreezerEv"), "v8::internal::Freezer()");
        assert_eq!(readable("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE"), "core::fmt::Formatter::pad");
        assert_eq!(readable("memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(readable("_Zqq"), "_Zqq");
    }

    #[test]
    fn a_symbol_ends_where_it_says() {
        let symbol = |start, size, name: &str| Symbol { start, size, name: name.into() };
        let symbols = Symbols(vec![symbol(0x10, 8, "a"), symbol(0x20, 0, "b")]);
        assert_eq!(symbols.find(0xf), None);
        assert_eq!(symbols.find(0x17), Some(("a".into(), 7)));
        assert_eq!(symbols.find(0x18), None);
        assert_eq!(symbols.find(0x2000), Some(("b".into(), 0x1fe0)));
    }

    #[test]
    fn a_file_names_its_functions() {
        let file = File::open("/proc/self/exe").expect("this program");
        let symbols = Symbols::of_file(file);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let own = std::fs::read_link("/proc/self/exe").expect("a path");
        let first = maps.lines().find(|line| line.ends_with(own.to_str().expect("text"))).expect("its mapping");
        let bias = u64::from_str_radix(first.split('-').next().expect("an address"), 16).expect("a number");
        let found = symbols.find(debug_file as *const () as usize as u64 - bias);
        assert!(found.as_ref().is_some_and(|(name, offset)| name.ends_with("debug_file") && *offset == 0), "{found:?}");
    }
}

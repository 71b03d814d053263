//! What would let a refused call through. Pure; each sentence is true of the memory that it is said of.

use super::model::{Memory, Remedy};
use crate::report::model::{Kind, Role};
use crate::report::objects::file_name;
use loader::seal::tunables::{DataSealing, SealLevel};

/// What is known about the process that was refused.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// Whether `ld-seal.so` is its loader.
    pub under_ld_seal: bool,
    /// Whether the kernel seals the vDSO by itself.
    pub kernel_seals_vdso: bool,
    /// Whether the level was given by `--seal`, which goes before the tunable.
    pub by_option: bool,
    /// The level, when it is known.
    pub level: Option<SealLevel>,
    /// `ldseal.data`
    pub data: DataSealing,
}

/// The remedies for calls on this memory. `names` are the file name and the DT_SONAME of the object, and what else it may have been
/// loaded by.
pub fn remedies(memory: &[Memory], names: &[String], situation: &Situation) -> Vec<Remedy> {
    let is_kernels = |m: &&Memory| m.role == Role::Kernel;
    let is_objects = |m: &&Memory| m.file_address.is_some();
    if memory.is_empty() {
        return Vec::new();
    }
    if memory.iter().any(|m| is_kernels(&m)) && situation.kernel_seals_vdso {
        return vec![nothing("the kernel seals this in every process (CONFIG_MSEAL_SYSTEM_MAPPINGS)")];
    }
    if !situation.under_ld_seal {
        return vec![nothing("not sealed by ld-seal.so, but by the program itself or its own loader")];
    }
    if memory.iter().all(|m| is_kernels(&m)) {
        return vec![tunable("ldseal.vdso=0", "leaves the vDSO and its data open")];
    }
    let mut objects: Vec<&str> = memory.iter().filter(is_objects).map(|m| m.object.as_str()).collect();
    objects.dedup();
    let all_of_one = objects.len() == 1 && memory.iter().all(|m| is_objects(&m));
    let foreign = memory.iter().any(|m| m.file_address.is_none() && m.role != Role::Kernel);
    if foreign && objects.is_empty() {
        return vec![nothing("no part of an object: sealed by the program itself, or the loader's own memory")];
    }
    if !all_of_one || memory.iter().any(|m| m.role == Role::Interpreter) {
        return vec![level(0, "nothing is sealed; no single setting opens all of this", situation)];
    }
    of_object(memory, objects[0], names, situation)
}

fn of_object(memory: &[Memory], object: &str, names: &[String], situation: &Situation) -> Vec<Remedy> {
    let mut found = Vec::new();
    let is_data = |kind| matches!(kind, Kind::Data | Kind::Bss | Kind::GotShared);
    if memory.iter().all(|m| is_data(m.kind) || m.kind == Kind::Got) {
        let only_data = memory.iter().all(|m| is_data(m.kind));
        if only_data {
            found.push(tunable("ldseal.data=0", "leaves the writable data of all objects open"));
        }
        if situation.level == Some(SealLevel::Enforced) && situation.data == DataSealing::Auto {
            let effect = "leaves the writable data of all objects open, and failures are tolerated";
            found.push(level(1, effect, situation));
        }
    }
    if let Some(pattern) = pattern(names) {
        let what = format!("leaves all of {} open", file_name(object));
        found.push(tunable(&format!("ldseal.exclude={pattern}"), &what));
    }
    if situation.level == Some(SealLevel::BestEffort) && object.starts_with('/') && !object.ends_with(" (deleted)") {
        let command = format!("ldseal mark --no-seal {object}");
        found.push(Remedy { set: Some(command), effect: "writes into the file that it opts out, for level 1".into() });
    }
    found
}

fn tunable(item: &str, effect: &str) -> Remedy {
    Remedy { set: Some(format!("GLIBC_TUNABLES={item}")), effect: effect.into() }
}

fn level(level: u8, effect: &str, situation: &Situation) -> Remedy {
    match situation.by_option {
        true => Remedy { set: Some(format!("--seal {level}")), effect: effect.into() },
        false => tunable(&format!("glibc.rtld.seal={level}"), effect),
    }
}

fn nothing(why: &str) -> Remedy {
    Remedy { set: None, effect: why.into() }
}

/// A pattern of `ldseal.exclude` that matches all of these names; None if they have too little in common. It is one item among others, so
/// there can be no colon in it.
pub fn pattern(names: &[String]) -> Option<String> {
    /// With less in common a pattern says nothing.
    const COMMON: usize = 4;
    let first = names.first()?;
    let common =
        |length: usize, name: &String| first.bytes().zip(name.bytes()).take(length).take_while(|(a, b)| a == b).count();
    let mut length = names.iter().fold(first.len(), common);
    while !first.is_char_boundary(length) {
        length -= 1;
    }
    let whole = names.iter().all(|name| name.len() == length);
    if length == 0 || first[..length].contains(':') || !whole && length < COMMON {
        return None;
    }
    let mut pattern = String::new();
    for letter in first[..length].chars() {
        if "*?[\\".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    if !whole {
        pattern.push('*');
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Address;

    const LEVEL_2: Situation = Situation {
        under_ld_seal: true,
        kernel_seals_vdso: false,
        by_option: true,
        level: Some(SealLevel::Enforced),
        data: DataSealing::Auto,
    };

    fn memory(object: &str, role: Role, kind: Kind) -> Memory {
        let (start, end) = (Address(0x1000), Address(0x2000));
        let file_address = object.starts_with('/').then_some(start);
        Memory { object: object.into(), role, kind, start, end, file_address }
    }

    fn set(memory: &[Memory], situation: &Situation) -> Vec<String> {
        let names = ["libx.so.1.2".to_owned(), "libx.so.1".to_owned()];
        remedies(memory, &names, situation).into_iter().map(|r| r.set.unwrap_or_default()).collect()
    }

    #[test]
    fn by_what_was_refused() {
        let library = |kind| memory("/lib/libx.so.1.2", Role::Library, kind);
        let exclude = "GLIBC_TUNABLES=ldseal.exclude=libx.so.1*";
        let data = "GLIBC_TUNABLES=ldseal.data=0";
        let level_1 = Situation { level: Some(SealLevel::BestEffort), ..LEVEL_2 };
        assert_eq!(set(&[library(Kind::Text)], &LEVEL_2), [exclude]);
        assert_eq!(set(&[library(Kind::Text)], &level_1), [exclude, "ldseal mark --no-seal /lib/libx.so.1.2"]);
        assert_eq!(set(&[library(Kind::Data), library(Kind::Bss)], &LEVEL_2), [data, "--seal 1", exclude]);
        assert_eq!(set(&[library(Kind::Data)], &Situation { data: DataSealing::Always, ..LEVEL_2 }), [data, exclude]);
        assert_eq!(set(&[library(Kind::Got)], &LEVEL_2), ["--seal 1", exclude]);
        assert_eq!(set(&[library(Kind::Data), library(Kind::Text)], &LEVEL_2), [exclude]);
        let tuned = Situation { by_option: false, ..LEVEL_2 };
        assert_eq!(set(&[library(Kind::Got)], &tuned), ["GLIBC_TUNABLES=glibc.rtld.seal=1", exclude]);
        let other = memory("/lib/liby.so", Role::Library, Kind::Text);
        assert_eq!(set(&[library(Kind::Text), other], &LEVEL_2), ["--seal 0"]);
        let vdso = memory("[vdso]", Role::Kernel, Kind::Vdso);
        assert_eq!(set(std::slice::from_ref(&vdso), &LEVEL_2), ["GLIBC_TUNABLES=ldseal.vdso=0"]);
        assert_eq!(set(&[vdso], &Situation { kernel_seals_vdso: true, ..LEVEL_2 }), [""]);
        assert_eq!(set(&[memory("[anonymous]", Role::Other, Kind::Anonymous)], &LEVEL_2), [""]);
        assert_eq!(set(&[library(Kind::Text)], &Situation { under_ld_seal: false, ..LEVEL_2 }), [""]);
        assert_eq!(set(&[memory("/x/ld-seal.so", Role::Interpreter, Kind::Text)], &LEVEL_2), ["--seal 0"]);
        assert!(set(&[], &LEVEL_2).is_empty());
    }

    #[test]
    fn patterns_match_all_names() {
        let of = |names: &[&str]| pattern(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["libffi.so.8.1.2", "libffi.so.8"]).as_deref(), Some("libffi.so.8*"));
        assert_eq!(of(&["libc.so.6", "libc.so.6"]).as_deref(), Some("libc.so.6"));
        assert_eq!(of(&["python3.11", "python3"]).as_deref(), Some("python3*"));
        assert_eq!(of(&["a[1]*.so"]).as_deref(), Some("a\\[1]\\*.so"));
        assert_eq!(of(&["a:b.so"]), None);
        assert_eq!(of(&["libx.so", "other.so"]), None);
        assert_eq!(of(&["sh"]).as_deref(), Some("sh"));
        for names in [&["libffi.so.8.1.2", "libffi.so.8"][..], &["a[1]*.so"], &["é1-x-abc", "é1-x-abd"]] {
            let pattern = of(names).expect("a pattern");
            for name in names {
                assert!(loader::seal::glob::matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
            }
        }
    }
}

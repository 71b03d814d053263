//! Whether a process is sealed as somebody requires it to be.

use super::model::{Group, Kind, Role, Verdict};
use crate::cli::Requirement;

/// Judges what was found. An object counts unless it was opened by dlopen and may be closed again.
pub fn judge(groups: &[Group]) -> Verdict {
    let covered = || groups.iter().filter(|group| group.covered);
    let mut verdict = Verdict { objects: covered().count(), ..Verdict::default() };
    for group in covered() {
        verdict.unknown_seals += group.regions.iter().filter(|r| r.sealed.is_none()).map(|r| r.size).sum::<u64>();
        for region in group.regions.iter().filter(|region| region.sealed == Some(false)) {
            *match region.kind {
                Kind::Text => &mut verdict.open_code,
                Kind::Rodata | Kind::Relro => &mut verdict.open_read_only,
                _ => &mut verdict.open_other,
            } += region.size;
        }
        verdict.open_other += group.unmapped_bytes;
    }
    let kernel = groups.iter().filter(|group| group.role == Role::Kernel).flat_map(|group| &group.regions);
    verdict.open_code += kernel
        .filter(|region| region.kind == Kind::Vdso && region.sealed == Some(false))
        .map(|region| region.size)
        .sum::<u64>();
    let others = groups.iter().filter(|group| group.role == Role::Other).flat_map(|group| &group.regions);
    verdict.unknown_code = others.filter(|region| region.protections.contains('x')).map(|region| region.size).sum();
    let known = verdict.objects > 0 && verdict.unknown_code == 0 && verdict.unknown_seals == 0;
    verdict.code = known && verdict.open_code == 0;
    verdict.relro = verdict.code && verdict.open_read_only == 0;
    verdict.all = verdict.relro && verdict.open_other == 0;
    verdict
}

impl Verdict {
    /// Whether a requirement is met.
    pub fn meets(&self, requirement: Requirement) -> bool {
        match requirement {
            Requirement::All => self.all,
            Requirement::Code => self.code,
            Requirement::Relro => self.relro,
        }
    }

    /// The verdict in one line.
    pub fn line(&self) -> String {
        let yes = |met: bool| if met { "yes" } else { "no" };
        let mut line = format!("Verdict: code {}, relro {}, all {}", yes(self.code), yes(self.relro), yes(self.all));
        let kib = |bytes: u64| bytes / 1024;
        for (bytes, what) in [
            (self.open_code, "of code open"),
            (self.open_read_only, "of read-only data open"),
            (self.open_other, "of other memory of objects open"),
            (self.unknown_code, "of executable memory belong to no object"),
            (self.unknown_seals, "of objects may be sealed or not"),
        ] {
            if bytes > 0 {
                line += &format!("; {} KiB {what}", kib(bytes));
            }
        }
        if self.objects == 0 {
            line += "; no object was found";
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Address, Region};
    use super::*;

    fn group(role: Role, covered: bool, regions: &[(Kind, &str, bool)]) -> Group {
        let mut group = Group { covered, ..Group::new("x".into(), role, covered.then_some(Address(0))) };
        for &(kind, protections, sealed) in regions {
            group.add(Region {
                start: Address(0),
                end: Address(4096),
                size: 4096,
                protections: protections.into(),
                kind,
                file: None,
                sealed: Some(sealed),
                why_not: None,
            });
        }
        group
    }

    fn judged(groups: &[Group]) -> [bool; 3] {
        let verdict = judge(groups);
        [verdict.code, verdict.relro, verdict.all]
    }

    #[test]
    fn each_requirement_looks_at_its_own_memory() {
        let text = (Kind::Text, "r-xp", true);
        let of = |others: &[(Kind, &str, bool)]| [group(Role::Executable, true, &[&[text], others].concat())];
        assert_eq!(judged(&of(&[])), [true; 3]);
        assert_eq!(judged(&of(&[(Kind::Data, "rw-p", false)])), [true, true, false]);
        assert_eq!(judged(&of(&[(Kind::Relro, "r--p", false)])), [true, false, false]);
        assert_eq!(judged(&of(&[(Kind::Text, "r-xp", false)])), [false; 3]);
    }

    #[test]
    fn nothing_known_is_nothing_sealed() {
        assert_eq!(judged(&[]), [false; 3]);
        let object = || group(Role::Executable, true, &[(Kind::Text, "r-xp", true)]);
        let open = group(Role::Library, false, &[(Kind::Text, "r-xp", false)]);
        assert_eq!(judged(&[object(), open]), [true; 3]);
        let made = group(Role::Other, false, &[(Kind::Anonymous, "rwxp", false)]);
        assert_eq!(judged(&[object(), made]), [false; 3]);
        let vdso = group(Role::Kernel, false, &[(Kind::Vdso, "r-xp", false)]);
        assert_eq!(judged(&[object(), vdso]), [false; 3]);
    }

    #[test]
    fn what_the_kernel_does_not_say_is_no_seal() {
        let mut object = group(Role::Executable, true, &[(Kind::Text, "r-xp", true)]);
        object.regions[0].sealed = None;
        assert_eq!(judged(&[object]), [false; 3]);
    }

    #[test]
    fn memory_that_is_missing_is_open() {
        let mut object = group(Role::Executable, true, &[(Kind::Text, "r-xp", true)]);
        object.unmapped_bytes = 4096;
        assert_eq!(judged(&[object]), [true, true, false]);
    }
}

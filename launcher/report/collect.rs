//! From a process to its report.

use super::model::{
    Address, Group, Kernel, Kind, Region, Report, Role, Summary, System, SystemState, NOT_STOPPED, VERSION,
};
use super::objects::{self, Object};
use super::process::Process;
use super::reason::{Evidence, Owner, Settings};
use super::smaps::{self, Mapping};
use super::{limits, memory, verdict};
use crate::interpreter;
use loader::addr::Addr;
use loader::seal::glob;
use loader::seal::tunables::SealLevel;
use std::collections::HashMap;
use std::io;
use std::ops::Range;

/// Looks at a process. `given` is the level it was asked to have, when it was this command that started it.
///
/// # Errors
/// No such process, or no right to look at it.
pub fn collect(process: &Process, given: Option<Option<SealLevel>>) -> io::Result<Report> {
    let mappings = process.mappings()?;
    if mappings.is_empty() {
        return Err(io::Error::other("it has no memory: a kernel thread, or it has ended"));
    }
    let mut images = HashMap::new();
    let mut objects = objects::find(&mappings, |mapping| {
        images.entry((mapping.name.clone(), mapping.inode)).or_insert_with(|| process.image(mapping)).clone()
    });
    objects.extend(memory::find(process, &mappings, &objects));
    objects.sort_by_key(|object| object.span().start);
    let roles = roles(process, &objects);
    let mut settings = Settings::of(process, given);
    let under_ld_seal = objects.iter().any(is_ld_seal);
    let sealed: Vec<bool> = objects.iter().map(|object| is_sealed(object, &mappings)).collect();
    settings.deduce(sealed.contains(&true).then(|| objects.iter().any(|object| data_is_sealed(object, &mappings))));
    let mut kernel = kernel()?;
    kernel.shows_seals |= mappings.iter().any(|mapping| mapping.sealed);
    let evidence = Evidence { kernel, under_ld_seal, settings: &settings, any_sealed: sealed.contains(&true) };
    // What a sealed object needs stays as long as that does.
    let sealed_ones = sealed.iter().enumerate().filter(|(_, &sealed)| sealed).map(|(index, _)| index);
    let mut roots: Vec<usize> = start_roots(process, &objects, &roles).into_iter().chain(sealed_ones).collect();
    let from_start = objects::closure(&objects, roots.iter().copied());
    roots.extend((0..objects.len()).filter(|&index| objects[index].image.nodelete));
    let stays = objects::closure(&objects, roots);
    let exclude = evidence.settings.tunables().exclude;
    // An open copy of a file that has a sealed one is not the start's, but of a namespace of dlmopen.
    let has_sealed_twin =
        |object: &Object| objects.iter().zip(&sealed).any(|(other, &sealed)| sealed && other.path == object.path);
    let owner = |index: usize| {
        let (object, any_sealed) = (&objects[index], sealed[index]);
        let is_the_one = any_sealed || !has_sealed_twin(object);
        Owner {
            any_sealed,
            from_start: from_start[index] && is_the_one,
            stays: stays[index] && is_the_one,
            excluded: exclude.is_some_and(|pattern| glob::matches_object(pattern, object.path.as_bytes())),
            is_static: roles[index] == Role::Executable && object.image.is_static,
            opts_out: object.image.opts_out,
            asks_for_seal: object.image.asks_for_seal,
        }
    };
    let owners = (0..objects.len()).map(owner).collect();
    let groups = Grouping { objects: &objects, roles, owners, evidence: &evidence }.groups(&mappings);
    let verdict = verdict::judge(&groups);
    let command = process.command_line().iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    Ok(Report {
        version: VERSION,
        pid: process.pid,
        command,
        under_ld_seal,
        level: settings.level.filter(|_| under_ld_seal).map(SealLevel::number),
        level_source: if under_ld_seal { settings.source } else { "not started under ld-seal.so" },
        kernel: evidence.kernel,
        system: system(&groups, &evidence.kernel),
        summary: summary(&mappings, &groups),
        verdict,
        limits: limits::limits(&groups, mappings.len()),
        objects: groups,
        not_stopped: NOT_STOPPED,
    })
}

/// What the running kernel offers, seen by trying: an empty range can be sealed wherever mseal exists, and this very
/// process has sealed nothing, so a sealed vDSO is the kernel's work.
pub fn kernel() -> io::Result<Kernel> {
    let mseal = loader::sys::mseal(Addr(0)..Addr(0)) != Err(rustix::io::Errno::NOSYS);
    let own = Process { pid: std::process::id() }.mappings()?;
    let seals_system_mappings = own.iter().any(|mapping| mapping.name == "[vdso]" && mapping.sealed);
    let shows_seals = seals_system_mappings || crate::sys::smaps_tells_seals() == Some(true);
    Ok(Kernel { mseal, seals_system_mappings, shows_seals })
}

/// Whether an object is `ld-seal.so`: by its name, or, for a copy of another name, by what its file says.
pub fn is_ld_seal(object: &Object) -> bool {
    let name = objects::file_name(&object.path);
    let named = name.strip_prefix("memfd:").unwrap_or(name) == interpreter::NAME;
    named || super::image::Image::read(interpreter::IMAGE).is_some_and(|image| image == *object.image)
}

/// What each object is in a process.
pub fn roles(process: &Process, objects: &[Object]) -> Vec<Role> {
    let executed = process.executable();
    let loader = |object: &Object| is_ld_seal(object) || object.name().starts_with("ld-linux");
    // A program under a loader that was itself executed is known by its own word only.
    let program = objects
        .iter()
        .position(|object| Some(&object.path) == executed.as_ref() && !loader(object))
        .or_else(|| objects.iter().position(|object| object.image.program && !loader(object)));
    let role = |(index, object): (usize, &Object)| match object {
        _ if Some(index) == program => Role::Executable,
        object if loader(object) => Role::Interpreter,
        _ => Role::Library,
    };
    objects.iter().enumerate().map(role).collect()
}

/// The objects that the start of the program is about: itself, its loader, and what LD_PRELOAD and LD_AUDIT name.
fn start_roots(process: &Process, objects: &[Object], roles: &[Role]) -> Vec<usize> {
    let lists =
        [process.variable(b"LD_PRELOAD"), process.variable(b"LD_AUDIT"), process.preload_file()].into_iter().flatten();
    let lists: Vec<Vec<u8>> = lists.chain(super::reason::option_lists(&process.command_line())).collect();
    let names = lists.iter().flat_map(|list| list.split(|byte| b" :\t\n".contains(byte)));
    let named: Vec<String> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let is_root = |index: &usize| {
        let name = objects::file_name(&objects[*index].path);
        roles[*index] != Role::Library || named.iter().any(|named| objects::file_name(named) == name)
    };
    (0..objects.len()).filter(is_root).collect()
}

fn is_sealed(object: &Object, mappings: &[Mapping]) -> bool {
    mappings.iter().any(|mapping| mapping.sealed && objects::inside(&mapping.range, object).is_some())
}

fn data_is_sealed(object: &Object, mappings: &[Mapping]) -> bool {
    let writable = |mapping: &&Mapping| mapping.sealed && mapping.permissions.write;
    mappings.iter().filter(writable).any(|mapping| objects::inside(&mapping.range, object).is_some())
}

/// Puts each page of each mapping into the group it belongs to.
struct Grouping<'a> {
    objects: &'a [Object],
    roles: Vec<Role>,
    owners: Vec<Owner>,
    evidence: &'a Evidence<'a>,
}

impl Grouping<'_> {
    fn groups(&self, mappings: &[Mapping]) -> Vec<Group> {
        let of_object = |((object, &role), owner): ((&Object, &Role), &Owner)| Group {
            covered: owner.stays || owner.any_sealed,
            opts_out: owner.opts_out,
            ..Group::new(object.path.clone(), role, Some(Address(object.bias)))
        };
        let mut groups: Vec<Group> = self.objects.iter().zip(&self.roles).zip(&self.owners).map(of_object).collect();
        for mapping in mappings {
            let mut at = mapping.range.start;
            while at < mapping.range.end {
                let owner = self.objects.iter().position(|object| object.span().contains(&at));
                let end = match owner {
                    Some(index) => self.objects[index].span().end,
                    None => self
                        .objects
                        .iter()
                        .map(|o| o.span().start)
                        .filter(|&start| start > at)
                        .min()
                        .unwrap_or(u64::MAX),
                };
                let range = at..end.min(mapping.range.end);
                at = range.end;
                match owner {
                    Some(index) => {
                        for (range, kind) in self.objects[index].cut(range) {
                            let kind = self.in_fact(index, mapping, kind);
                            groups[index].add(self.region(mapping, range, kind, Some(self.owners[index])));
                        }
                    }
                    None => self.add_other(&mut groups, mapping, range),
                }
            }
        }
        for (group, object) in groups.iter_mut().zip(self.objects) {
            let span = object.span();
            group.unmapped_bytes = (span.end - span.start).saturating_sub(group.mapped_bytes);
        }
        groups
    }

    /// The loader has tables among its data that it makes read-only when they are filled.
    fn in_fact(&self, object: usize, mapping: &Mapping, kind: Kind) -> Kind {
        match kind {
            Kind::Data | Kind::Bss if self.roles[object] == Role::Interpreter && !mapping.permissions.write => {
                Kind::Relro
            }
            kind => kind,
        }
    }

    /// Memory of no object goes to the group of its name.
    fn add_other(&self, groups: &mut Vec<Group>, mapping: &Mapping, range: Range<u64>) {
        let (kind, role) = other(&mapping.name);
        let name = if mapping.name.is_empty() { "[anonymous]" } else { &mapping.name };
        let group = match groups.iter().position(|group| group.bias.is_none() && group.name == name) {
            Some(index) => index,
            None => {
                groups.push(Group::new(name.into(), role, None));
                groups.len() - 1
            }
        };
        groups[group].add(self.region(mapping, range, kind, None));
    }

    fn region(&self, mapping: &Mapping, range: Range<u64>, kind: Kind, owner: Option<Owner>) -> Region {
        Region {
            start: Address(range.start),
            end: Address(range.end),
            size: range.end - range.start,
            protections: mapping.permissions.to_string(),
            kind,
            file: (mapping.inode != 0).then(|| mapping.name.clone()),
            sealed: (mapping.sealed || self.evidence.kernel.shows_seals).then_some(mapping.sealed),
            why_not: (!mapping.sealed).then(|| self.evidence.why_not(kind, owner)),
        }
    }
}

/// What memory outside of all objects is, by the kernel's name for it.
pub fn other(name: &str) -> (Kind, Role) {
    match name {
        "[vdso]" => (Kind::Vdso, Role::Kernel),
        "[vsyscall]" => (Kind::Vsyscall, Role::Kernel),
        "[uprobes]" => (Kind::Uprobes, Role::Kernel),
        "[heap]" => (Kind::Heap, Role::Other),
        "[stack]" => (Kind::Stack, Role::Other),
        _ if name.starts_with("[vvar") => (Kind::Vvar, Role::Kernel),
        _ if name.starts_with('/') => (Kind::MappedFile, Role::Other),
        _ => (Kind::Anonymous, Role::Other),
    }
}

/// How the kernel's own mappings are sealed.
fn system(groups: &[Group], kernel: &Kernel) -> Vec<System> {
    const NAMES: [&str; 5] = ["[vdso]", "[vvar]", "[vvar_vclock]", "[uprobes]", "[vsyscall]"];
    let state = |name: &'static str| {
        let group = groups.iter().find(|group| group.role == Role::Kernel && group.name == name);
        let state = match group {
            None => SystemState::Absent,
            Some(_) if name == "[vsyscall]" => SystemState::NotSealable,
            Some(group) if group.sealed_bytes < group.mapped_bytes && !kernel.shows_seals => SystemState::Unknown,
            Some(group) if group.sealed_bytes < group.mapped_bytes => SystemState::Open,
            Some(_) if kernel.seals_system_mappings => SystemState::SealedByKernel,
            Some(_) => SystemState::SealedByLoader,
        };
        let why_not = group.and_then(|group| group.regions.iter().find_map(|region| region.why_not.clone()));
        System { name, state, why_not }
    };
    NAMES.into_iter().map(state).collect()
}

fn summary(mappings: &[smaps::Mapping], groups: &[Group]) -> Summary {
    let mut summary = Summary::default();
    for mapping in mappings.iter().filter(|mapping| mapping.name != "[vsyscall]") {
        summary.mappings += 1;
        summary.mapped_bytes += mapping.range.end - mapping.range.start;
        if mapping.sealed {
            summary.sealed_mappings += 1;
            summary.sealed_bytes += mapping.range.end - mapping.range.start;
        }
    }
    for group in groups.iter().filter(|group| group.bias.is_some()) {
        summary.object_bytes += group.mapped_bytes;
        summary.sealed_object_bytes += group.sealed_bytes;
    }
    summary
}

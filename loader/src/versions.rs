//! Whether what objects need of each other's versions is there.

use crate::elf::version::{Need, NeededVersion, Versions};
use crate::error::{LoadError, Lossy, Reason};
use crate::linker::Linker;
use crate::memory;
use crate::object::{Kind, NamespaceId, Object, ObjectId, BASE_NAMESPACE};
use crate::rule::{holds, Rule};
use alloc::sync::Arc;

impl Linker {
    /// The object whose versions count for those that others need of a file: in a listing none if the file is missing for somebody before
    /// it is there for somebody else.
    pub fn provider(&self, namespace: NamespaceId, file: &[u8]) -> Option<ObjectId> {
        let id = self.find_by_name(namespace, file)?;
        let mut missing = self.missing.iter().flatten().filter(|(_, name)| namespace == BASE_NAMESPACE && name == file);
        // When places were counted, the interpreter still stood near the start of the list.
        let others = self.namespace(namespace).list.iter().filter(|id| self.objects[**id].kind != Kind::Interpreter);
        let before = others.take_while(|other| **other != id).count();
        let is_first = missing.all(|(place, _)| *place > before + 1) || self.objects[id].kind == Kind::Interpreter;
        is_first.then_some(id)
    }

    /// For a listing: leaves the objects of the program's closure the versions that glibc knows of where files are missing.
    pub fn forget_versions(&mut self, closure: &[ObjectId]) {
        for &id in closure {
            let mut versions = Versions::clone(&self.objects[id].versions);
            versions.forget_behind_known(|file| self.provider(BASE_NAMESPACE, file).is_some());
            self.objects[id].versions = Arc::new(versions);
        }
    }

    /// Checks that every version which an object needs is there, one after the other: what is missing.
    pub fn missing_versions(&self, id: ObjectId) -> impl Iterator<Item = LoadError> + '_ {
        let object = &self.objects[id];
        let is_checked = holds(Rule::VersionsChecked);
        let needs = if is_checked { &object.versions.needs[..] } else { &[] };
        let is_there = |file: &[u8]| self.provider(object.namespace, file).is_some();
        let marker = is_checked && object.dynamic.relr.is_some() && object.versions.lacks_relr_marker(is_there);
        let unmarked =
            marker.then(|| LoadError::fault(object.display_name(), "DT_RELR without GLIBC_ABI_DT_RELR dependency"));
        let defined = move |need: &'_ Need<'static>| self.provider(object.namespace, need.file);
        unmarked.into_iter().chain(needs.iter().filter_map(move |need| Some((need, defined(need)?))).flat_map(
            move |(need, definer)| {
                let definer = &self.objects[definer];
                // That a file has no versions at all is said once.
                let count = if definer.versions.defines { need.versions.len() } else { 1 };
                need.versions.iter().take(count).filter_map(move |wanted| version_fault(object, definer, wanted))
            },
        ))
    }
}

/// What is wrong with a version that an object needs of another.
fn version_fault(object: &Object, definer: &Object, wanted: &NeededVersion<'_>) -> Option<LoadError> {
    log::debug!(
        target: "versions",
        "checking for version `{}' in file {} [{}] required by file {} [{}]",
        Lossy(wanted.version.name), Lossy(definer.display_name()), definer.namespace.0,
        Lossy(object.display_name()), object.namespace.0,
    );
    let required_by = || memory::copy_of(object.display_name());
    let reason = if !definer.versions.defines {
        Reason::NoVersions { required_by: required_by() }
    } else if definer.versions.definitions.contains(&wanted.version) {
        return None;
    } else {
        let version = memory::copy_of(wanted.version.name);
        Reason::MissingVersion { version, required_by: required_by(), weak: wanted.weak }
    };
    Some(LoadError::new(definer.display_name(), reason))
}

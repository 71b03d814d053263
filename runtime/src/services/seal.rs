//! The seals of a commit.

use crate::process::Process;
use loader::object::ObjectId;
use loader::seal::apply;
use loader::seal::plan::SealPlan;

/// Seals objects that will stay for ever. Nothing that can fail may follow.
pub fn objects(process: &Process, ids: &[ObjectId]) {
    let mut plan = SealPlan::default();
    for &id in ids {
        let object = &process.linker.objects[id];
        plan.add(object.display_name(), object, &process.seal);
    }
    apply::apply(&plan, process.level());
}

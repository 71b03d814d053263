//! The seals of a commit.

use crate::heap::HEAP;
use crate::process::Process;
use loader::object::ObjectId;
use loader::seal::apply;
use loader::seal::plan::SealPlan;
use loader::seal::tunables::SealTunables;

/// Seals objects that will stay for ever. Nothing that can fail may follow.
pub fn objects(process: &Process, ids: &[ObjectId]) {
    if !process.seal.late {
        return;
    }
    let mut plan = plan(process, ids);
    add_heap(&mut plan, &process.seal);
    apply::apply(plan, process.level());
}

/// Seals objects that come to stay while the program has not begun: audit modules. The interpreter's heap is left to the commit of the start.
pub fn at_start(process: &Process, ids: &[ObjectId]) {
    apply::apply(plan(process, ids), process.level());
}

fn plan(process: &Process, ids: &[ObjectId]) -> SealPlan {
    let mut plan = SealPlan::default();
    for &id in ids {
        let object = &process.linker.objects[id];
        plan.add(object.display_name(), object, &process.seal, apply::shows_plans());
    }
    plan
}

/// Adds the memory that the interpreter's heap has taken since the last commit.
pub fn add_heap(plan: &mut SealPlan, tunables: &SealTunables<'_>) {
    if !tunables.seals() {
        return;
    }
    HEAP.take_unsealed_arenas(|arena| plan.add_range(b"[interpreter's heap]", arena, None));
}

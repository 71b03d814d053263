//! In which order constructors and destructors run: dependencies are initialised first and finalised last.
//!
//! gABI "Initialization and Termination Functions" asks for that much and leaves cycles open; there it is one of glibc's two orders
//! ([`Algorithm`]).

use crate::linker::Linker;
use crate::object::{Kind, NamespaceId, ObjectId, Stage, BASE_NAMESPACE};
use crate::rule::{holds, Rule};
use alloc::vec::Vec;

/// How objects are brought into order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// One after the other is moved behind the last object that depends on it, until none has to be moved any more or all have gone
    /// round in a cycle (`glibc.rtld.dynamic_sort=1`).
    Moving,
    /// A depth-first walk, entered from the last object of the list (`glibc.rtld.dynamic_sort=2`).
    #[default]
    DepthFirst,
}

/// What is known of the objects of a list.
pub struct Relations<'r> {
    /// What an object needs, in order. Entries outside the list, and the object itself, are passed over.
    pub dependencies: &'r dyn Fn(ObjectId) -> &'r [ObjectId],
    /// Whether nobody is sorted by depending on an object: the program.
    pub is_main: &'r dyn Fn(ObjectId) -> bool,
    /// What counts when the order is one of destructors.
    pub finalisation: Option<Finalisation<'r>>,
}

/// What is known besides when objects are finalised.
pub struct Finalisation<'r> {
    /// The objects that an object is bound to without depending on them, in the order in which that came about; `None` if there has never
    /// been one.
    pub references: &'r dyn Fn(ObjectId) -> Option<&'r [ObjectId]>,
    /// Whether an object is not to be finalised this time.
    pub stays: &'r dyn Fn(ObjectId) -> bool,
}

/// Sorts `list` so that every object comes before what it depends on. Constructors run from the end of the result to its start,
/// destructors the other way. With `keep_first` the first object stays first, even if something in a cycle with it has to be before it.
pub fn sort(algorithm: Algorithm, list: &[ObjectId], keep_first: bool, relations: &Relations<'_>) -> Vec<ObjectId> {
    match algorithm {
        Algorithm::Moving => {
            let mut list = list.to_vec();
            move_behind(list.get_mut(usize::from(keep_first)..).unwrap_or_default(), relations);
            list
        }
        Algorithm::DepthFirst => depth_first(list, keep_first, relations),
    }
}

impl Relations<'_> {
    fn depends(&self, on: ObjectId, object: ObjectId) -> bool {
        let depends = |from: ObjectId, to: ObjectId| (self.dependencies)(from).contains(&to);
        let refers = |f: &Finalisation<'_>| (f.references)(object).is_some_and(|list| list.contains(&on));
        // In a cycle of a dependency and a reference it is the dependency that counts.
        depends(object, on) || self.finalisation.as_ref().is_some_and(refers) && !depends(on, object)
    }
}

fn move_behind(list: &mut [ObjectId], relations: &Relations<'_>) {
    // By place: how often the object there has been looked at since the one before the first unfinished place was settled.
    let mut looks = alloc::vec![0usize; list.len()];
    let mut at = 0;
    while at < list.len() {
        looks[at] += 1;
        let object = list[at];
        let stays = relations.finalisation.as_ref().is_some_and(|f| (f.stays)(object));
        let later = at + 1..list.len();
        let last = later.rev().find(|&place| !stays && relations.depends(object, list[place]));
        if let Some(last) = last {
            list[at..=last].rotate_left(1);
            if looks[at + 1] <= list.len() - at {
                looks[at..=last].rotate_left(1);
                continue;
            }
        }
        at += 1;
        looks[at..].fill(0);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Unlisted,
    Listed,
    Visited,
}

fn depth_first(list: &[ObjectId], keep_first: bool, relations: &Relations<'_>) -> Vec<ObjectId> {
    let (mut sorted, met_references) = walk(list, relations, relations.finalisation.as_ref());
    if met_references {
        // Dependencies count for more than references: once more by them alone, from what is the order so far.
        return walk(&sorted, relations, None).0;
    }
    if let Some(&first) = list.first().filter(|_| keep_first) {
        if let Some(at) = sorted.iter().position(|&id| id == first) {
            sorted[..=at].rotate_right(1);
        }
    }
    sorted
}

/// The objects in the reverse of the order in which a walk leaves them, and whether it has met a reference.
fn walk(
    list: &[ObjectId],
    relations: &Relations<'_>,
    finalisation: Option<&Finalisation<'_>>,
) -> (Vec<ObjectId>, bool) {
    let mut met_references = false;
    let count = list.iter().map(|id| id.0 as usize + 1).max().unwrap_or(0);
    let mut marks = alloc::vec![Mark::Unlisted; count];
    for id in list {
        marks[id.0 as usize] = Mark::Listed;
    }
    let mut finished: Vec<ObjectId> = Vec::with_capacity(list.len());
    // The path that led here, with how many neighbours of each object have been looked at.
    let mut path: Vec<(ObjectId, usize)> = Vec::with_capacity(list.len());
    for &start in list.iter().rev() {
        if marks[start.0 as usize] == Mark::Visited {
            continue;
        }
        marks[start.0 as usize] = Mark::Visited;
        path.push((start, 0));
        while let Some((object, next)) = path.last_mut() {
            let dependencies = (relations.dependencies)(*object);
            let references = finalisation.and_then(|f| (f.references)(*object));
            met_references |= references.is_some();
            let references = references.unwrap_or_default();
            let neighbour = match dependencies.get(*next) {
                Some(dependency) => Some(dependency),
                None => references.iter().rev().nth(*next - dependencies.len()),
            };
            let Some(&neighbour) = neighbour else {
                finished.push(*object);
                path.pop();
                continue;
            };
            *next += 1;
            match marks.get_mut(neighbour.0 as usize) {
                Some(mark) if *mark == Mark::Listed && !(relations.is_main)(neighbour) => {
                    *mark = Mark::Visited;
                    path.push((neighbour, 0));
                }
                _ => {}
            }
        }
    }
    if holds(Rule::DependenciesFirst) {
        finished.reverse();
    }
    (finished, met_references)
}

impl Linker {
    /// The order of initialisation of `root` and its closure (breadth first), the last first: the root, which is initialised last, need not
    /// be first in the closure: it may have filtees, which are searched before it.
    pub fn initialisation_order(&self, closure: &[ObjectId], root: ObjectId) -> Vec<ObjectId> {
        let known = &self.objects[root].initialisation_order;
        if !known.is_empty() {
            return known.clone();
        }
        let others = closure.iter().copied().filter(|&id| id != root);
        let list: Vec<ObjectId> = core::iter::once(root).chain(others).collect();
        // As in glibc nothing is known yet of what a new root needs: it comes first whatever that is.
        let is_new_root = |id: ObjectId| id == root && self.objects[id].stage == Stage::Mapped;
        let dependencies = |id: ObjectId| if is_new_root(id) { &[][..] } else { self.objects[id].initialised_before() };
        let relations = Relations { dependencies: &dependencies, is_main: &|id| self.is_main(id), finalisation: None };
        sort(self.algorithm, &list, true, &relations)
    }

    /// Takes note of the order in which the closure of a dlopened object is initialised.
    pub fn note_order(&mut self, root: ObjectId, order: &[ObjectId]) {
        let object = &mut self.objects[root];
        if object.initialisation_order.is_empty() {
            if let Some(references) = &mut object.references {
                references.retain(|id| !order.contains(id));
            }
            object.initialisation_order = order.to_vec();
        }
    }

    /// What dead objects have brought in and leave behind: from now on the order knows no more of it than what it asks for itself, even if it
    /// is dlopened later, as in glibc.
    pub fn settle_orders(&mut self, dead: &[ObjectId]) {
        for &root in dead {
            for id in self.objects[root].initialisation_order.clone() {
                let object = &mut self.objects[id];
                if object.initialisation_order.is_empty() && !object.local_scope.is_empty() && !dead.contains(&id) {
                    object.initialisation_order = core::iter::once(id).chain(object.needed.iter().copied()).collect();
                }
            }
        }
    }

    /// The order of finalisation of the objects of a namespace, without those that stay.
    pub fn finalisation_order(&self, namespace: NamespaceId, stays: &dyn Fn(ObjectId) -> bool) -> Vec<ObjectId> {
        let relations = Relations {
            dependencies: &|id| self.objects[id].initialised_before(),
            is_main: &|id| self.is_main(id),
            finalisation: Some(Finalisation { references: &|id| self.objects[id].references.as_deref(), stays }),
        };
        let list = &self.namespace(namespace).list;
        let mut order = sort(self.algorithm, list, namespace == BASE_NAMESPACE, &relations);
        order.retain(|&id| !stays(id));
        order
    }

    fn is_main(&self, id: ObjectId) -> bool {
        self.objects[id].kind == Kind::Executable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Algorithm; 2] = [Algorithm::Moving, Algorithm::DepthFirst];

    fn ids(raw: &[&[u32]]) -> Vec<Vec<ObjectId>> {
        raw.iter().map(|edges| edges.iter().map(|&i| ObjectId(i)).collect()).collect()
    }

    /// The order of objects that need these, and refer to those; 0 is the program.
    fn sorted_with(algorithm: Algorithm, needed: &[&[u32]], references: Option<&[&[u32]]>) -> Vec<u32> {
        let list: Vec<ObjectId> = (0..needed.len() as u32).map(ObjectId).collect();
        let needed = ids(needed);
        let references_of = ids(references.unwrap_or_default());
        let refers = |id: ObjectId| Some(&*references_of[id.0 as usize]).filter(|list| !list.is_empty());
        let stays = |_| false;
        let relations = Relations {
            dependencies: &|id| &needed[id.0 as usize],
            is_main: &|id| id == ObjectId(0),
            finalisation: references.map(|_| Finalisation { references: &refers, stays: &stays }),
        };
        sort(algorithm, &list, true, &relations).iter().map(|id| id.0).collect()
    }

    fn sorted(algorithm: Algorithm, needed: &[&[u32]]) -> Vec<u32> {
        sorted_with(algorithm, needed, None)
    }

    #[test]
    fn dependencies_come_later() {
        assert_eq!(BOTH.map(|a| sorted(a, &[&[1, 2], &[3], &[3], &[]])), [[0, 1, 2, 3]; 2]);
        assert_eq!(BOTH.map(|a| sorted(a, &[&[1, 2], &[], &[1]])), [[0, 2, 1]; 2]);
    }

    #[test]
    fn a_cycle_ends() {
        assert_eq!(BOTH.map(|a| sorted(a, &[&[1], &[2], &[1]])), [[0, 1, 2], [0, 2, 1]]);
        assert_eq!(BOTH.map(|a| sorted(a, &[&[0, 1], &[0]])), [[0, 1]; 2]);
        assert_eq!(BOTH.map(|a| sorted(a, &[&[1, 2, 3], &[2], &[3], &[1]]).len()), [4; 2]);
    }

    #[test]
    fn a_reference_counts_at_the_end_unless_a_dependency_contradicts_it() {
        let independent: [&[u32]; 3] = [&[1, 2], &[], &[]];
        for algorithm in BOTH {
            assert_eq!(sorted_with(algorithm, &independent, Some(&[&[], &[], &[]])), [0, 1, 2]);
            assert_eq!(sorted_with(algorithm, &independent, Some(&[&[], &[], &[1]])), [0, 2, 1]);
            assert_eq!(sorted_with(algorithm, &[&[1, 2], &[2], &[]], Some(&[&[], &[], &[1]])), [0, 1, 2]);
        }
    }

    proptest::proptest! {
        #[test]
        fn in_a_graph_without_cycles_nothing_precedes_its_dependents(
            raw in proptest::collection::vec(proptest::collection::vec(0u32..12, 0..4), 1..12)
        ) {
            // Edges go to higher numbers only.
            let edges: Vec<Vec<u32>> = raw.iter().enumerate()
                .map(|(i, e)| e.iter().copied().filter(|&t| t as usize > i && (t as usize) < raw.len()).collect()).collect();
            let refs: Vec<&[u32]> = edges.iter().map(Vec::as_slice).collect();
            for algorithm in BOTH {
                let order = sorted(algorithm, &refs);
                assert_eq!(order.len(), raw.len());
                for (i, targets) in edges.iter().enumerate() {
                    let place = |o: u32| order.iter().position(|&x| x == o);
                    assert!(targets.iter().all(|&t| place(t) > place(i as u32)));
                }
            }
        }

        #[test]
        fn in_any_graph_each_object_is_there_once(
            raw in proptest::collection::vec(proptest::collection::vec(0u32..8, 0..8), 8),
            references in proptest::collection::vec(proptest::collection::vec(0u32..8, 0..3), 8),
        ) {
            let [needed, references] = [&raw, &references].map(|e| e.iter().map(Vec::as_slice).collect::<Vec<&[u32]>>());
            for algorithm in BOTH {
                let mut order = sorted_with(algorithm, &needed, Some(&references));
                assert_eq!(order[0], 0);
                order.sort_unstable();
                assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7]);
            }
        }
    }
}

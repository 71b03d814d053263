//! In which order constructors run: dependencies first.
//!
//! gABI "Initialization and Termination Functions" asks for that much and leaves cycles open; there it is glibc's order
//! (`glibc.rtld.dynamic_sort=2`): a depth-first walk, entered from the last object of the breadth-first list.

use crate::object::ObjectId;
use crate::rule::{holds, Rule};
use alloc::vec::Vec;

/// Sorts `list` (the root, then its closure breadth first) so that every object comes before what it depends on. Constructors run
/// from the end of the result to its start, destructors the other way.
pub fn sort<'d>(
    list: &[ObjectId],
    main: Option<ObjectId>,
    dependencies: impl Fn(ObjectId) -> &'d [ObjectId],
) -> Vec<ObjectId> {
    let mut finished = sort_from(list, main, dependencies);
    // The root stays first even if something in a cycle with it was entered earlier.
    if let Some(&root) = list.first() {
        if let Some(at) = finished.iter().position(|&o| o == root) {
            finished.remove(at);
            finished.insert(0, root);
        }
    }
    finished
}

fn sort_from<'d>(
    list: &[ObjectId],
    main: Option<ObjectId>,
    dependencies: impl Fn(ObjectId) -> &'d [ObjectId],
) -> Vec<ObjectId> {
    let mut visited: Vec<ObjectId> = Vec::with_capacity(list.len());
    let mut finished: Vec<ObjectId> = Vec::with_capacity(list.len());
    for &start in list.iter().rev() {
        if visited.contains(&start) {
            continue;
        }
        visited.push(start);
        // The path from `start`, with how many dependencies of each object have been looked at.
        let mut path = alloc::vec![(start, 0usize)];
        while let Some((object, next)) = path.last_mut() {
            match dependencies(*object).get(*next) {
                Some(&dependency) => {
                    *next += 1;
                    if Some(dependency) != main && list.contains(&dependency) && !visited.contains(&dependency) {
                        visited.push(dependency);
                        path.push((dependency, 0));
                    }
                }
                None => {
                    finished.push(*object);
                    path.pop();
                }
            }
        }
    }
    if holds(Rule::DependenciesFirst) {
        finished.reverse();
    }
    finished
}

/// Like [`sort`] for the root of a list that need not be first: it may have filtees, which are searched before it. It is initialised last.
pub fn sort_rooted<'d>(
    list: &[ObjectId],
    root: ObjectId,
    dependencies: impl Fn(ObjectId) -> &'d [ObjectId],
) -> Vec<ObjectId> {
    if list.first() == Some(&root) {
        return sort(list, None, dependencies);
    }
    let others = list.iter().copied().filter(|&id| id != root);
    sort(&core::iter::once(root).chain(others).collect::<Vec<_>>(), None, dependencies)
}

/// Sorts objects that have no common root so that every object comes before what it depends on.
pub fn sort_all<'d>(list: &[ObjectId], dependencies: impl Fn(ObjectId) -> &'d [ObjectId]) -> Vec<ObjectId> {
    sort_from(list, None, dependencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(raw: &[u32]) -> Vec<ObjectId> {
        raw.iter().map(|&i| ObjectId(i)).collect()
    }

    fn sorted(edges: &[&[u32]]) -> Vec<u32> {
        let graph: Vec<Vec<ObjectId>> = edges.iter().map(|e| ids(e)).collect();
        let list: Vec<ObjectId> = (0..edges.len() as u32).map(ObjectId).collect();
        sort(&list, Some(ObjectId(0)), |o| &graph[o.0 as usize]).iter().map(|o| o.0).collect()
    }

    #[test]
    fn dependencies_come_later() {
        assert_eq!(sorted(&[&[1, 2], &[3], &[3], &[]]), [0, 1, 2, 3]);
        assert_eq!(sorted(&[&[1, 2], &[], &[1]]), [0, 2, 1]);
    }

    #[test]
    fn a_cycle_ends() {
        assert_eq!(sorted(&[&[1], &[2], &[1]]).len(), 3);
        assert_eq!(sorted(&[&[0, 1], &[0]]), [0, 1]);
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
            let order = sorted(&refs);
            assert_eq!(order.len(), raw.len());
            for (i, targets) in edges.iter().enumerate() {
                let place = |o: u32| order.iter().position(|&x| x == o);
                assert!(targets.iter().all(|&t| place(t) > place(i as u32)));
            }
        }
    }
}

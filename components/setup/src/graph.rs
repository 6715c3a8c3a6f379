//! Who depends on whom: groups in the order of starting, circles by name, and what is missing.

use exprsn_sdk::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Dependencies of services by name. What is depended on need not be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph(BTreeMap<String, BTreeSet<String>>);

/// The answer of `GET /api/graph`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GraphView {
    pub nodes: Vec<Node>,
    /// Groups of names; those of one group can start together, after all groups before it. What is in a circle, or
    /// depends on one, is in none.
    pub start_order: Vec<Vec<String>>,
    /// Each circle as a path that ends where it begins: `["a", "b", "a"]`.
    pub cycles: Vec<Vec<String>>,
    /// Names that are depended on but not registered.
    pub missing: Vec<String>,
}

/// A service with what it depends on and what depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub depends_on: Vec<String>,
    pub needed_by: Vec<String>,
}

impl Graph {
    /// Adds a service's dependencies to those it has.
    pub fn add(&mut self, name: &str, dependencies: impl IntoIterator<Item = impl Into<String>>) {
        self.0
            .entry(name.to_owned())
            .or_default()
            .extend(dependencies.into_iter().map(Into::into));
    }

    /// Replaces a service's dependencies.
    pub fn set(&mut self, name: &str, dependencies: impl IntoIterator<Item = impl Into<String>>) {
        self.0.remove(name);
        self.add(name, dependencies);
    }

    /// The shortest circle through `name`, as a path that ends where it begins.
    pub fn cycle_through(&self, name: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut frontier = vec![name];
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for at in frontier {
                for wanted in self.wanted(at) {
                    if wanted == name {
                        return Some(walk_back(&came_from, name, at));
                    }
                    if !came_from.contains_key(wanted) {
                        came_from.insert(wanted, at);
                        next.push(wanted);
                    }
                }
            }
            frontier = next;
        }
        None
    }

    /// Groups in the order of starting; a missing dependency does not hold its dependants back.
    pub fn start_order(&self) -> Vec<Vec<String>> {
        let mut waiting: BTreeSet<&str> = self.0.keys().map(String::as_str).collect();
        let mut order = Vec::new();
        loop {
            let free = |name: &&str| self.wanted(name).all(|wanted| !waiting.contains(wanted));
            let ready: Vec<&str> = waiting.iter().copied().filter(free).collect();
            if ready.is_empty() {
                return order;
            }
            for name in &ready {
                waiting.remove(name);
            }
            order.push(ready.into_iter().map(str::to_owned).collect());
        }
    }

    /// Every service that is in a circle leads to one; each set of members is told once, its first name leading.
    pub fn cycles(&self) -> Vec<Vec<String>> {
        let mut told = BTreeSet::new();
        let mut cycles = Vec::new();
        for name in self.0.keys() {
            let Some(cycle) = self.cycle_through(name) else {
                continue;
            };
            if told.insert(cycle.iter().cloned().collect::<BTreeSet<_>>()) {
                cycles.push(cycle);
            }
        }
        cycles
    }

    /// Names depended on that are not here.
    pub fn missing(&self) -> Vec<String> {
        let wanted: BTreeSet<&String> = self.0.values().flatten().collect();
        wanted
            .into_iter()
            .filter(|name| !self.0.contains_key(*name))
            .cloned()
            .collect()
    }

    /// Everything there is to say of the graph.
    pub fn view(&self) -> GraphView {
        let needed_by = |name: &str| {
            let needs = |(_, wanted): &(&String, &BTreeSet<String>)| wanted.contains(name);
            self.0
                .iter()
                .filter(needs)
                .map(|(other, _)| other.clone())
                .collect()
        };
        let nodes = self.0.iter().map(|(name, wanted)| Node {
            name: name.clone(),
            depends_on: wanted.iter().cloned().collect(),
            needed_by: needed_by(name),
        });
        GraphView {
            nodes: nodes.collect(),
            start_order: self.start_order(),
            cycles: self.cycles(),
            missing: self.missing(),
        }
    }

    fn wanted(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }
}

/// The circle from `name` to `last` and back to `name`.
fn walk_back(came_from: &BTreeMap<&str, &str>, name: &str, last: &str) -> Vec<String> {
    let mut path = vec![name.to_owned()];
    let mut at = last;
    while at != name {
        path.push(at.to_owned());
        at = came_from[at];
    }
    path.push(name.to_owned());
    path.reverse();
    path
}

/// A circle as people read it: `a → b → a`.
pub fn spell(cycle: &[String]) -> String {
    cycle.join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        let mut graph = Graph::default();
        for (name, wanted) in edges {
            graph.add(name, wanted.iter().copied());
        }
        graph
    }

    #[test]
    fn groups_come_after_what_they_need() {
        let graph = graph(&[
            ("ca", &[]),
            ("setup", &["ca"]),
            ("auth", &["ca"]),
            ("timeline", &["auth", "ca"]),
            ("ext", &["gone"]),
        ]);
        let view = graph.view();
        let order: Vec<String> = view
            .start_order
            .iter()
            .map(|group| group.join(" "))
            .collect();
        assert_eq!(order, ["ca ext", "auth setup", "timeline"]);
        assert_eq!(
            (view.missing, view.cycles),
            (vec!["gone".to_owned()], vec![])
        );
        assert_eq!(view.nodes[1].needed_by, ["auth", "setup", "timeline"]);
    }

    #[test]
    fn circles_are_named_once_and_do_not_hide_the_rest() {
        let graph = graph(&[
            ("a", &["b"]),
            ("b", &["c"]),
            ("c", &["a"]),
            ("d", &["a"]),
            ("e", &["e"]),
            ("f", &[]),
        ]);
        let cycles: Vec<String> = graph.cycles().iter().map(|cycle| spell(cycle)).collect();
        assert_eq!(cycles, ["a → b → c → a", "e → e"]);
        assert_eq!(graph.start_order(), [["f"]]);
    }

    #[test]
    fn finds_the_shortest_circle_through_a_name() {
        let graph = graph(&[
            ("a", &["b", "c"]),
            ("b", &["d"]),
            ("c", &["a"]),
            ("d", &["a"]),
        ]);
        assert_eq!(spell(&graph.cycle_through("a").unwrap()), "a → c → a");
        assert_eq!(spell(&graph.cycle_through("b").unwrap()), "b → d → a → b");
        assert_eq!(graph.cycle_through("zz"), None);
    }

    #[test]
    fn replacing_forgets_what_was() {
        let mut graph = graph(&[("a", &["b"]), ("b", &["a"])]);
        graph.set("b", ["c"]);
        assert_eq!(graph.cycles(), Vec::<Vec<String>>::new());
    }

    #[test]
    fn a_long_chain_is_no_burden() {
        let mut graph = Graph::default();
        for at in 0..500 {
            graph.add(
                &format!("s{at:03}"),
                (at > 0).then(|| format!("s{:03}", at - 1)),
            );
        }
        assert_eq!(graph.start_order().len(), 500);
        assert!(graph.cycles().is_empty());
    }
}

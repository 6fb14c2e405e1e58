//! Templates and prefixes, segment by segment.
//!
//! One arena of nodes holds a tree for each site's templates and one for its prefixes. Edges of text
//! are in one hash table for all nodes, keyed by node and text: a node with ten thousand children costs
//! as much to leave as one with two.

use super::RouteId;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hub_config::runtime::Segment;
use std::hash::BuildHasher;

/// Position of a node.
pub(super) type NodeId = u32;

#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    edges: HashTable<Edge>,
    hasher: RandomState,
}

/// A path up to some segment, and the routes that end there.
#[derive(Debug, Default)]
struct Node {
    /// True where an edge of text leads on.
    texts: bool,
    /// Where `{one}` leads.
    one: Option<NodeId>,
    /// Templates that end exactly here.
    end: Vec<RouteId>,
    /// Templates that go on with `{*rest}`.
    rest: Vec<RouteId>,
    /// Prefixes that end here.
    prefix: Vec<RouteId>,
}

#[derive(Debug)]
struct Edge {
    from: NodeId,
    text: Box<str>,
    to: NodeId,
}

impl Trie {
    /// A new tree's root.
    pub(super) fn root(&mut self) -> NodeId {
        let id = NodeId::try_from(self.nodes.len()).expect("there are fewer than 2^32 segments");
        self.nodes.push(Node::default());
        id
    }

    pub(super) fn insert_template(&mut self, root: NodeId, segments: &[Segment], route: RouteId) {
        let mut node = root;
        for segment in segments {
            match segment {
                Segment::Literal(text) => node = self.child_or_new(node, text),
                Segment::One(_) => {
                    node = match self.nodes[node as usize].one {
                        Some(one) => one,
                        None => {
                            let one = self.root();
                            self.nodes[node as usize].one = Some(one);
                            one
                        }
                    }
                }
                Segment::Rest(_) => {
                    self.nodes[node as usize].rest.push(route);
                    return;
                }
            }
        }
        self.nodes[node as usize].end.push(route);
    }

    pub(super) fn insert_prefix(&mut self, root: NodeId, path: &str, route: RouteId) {
        let mut node = root;
        // The root `/` has no segment; every other prefix has one after each slash.
        for segment in path.split('/').skip(1).filter(|_| path != "/") {
            node = self.child_or_new(node, segment);
        }
        self.nodes[node as usize].prefix.push(route);
    }

    /// Every list of routes that share host and path.
    pub(super) fn for_each_list(&mut self, change: impl Fn(&mut Vec<RouteId>)) {
        for node in &mut self.nodes {
            change(&mut node.end);
            change(&mut node.rest);
            change(&mut node.prefix);
        }
    }

    /// Shows the routes that match `path` (without its first slash), the most specific ones first,
    /// until `visit` is content.
    pub(super) fn walk<T>(
        &self,
        root: NodeId,
        path: &str,
        visit: &mut impl FnMut(&[RouteId]) -> Option<T>,
    ) -> Option<T> {
        self.step(root, Some(path), visit)
    }

    /// `path` is what lies behind the node; `None` where the path ends with it.
    ///
    /// The recursion is as deep as the longest pattern at most, whose 2048 bytes the configuration's
    /// check allows, and comes by each node once at most, because a node has one parent.
    fn step<T>(
        &self,
        node: NodeId,
        path: Option<&str>,
        visit: &mut impl FnMut(&[RouteId]) -> Option<T>,
    ) -> Option<T> {
        let at = &self.nodes[node as usize];
        let deeper = match path {
            None => show(&at.end, visit),
            Some(path) => {
                let (segment, rest) = match path.find('/') {
                    Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
                    None => (path, None),
                };
                let text = at.texts.then(|| self.child(node, segment)).flatten();
                let one = at.one.filter(|_| !segment.is_empty());
                text.and_then(|child| self.step(child, rest, visit))
                    .or_else(|| one.and_then(|child| self.step(child, rest, visit)))
                    .or_else(|| show(&at.rest, visit))
            }
        };
        deeper.or_else(|| show(&at.prefix, visit))
    }

    fn child(&self, from: NodeId, text: &str) -> Option<NodeId> {
        self.edges
            .find(self.hasher.hash_one((from, text)), |edge| {
                edge.from == from && *edge.text == *text
            })
            .map(|edge| edge.to)
    }

    fn child_or_new(&mut self, from: NodeId, text: &str) -> NodeId {
        if let Some(child) = self.child(from, text) {
            return child;
        }
        let to = self.root();
        self.nodes[from as usize].texts = true;
        let hasher = &self.hasher;
        let hash = |from: NodeId, text: &str| hasher.hash_one((from, text));
        self.edges.insert_unique(
            hash(from, text),
            Edge {
                from,
                text: text.into(),
                to,
            },
            |edge| hash(edge.from, &edge.text),
        );
        to
    }
}

fn show<T>(routes: &[RouteId], visit: &mut impl FnMut(&[RouteId]) -> Option<T>) -> Option<T> {
    if routes.is_empty() {
        None
    } else {
        visit(routes)
    }
}

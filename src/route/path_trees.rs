//! Radix trees over paths.
//!
//! A pattern is plain text up to its first parameter, its star or its end. The plain text is a key
//! in a radix tree; where a parameter comes next, the key's node leads to another tree for what
//! follows the parameter's segment. So a template of three parameters is found through four trees.
//! All trees of a table lie in one arena, children side by side.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{ControlFlow, Range};

use weir_config::{PathMatch, Segment};

/// No node, no leaf.
const NONE: u32 = u32::MAX;

/// Finished trees. A tree is named by its root.
#[derive(Debug)]
pub(super) struct PathTrees<E> {
    nodes: Vec<Node>,
    /// The first byte of each node's label, to find a child without touching the children.
    firsts: Vec<u8>,
    labels: Vec<u8>,
    /// What ends at the same pattern, in file order.
    leaves: Vec<Box<[E]>>,
}

#[derive(Debug)]
struct Node {
    /// What this node adds to its parent's key, in `labels`.
    label: Range<u32>,
    children: Range<u32>,
    /// Bytes of the key, from the root of this tree.
    depth: u32,
    /// Patterns that end here, and then those that would go on with a slash.
    exact: u32,
    /// Patterns that go on with anything.
    star: u32,
    /// The tree for what follows a parameter that comes here.
    parameter: u32,
    /// The nearest node above at which a parameter or a star comes.
    open_above: u32,
}

impl<E> Default for PathTrees<E> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            firsts: Vec::new(),
            labels: Vec::new(),
            leaves: Vec::new(),
        }
    }
}

impl<E> PathTrees<E> {
    /// Visits what matches `path` in the tree at `root`, in order of precedence, until `visit`
    /// breaks: the more plain text the sooner, after the same text a parameter before a star.
    /// Goes as deep as the longest template has parameters.
    pub(super) fn visit<'t, B>(
        &'t self,
        root: u32,
        path: &[u8],
        visit: &mut impl FnMut(&'t E) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(deepest) = self.descend(root, path) else {
            return ControlFlow::Continue(());
        };
        if deepest.depth as usize == path.len() {
            self.visit_leaf(deepest.exact, visit)?;
        }
        let mut at = Some(deepest);
        while let Some(node) = at {
            if node.parameter != NONE {
                let rest = path.get(node.depth as usize..).unwrap_or_default();
                let taken = rest.iter().take_while(|byte| **byte != b'/').count();
                if let Some(rest) = rest.get(taken..).filter(|_| taken > 0) {
                    self.visit(node.parameter, rest, visit)?;
                }
            }
            self.visit_leaf(node.star, visit)?;
            at = self.node(node.open_above);
        }
        ControlFlow::Continue(())
    }

    /// The deepest node whose key `path` begins with.
    fn descend(&self, root: u32, path: &[u8]) -> Option<&Node> {
        let mut found = None;
        let mut at = root;
        loop {
            let Some(node) = self.node(at) else {
                return found;
            };
            let (start, end) = (node.label.start as usize, node.label.end as usize);
            let label = self.labels.get(start..end).unwrap_or_default();
            let rest = path
                .get(node.depth as usize - label.len()..)
                .unwrap_or_default();
            let Some(rest) = rest.strip_prefix(label) else {
                return found;
            };
            found = Some(node);
            let Some(first) = rest.first() else {
                return found;
            };
            let children = node.children.start as usize..node.children.end as usize;
            let firsts = self.firsts.get(children).unwrap_or_default();
            let Some(index) = firsts.iter().position(|byte| byte == first) else {
                return found;
            };
            at = node.children.start + index as u32;
        }
    }

    fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    fn visit_leaf<'t, B>(
        &'t self,
        leaf: u32,
        visit: &mut impl FnMut(&'t E) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let entries = self
            .leaves
            .get(leaf as usize)
            .map_or(&[][..], |entries| entries);
        entries.iter().try_for_each(visit)
    }
}

/// Trees that are still growing, by root. Control has these for the moment of a compilation.
#[derive(Debug)]
pub(super) struct PathTreeDrafts<E>(Vec<BTreeMap<Vec<u8>, DraftNode<E>>>);

#[derive(Debug)]
struct DraftNode<E> {
    exact: Vec<E>,
    /// Patterns that go on with a slash and anything, and take what ends here too if none in `exact` does.
    bare: Vec<E>,
    star: Vec<E>,
    parameter: u32,
}

impl<E> Default for PathTreeDrafts<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E: Clone> PathTreeDrafts<E> {
    /// Adds an empty tree.
    pub(super) fn add(&mut self) -> u32 {
        self.0.push(BTreeMap::new());
        id_of(self.0.len() - 1)
    }

    /// Adds a pattern to a tree.
    pub(super) fn insert(&mut self, mut tree: u32, path: &PathMatch, entry: E) {
        match path {
            PathMatch::Exact(path) => self.draft(tree, path.as_bytes()).exact.push(entry),
            PathMatch::Prefix(path) => self.insert_open(tree, path.as_bytes(), entry),
            PathMatch::Template { segments, open } => {
                let mut key = Vec::new();
                for segment in segments {
                    key.push(b'/');
                    match segment {
                        Segment::Literal(text) => key.extend_from_slice(text.as_bytes()),
                        Segment::Parameter(_) => {
                            tree = self.tree_after(tree, &key);
                            key.clear();
                        }
                    }
                }
                if *open {
                    key.push(b'/');
                    self.insert_open(tree, &key, entry);
                } else {
                    self.draft(tree, &key).exact.push(entry);
                }
            }
        }
    }

    /// Adds a pattern that goes on with anything behind `key`.
    fn insert_open(&mut self, tree: u32, key: &[u8], entry: E) {
        if let Some(bare) = key.strip_suffix(b"/") {
            self.draft(tree, bare).bare.push(entry.clone());
        }
        self.draft(tree, key).star.push(entry);
    }

    fn draft(&mut self, tree: u32, key: &[u8]) -> &mut DraftNode<E> {
        self.0[tree as usize]
            .entry(key.to_vec())
            .or_insert_with(|| DraftNode {
                exact: Vec::new(),
                bare: Vec::new(),
                star: Vec::new(),
                parameter: NONE,
            })
    }

    /// The tree behind a parameter that follows `key`.
    fn tree_after(&mut self, tree: u32, key: &[u8]) -> u32 {
        let known = self.draft(tree, key).parameter;
        if known != NONE {
            return known;
        }
        let new = self.add();
        self.draft(tree, key).parameter = new;
        new
    }

    /// Lays the trees out. They keep their names.
    pub(super) fn finish(self) -> PathTrees<E> {
        let mut paths = PathTrees::default();
        for _ in &self.0 {
            paths.add(NONE, 0);
        }
        for (root, draft) in (0..).zip(self.0) {
            paths.lay_out(root, draft.into_iter().collect());
        }
        paths
    }
}

impl<E> PathTrees<E> {
    /// Builds the tree at `root` from its keys in their order, level by level, so that the
    /// children of a node come to lie side by side.
    fn lay_out(&mut self, root: u32, mut keys: Vec<(Vec<u8>, DraftNode<E>)>) {
        let mut queue = VecDeque::from([(root, 0..keys.len(), 0)]);
        while let Some((id, mut range, above)) = queue.pop_front() {
            // All keys of the range agree up to `above`, and first and last up to `depth`, so all do.
            let depth = shared(&keys[range.start].0, &keys[range.end - 1].0);
            let label_start = id_of(self.labels.len());
            self.labels
                .extend_from_slice(&keys[range.start].0[above..depth]);
            let (mut exact, mut star, mut parameter) = (NONE, NONE, NONE);
            if keys[range.start].0.len() == depth {
                let draft = &mut keys[range.start].1;
                let mut ends_here = std::mem::take(&mut draft.exact);
                ends_here.append(&mut draft.bare);
                exact = self.add_leaf(ends_here);
                star = self.add_leaf(std::mem::take(&mut draft.star));
                parameter = draft.parameter;
                range.start += 1;
            }
            let label = label_start..id_of(self.labels.len());
            let first_child = id_of(self.nodes.len());
            let is_open = parameter != NONE || star != NONE;
            let open_above = if is_open {
                id
            } else {
                self.nodes[id as usize].open_above
            };
            while range.start < range.end {
                let byte = keys[range.start].0[depth];
                let same = keys[range.clone()].partition_point(|(key, _)| key[depth] <= byte);
                let child = self.add(open_above, byte);
                queue.push_back((child, range.start..range.start + same, depth));
                range.start += same;
            }
            let children = first_child..id_of(self.nodes.len());
            let node = &mut self.nodes[id as usize];
            let depth = id_of(depth);
            *node = Node {
                label,
                children,
                depth,
                exact,
                star,
                parameter,
                ..*node
            };
        }
    }

    fn add(&mut self, open_above: u32, first: u8) -> u32 {
        self.firsts.push(first);
        self.nodes.push(Node {
            label: 0..0,
            children: 0..0,
            depth: 0,
            exact: NONE,
            star: NONE,
            parameter: NONE,
            open_above,
        });
        id_of(self.nodes.len() - 1)
    }

    fn add_leaf(&mut self, entries: Vec<E>) -> u32 {
        if entries.is_empty() {
            return NONE;
        }
        self.leaves.push(entries.into());
        id_of(self.leaves.len() - 1)
    }
}

/// How many bytes two keys have in common at their beginning.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Places in a table: a file of at most 64 MiB cannot make as many as 32 bits count.
fn id_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}

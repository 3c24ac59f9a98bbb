//! Radix trees over paths.
//!
//! A pattern is plain text up to its first parameter, its star or its end. This text is a key in a radix tree. If a
//! parameter follows, the node of the key leads to another tree, for the rest of the pattern after the segment of the
//! parameter. So a template with three parameters takes four trees. All trees of a table are in one arena, with
//! children side by side.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{ControlFlow, Range};

use weir_config::{PathMatch, Segment};

/// No node, no leaf.
const NONE: u32 = u32::MAX;

/// Finished trees. The index of its root names a tree.
#[derive(Debug)]
pub(super) struct PathTrees<E> {
    nodes: Vec<Node>,
    /// The first byte of each node's label, so that finding a child does not touch its siblings.
    firsts: Vec<u8>,
    labels: Vec<u8>,
    /// The entries of each pattern, in file order.
    leaves: Vec<Box<[E]>>,
}

#[derive(Debug)]
struct Node {
    /// The part of `labels` that this node adds to the key of its parent.
    label: Range<u32>,
    children: Range<u32>,
    /// Length of the key in bytes, from the root of this tree.
    depth: u32,
    /// Leaf of the patterns that end here, then of the patterns that go on with a slash and a star.
    exact: u32,
    /// Leaf of the patterns that go on with a star.
    star: u32,
    /// The tree for the rest of the patterns that go on with a parameter.
    parameter: u32,
    /// The nearest node at or above this one that goes on with a parameter or a star.
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
    /// Visits the entries that match `path` in the tree at `root`, in order of precedence, until `visit` breaks. More
    /// plain text comes first; after the same text, a parameter comes before a star. The recursion is as deep as the
    /// longest template has parameters.
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

    /// Visits the entries of the patterns that are `path` as a whole, and of those that go on with a slash and a star.
    pub(super) fn visit_end<'t, B>(
        &'t self,
        root: u32,
        path: &[u8],
        visit: &mut impl FnMut(&'t E) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let deepest = self.descend(root, path);
        match deepest.filter(|node| node.depth as usize == path.len()) {
            Some(node) => self.visit_leaf(node.exact, visit),
            None => ControlFlow::Continue(()),
        }
    }

    /// The deepest node whose key is a prefix of `path`.
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

/// Trees under construction, by root. They exist only while control compiles a plan.
#[derive(Debug)]
pub(super) struct PathTreeDrafts<E>(Vec<BTreeMap<Vec<u8>, DraftNode<E>>>);

#[derive(Debug)]
struct DraftNode<E> {
    exact: Vec<E>,
    /// Patterns that go on with a slash and a star. They also take paths that end here, after those in `exact`.
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
            // `PathRegexes` has these.
            PathMatch::Regex(_) => {}
        }
    }

    /// Adds a pattern that goes on with a star after `key`.
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

    /// The tree after a parameter that follows `key`.
    fn tree_after(&mut self, tree: u32, key: &[u8]) -> u32 {
        let known = self.draft(tree, key).parameter;
        if known != NONE {
            return known;
        }
        let new = self.add();
        self.draft(tree, key).parameter = new;
        new
    }

    /// Lays the trees out. They keep their roots.
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
    /// Builds the tree at `root` from its sorted keys, level by level, so that the children of a node are side by side.
    fn lay_out(&mut self, root: u32, mut keys: Vec<(Vec<u8>, DraftNode<E>)>) {
        if keys.is_empty() {
            // A host with regular expressions alone.
            return;
        }
        let mut queue = VecDeque::from([(root, 0..keys.len(), 0)]);
        while let Some((id, mut range, above)) = queue.pop_front() {
            // The first and the last key of the range agree up to `depth`. The keys are sorted, so all of them do.
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

/// The length of the common prefix of two keys.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// An index in the arena. A file of at most 64 MiB cannot make more nodes than 32 bits count.
fn id_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}
